package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// chain is what this process knows of a writer's chain in store.
type chain struct {
	mu       sync.Mutex
	head     event.Head // guarded by mu, as all below
	revision uint64     // of the head's record
	loaded   bool
}

func (l *Log) chain(writer string) *chain {
	c, _ := l.chains.LoadOrStore(writer, &chain{head: event.Head{Writer: writer}})
	return c.(*chain)
}

// load reads the head where it is not known. A chain that has become shorter under a running server was tampered
// with: nothing more is written to it.
func (c *chain) load(ctx context.Context, s store.Store) error {
	if c.loaded {
		return nil
	}
	head := event.Head{Writer: c.head.Writer}
	r, err := s.Get(ctx, headPrefix+c.head.Writer)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read head of audit chain: %w", err)
	}
	if err == nil {
		if err := json.Unmarshal(r.Value, &head); err != nil || head.Writer != c.head.Writer {
			return damaged("the head of the audit chain of %s is damaged", c.head.Writer)
		}
	}
	if head.Seq < c.head.Seq || head.Seq == c.head.Seq && head.Hash != c.head.Hash {
		return damaged("the audit chain of %s was cut or changed: it had %d entries and has %d", c.head.Writer,
			c.head.Seq, head.Seq)
	}
	c.head, c.revision, c.loaded = head, r.Revision, true
	return nil
}

func damaged(format string, args ...any) *fault.Error {
	return fault.New(fault.Internal, format, args...).WithReason("audit_damaged").WithFix("tctl audit verify")
}

// advance commits ops together with the chain's new head.
func (c *chain) advance(ctx context.Context, s store.Store, head event.Head, ops []store.Op) (uint64, error) {
	b, err := json.Marshal(head)
	if err != nil {
		return 0, fmt.Errorf("encode head of audit chain: %w", err)
	}
	key := headPrefix + head.Writer
	ops = append(ops, store.CheckRevision(key, c.revision), store.Put(key, b))
	revision, err := s.Txn(ctx, ops)
	if err != nil {
		c.loaded = false // whatever it was, the store is asked again
		return 0, fmt.Errorf("write audit chain: %w", err)
	}
	c.head, c.revision = head, revision
	return revision, nil
}

func entryKey(writer string, seq uint64) string {
	return fmt.Sprintf("%s%s/%016x", entryPrefix, writer, seq)
}

// entryWrites are the operations that store an entry and its line in the index of times. The index has the event's
// time, but none later than its arrival: a clock that runs ahead does not put an event before all others for ever.
func entryWrites(s event.Stored, at time.Time, index []byte) []store.Op {
	ops := []store.Op{store.Create(entryKey(s.Writer, s.Seq), s.AppendJSON(make([]byte, 0, len(s.Event)+storedRoom)))}
	if s.Line == 0 {
		ops = append(ops, store.Put(timeKey(s, at), index))
	}
	return ops
}

// storedRoom is what a stored entry takes beside its event.
const storedRoom = 512

func timeKey(s event.Stored, at time.Time) string {
	if s.Arrival.Before(at) {
		at = s.Arrival
	}
	return fmt.Sprintf("%s%s/%s/%016x", timePrefix, timeHex(at), s.Writer, s.Seq)
}

func timeHex(t time.Time) string { return fmt.Sprintf("%016x", max(t.UnixMicro(), 0)) }

// indexOf is what a listing filters by: kind, user, and names of the device.
func indexOf(ev event.Event) []byte {
	b, _ := json.Marshal(lineOf(ev)) // strings alone always encode
	return b
}

func lineOf(ev event.Event) indexLine {
	line := indexLine{Kind: ev.Kind, User: ev.User}
	if ev.Device != nil {
		line.Devices = []string{ev.Device.ID, ev.Device.AssetTag}
	}
	if ev.Resource != nil && ev.ResourceKind == "device" {
		line.Devices = append(line.Devices, ev.ResourceName)
	}
	return line
}

// join takes a further event of one change into a line, which then tells of both; false where they are of different
// kinds or users.
func (l *indexLine) join(next indexLine) bool {
	if l.Kind != next.Kind || l.User != next.User {
		return false
	}
	l.More, l.Devices = l.More+1, append(l.Devices, next.Devices...)
	return true
}

type indexLine struct {
	Kind    event.Kind `json:"k"`
	User    string     `json:"u,omitempty"`
	Devices []string   `json:"d,omitempty"`
	More    uint64     `json:"n,omitempty"` // how many of the entries behind it the line tells of too
}
