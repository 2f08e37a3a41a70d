// Package audit writes, collects and verifies the cluster's audit log: one hash chain per writer, kept in store.
//
//	audit/entry/WRITER/SEQ         event.Stored as JSON
//	audit/time/MICROS/WRITER/SEQ   what listings filter by
//	audit/head/WRITER              the chain's event.Head as JSON
//	audit/heads/NUMBER             the latest signed lists of heads
//
// Numbers are 16 hex digits. At auth a Log records events, an agent spools them (package spool) and auth takes them in
// (Log.Ingest). What cannot be written does not happen: callers act only after Record, or spool.Write, has returned nil.
package audit

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

const (
	entryPrefix = "audit/entry/"
	timePrefix  = "audit/time/"
	headPrefix  = "audit/head/"
	headsPrefix = "audit/heads/"
	ownPrefix   = "audit/"
)

// MaxOps is how many operations of its own a recorded change may carry.
const MaxOps = store.MaxOps - chainOps - entryOps

const (
	chainOps = 2 // the head: its revision checked, its new value
	entryOps = 2 // the entry and its line in the index of times
)

// maxChange bounds the keys and values of a recorded change, to leave room for the event beside it.
const maxChange = store.MaxTxn - 2*event.MaxEvent

// Config is what a Log works with; all fields are needed.
type Config struct {
	Store    store.Store
	Writer   string // this auth server's host UUID
	Cluster  string
	HeadsKey crypto.Signer // Ed25519, keystore.AuditHeads
	Now      func() time.Time
}

// Log is the audit log at auth. Its methods may be called by many goroutines at once; it holds nothing to close.
type Log struct {
	cfg    Config
	key    ed25519.PublicKey
	turn   chan struct{} // held by who commits for all that wait
	chains sync.Map      // writer → *chain
	alarms alarms

	mu    sync.Mutex
	queue []*change // guarded by mu

	signing sync.Mutex
	signed  *event.SignedHeads // the last list; guarded by signing
}

// New makes the log of one auth server.
func New(cfg Config) (*Log, error) {
	if cfg.Store == nil || cfg.Cluster == "" || cfg.HeadsKey == nil || cfg.Now == nil {
		return nil, errors.New("audit log with an incomplete configuration")
	}
	if err := event.ValidWriter(cfg.Writer); err != nil {
		return nil, err
	}
	key, ok := cfg.HeadsKey.Public().(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("audit heads key is not Ed25519")
	}
	return &Log{cfg: cfg, key: key, turn: make(chan struct{}, 1)}, nil
}

// PublicKey verifies the lists of heads that this log signs.
func (l *Log) PublicKey() ed25519.PublicKey { return l.key }

// change is a Record that waits: its event, and the operations that happen with it or not at all.
type change struct {
	event json.RawMessage
	at    time.Time
	index []byte
	ops   []store.Op
	size  int
	more  []*change    // further events of the same change: event, at and index alone
	joint bool         // the line of event in the index of times tells of more too
	done  chan outcome // buffered; gets exactly one
}

// entryOps is how many operations the change's events take.
func (c *change) entryOps() int {
	if c.joint {
		return entryOps + len(c.more)
	}
	return entryOps * (1 + len(c.more))
}

type outcome struct {
	revision uint64
	err      error
}

// Record commits an event together with the change that it tells of, in one transaction, and returns its revision.
// When it fails neither has happened, unless ctx ended meanwhile, which leaves both open, but never one without the
// other. Empty fields are filled in: time, uid, cluster, code. ops are at most MaxOps; a failed condition is the
// store's ConflictError. Calls that wait together share a transaction.
func (l *Log) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	return l.RecordAll(ctx, []event.Event{ev}, ops...)
}

// RecordAll is Record with several events. Events of one kind and user share a line in the index of times and take one
// operation each but the first, which takes two as all others do; with the operations they are at most MaxOps.
func (l *Log) RecordAll(ctx context.Context, evs []event.Event, ops ...store.Op) (uint64, error) {
	c, err := l.prepareAll(evs, ops)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.queue = append(l.queue, c)
	l.mu.Unlock()
	for {
		select {
		case o := <-c.done:
			return o.revision, o.err
		default:
		}
		select {
		case o := <-c.done:
			return o.revision, o.err
		case l.turn <- struct{}{}:
			l.commitQueued(context.WithoutCancel(ctx))
			<-l.turn
		case <-ctx.Done():
			l.withdraw(c)
			return 0, fmt.Errorf("record audit event: %w", context.Cause(ctx))
		}
	}
}

func (l *Log) prepareAll(evs []event.Event, ops []store.Op) (*change, error) {
	if len(evs) == 0 {
		return nil, errors.New("a change without an audit event")
	}
	c, err := l.prepare(evs[0], ops)
	if err != nil {
		return nil, err
	}
	line := lineOf(evs[0])
	c.joint = len(evs) > 1
	for _, ev := range evs[1:] {
		m, err := l.prepare(ev, nil)
		if err != nil {
			return nil, err
		}
		c.more = append(c.more, m)
		c.size += 2*len(m.event) + 1024
		c.joint = c.joint && line.join(lineOf(ev))
	}
	if c.joint {
		if c.index, err = json.Marshal(line); err != nil {
			return nil, fmt.Errorf("encode audit index: %w", err)
		}
	}
	if n := len(ops) + c.entryOps() - entryOps; n > MaxOps || c.size > maxChange {
		return nil, fmt.Errorf("change of %d operations, %d bytes: %w", n, c.size, store.ErrTooLarge)
	}
	return c, nil
}

func (l *Log) prepare(ev event.Event, ops []store.Op) (*change, error) {
	if err := ev.Complete(l.cfg.Cluster, l.cfg.Now); err != nil {
		return nil, err
	}
	b, err := ev.Marshal()
	if err != nil {
		return nil, err
	}
	c := &change{event: b, at: ev.Time, index: indexOf(ev), ops: ops, done: make(chan outcome, 1)}
	if len(ops) == 0 {
		return c, nil
	}
	if err := store.CheckOps(ops); err != nil {
		return nil, err
	}
	for _, o := range ops {
		c.size += len(o.Key) + len(o.Value)
		if strings.HasPrefix(o.Key, ownPrefix) {
			return nil, fmt.Errorf("change of %q, which is the audit log's own", o.Key)
		}
	}
	if len(ops) > MaxOps || c.size > maxChange {
		return nil, fmt.Errorf("change of %d operations, %d bytes: %w", len(ops), c.size, store.ErrTooLarge)
	}
	return c, nil
}

func (l *Log) withdraw(c *change) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, q := range l.queue {
		if q == c {
			l.queue = append(l.queue[:i:i], l.queue[i+1:]...)
			return
		}
	}
}

// commitQueued commits one transaction's worth of what waits. A change whose condition fails is taken out and told
// so; the others go on without it, so that one caller's conflict is nobody else's.
func (l *Log) commitQueued(ctx context.Context) {
	batch := l.takeBatch()
	own := l.chain(l.cfg.Writer)
	own.mu.Lock()
	defer own.mu.Unlock()
	for tries := 0; len(batch) > 0; {
		revision, err := l.commit(ctx, own, batch)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			if i := guilty(batch, conflict.Key); i >= 0 {
				batch[i].done <- outcome{err: fmt.Errorf("record audit event: %w", err)}
				batch = append(batch[:i:i], batch[i+1:]...)
				continue
			}
			if tries++; tries < 5 {
				continue // another process writes this chain: own was invalidated and is read again
			}
		}
		if err != nil {
			err = l.refusal(err)
		}
		for _, c := range batch {
			c.done <- outcome{revision: revision, err: err}
		}
		return
	}
}

// refusal says in words that what could not be recorded was not done.
func (l *Log) refusal(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return fmt.Errorf("record audit event: %w", err)
	}
	return fault.New(fault.Unavailable, "the audit log cannot be written, so nothing was changed").
		WithReason("audit_unavailable").WithFix("sallyport's log on the auth server names the cause").Wrapping(err)
}

func guilty(batch []*change, key string) int {
	for i, c := range batch {
		for _, o := range c.ops {
			if o.Key == key {
				return i
			}
		}
	}
	return -1
}

// takeBatch takes from the queue, in order, what fits one transaction. It stops at a change that touches a key which
// one before it writes, or writes one that was touched: its conditions are to be judged after that one.
func (l *Log) takeBatch() []*change {
	l.mu.Lock()
	defer l.mu.Unlock()
	ops, size, written := chainOps, 0, make(map[string]bool)
	n := 0
	for ; n < len(l.queue); n++ {
		c := l.queue[n]
		ops += c.entryOps() + len(c.ops)
		size += c.size + 2*len(c.event) + 1024
		if n > 0 && (ops > store.MaxOps || size > store.MaxTxn-8<<10 || overlaps(c.ops, written)) {
			break
		}
		for _, o := range c.ops {
			written[o.Key] = written[o.Key] || o.Writes()
		}
	}
	batch := append([]*change(nil), l.queue[:n]...)
	l.queue = append([]*change(nil), l.queue[n:]...)
	return batch
}

func overlaps(ops []store.Op, written map[string]bool) bool {
	for _, o := range ops {
		if w, touched := written[o.Key]; touched && (w || o.Writes()) {
			return true
		}
	}
	return false
}

func (l *Log) commit(ctx context.Context, own *chain, batch []*change) (uint64, error) {
	if err := own.load(ctx, l.cfg.Store); err != nil {
		return 0, err
	}
	head := own.head
	var ops []store.Op
	for _, c := range batch {
		ops = append(ops, c.ops...)
		first := uint64(0) // the entry whose line the others share
		for i, m := range append([]*change{c}, c.more...) {
			e := head.Next(m.event)
			head = e.Head()
			s := event.Stored{Entry: e, Arrival: l.cfg.Now().UTC()}
			if c.joint && i == 0 {
				first = e.Seq
			} else if c.joint {
				s.Line = first
			}
			ops = append(ops, entryWrites(s, m.at, m.index)...)
		}
	}
	return own.advance(ctx, l.cfg.Store, head, ops)
}
