package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// MaxIngest is how many entries one Ingest takes.
const MaxIngest = 1000

// alarmEvery is the least time between two alarms about one writer.
const alarmEvery = time.Minute

// Sender is who sends entries, by the host certificate of the connection.
type Sender struct {
	Writer string // host UUID
	Roles  []event.Role
}

type alarms struct {
	mu   sync.Mutex
	last map[string]time.Time // guarded by mu
}

// Ingest takes a sender's entries in sequence and returns the number up to which its chain is now durable here, also
// beside an error. Entries that are here already are passed over; one that differs from what is here, belongs to
// another writer, is of a kind that the sender's roles do not write, or names another server or cluster is refused,
// and what was refused is recorded as an alarm. A gap is refused without one: the sender goes on behind acked.
func (l *Log) Ingest(ctx context.Context, from Sender, entries []event.Entry) (acked uint64, err error) {
	if err := event.ValidWriter(from.Writer); err != nil {
		return 0, err
	}
	if from.Writer == l.cfg.Writer {
		return 0, fault.New(fault.Denied, "this chain is written by the auth server itself").WithReason("audit_own_chain")
	}
	if len(entries) > MaxIngest {
		return 0, fault.New(fault.Invalid, "more than %d audit entries at once", MaxIngest).WithReason("audit_too_many")
	}
	acked, err = l.ingest(ctx, from, entries)
	var refused *refusedEntry
	if errors.As(err, &refused) {
		l.alarm(ctx, from, refused)
		return acked, fault.New(fault.Denied, "an audit entry of %s was refused", from.Writer).
			WithReason(refused.reason).WithCause("%s", refused.Error())
	}
	return acked, err
}

// refusedEntry is an entry that an honest writer does not send.
type refusedEntry struct {
	reason string
	err    error
}

func (r *refusedEntry) Error() string { return r.err.Error() }

func refuse(reason, format string, args ...any) error {
	return &refusedEntry{reason: reason, err: fmt.Errorf(format, args...)}
}

func (l *Log) ingest(ctx context.Context, from Sender, entries []event.Entry) (uint64, error) {
	c := l.chain(from.Writer)
	c.mu.Lock()
	defer c.mu.Unlock()
	for tries := 0; ; tries++ {
		if err := c.load(ctx, l.cfg.Store); err != nil {
			return 0, err
		}
		fresh, err := l.unseen(ctx, c, from, entries)
		if err != nil || len(fresh) == 0 {
			return c.head.Seq, err
		}
		took, err := l.take(ctx, c, from, fresh)
		switch {
		case errors.Is(err, store.ErrConflict) && tries < 5:
			continue // another auth server took entries of this writer meanwhile
		case err != nil:
			return c.head.Seq, err
		}
		entries, tries = fresh[took:], 0
	}
}

// unseen passes over the entries that are stored already, after comparing their hashes.
func (l *Log) unseen(ctx context.Context, c *chain, from Sender, entries []event.Entry) ([]event.Entry, error) {
	for i, e := range entries {
		if e.Writer != from.Writer {
			return nil, refuse("audit_other_writer", "entry %d is of writer %q, sent by %s", e.Seq, e.Writer, from.Writer)
		}
		if e.Seq > c.head.Seq {
			return entries[i:], nil
		}
		have, err := l.stored(ctx, e.Writer, e.Seq)
		if err != nil {
			return nil, err
		}
		if have.Hash != e.Hash {
			return nil, refuse("audit_fork", "entry %d is here with another hash", e.Seq)
		}
	}
	return nil, nil
}

// take commits as many entries as fit one transaction, those before a refused one included, and says how many.
func (l *Log) take(ctx context.Context, c *chain, from Sender, entries []event.Entry) (int, error) {
	head, took, size := c.head, 0, 0
	var ops []store.Op
	var refusal error
	for _, e := range entries {
		size += 2*len(e.Event) + 1024
		if took > 0 && (len(ops)+entryOps+chainOps > store.MaxOps || size > store.MaxTxn) {
			break
		}
		add, err := l.admit(head, from, e)
		if err != nil {
			refusal = err
			break
		}
		ops, head, took = append(ops, add...), e.Head(), took+1
	}
	if took == 0 {
		return 0, refusal
	}
	_, err := c.advance(ctx, l.cfg.Store, head, ops)
	return took, err // the refused one comes first in the next round
}

// admit judges the entry that is to follow head and says how to store it.
func (l *Log) admit(head event.Head, from Sender, e event.Entry) ([]store.Op, error) {
	if e.Writer == head.Writer && e.Seq > head.Seq+1 {
		return nil, fault.New(fault.Conflict, "audit entry %d of %s came before entry %d", e.Seq, e.Writer, head.Seq+1).
			WithReason("audit_gap")
	}
	if err := e.Follows(head); err != nil {
		return nil, refuse("audit_fork", "%w", err)
	}
	ev, err := event.Parse(e.Event)
	if err != nil {
		return nil, refuse("audit_bad_event", "entry %d: %w", e.Seq, err)
	}
	switch {
	case !ev.Kind.WrittenBy(from.Roles...):
		return nil, refuse("audit_foreign_kind", "entry %d: %s is not written by %v", e.Seq, ev.Kind, from.Roles)
	case ev.Cluster != l.cfg.Cluster:
		return nil, refuse("audit_other_cluster", "entry %d is of cluster %q", e.Seq, ev.Cluster)
	case ev.Session != nil && ev.ServerID != "" && ev.ServerID != from.Writer:
		return nil, refuse("audit_other_server", "entry %d tells of server %q", e.Seq, ev.ServerID)
	}
	s := event.Stored{Entry: e, Sender: slices.Clone(from.Roles), Arrival: l.cfg.Now().UTC()}
	return entryWrites(s, ev.Time, indexOf(ev)), nil
}

// alarm records what a writer tried, at most once a minute for each: it must not be able to flood the log.
func (l *Log) alarm(ctx context.Context, from Sender, refused *refusedEntry) {
	now := l.cfg.Now()
	l.alarms.mu.Lock()
	last, again := l.alarms.last[from.Writer]
	again = again && now.Sub(last).Abs() < alarmEvery
	if !again {
		if l.alarms.last == nil {
			l.alarms.last = make(map[string]time.Time)
		}
		l.alarms.last[from.Writer] = now
	}
	l.alarms.mu.Unlock()
	if again {
		return
	}
	// The entry is refused whether or not the alarm can be written.
	_, _ = l.Record(ctx, event.Event{Kind: event.AuditAlarm, Message: refused.Error(),
		Session: &event.Session{ServerID: from.Writer, Reason: refused.reason}})
}
