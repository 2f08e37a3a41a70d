// Package spool keeps an agent's audit events on its disk until auth has them.
//
// Entries lie as JSON lines in files named after their first number. The last entry always stays on disk, because the
// next one is chained to it. What auth has acknowledged is not recorded: after a restart it is sent again, and auth
// passes over it.
package spool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
)

const (
	defaultSpool   = 64 << 20
	defaultSegment = 4 << 20
	maxGroup       = 50 * time.Millisecond
)

// Config is what a Spool is opened with; Dir, Writer, Cluster and Now are needed.
type Config struct {
	Dir     string // DATA_DIR/audit; made 0700 where missing, the files in it are 0600
	Writer  string // this agent's host UUID
	Cluster string
	Now     func() time.Time
	Max     int64         // bytes of entries that wait for auth; 0: 64 MiB
	Segment int64         // bytes of one file; 0: 4 MiB
	Group   time.Duration // the longest that an appended entry waits for its fsync; 0, or more than 50 ms: 50 ms
}

// Spool is one agent's chain on disk. Its methods may be called by many goroutines at once.
type Spool struct {
	cfg    Config
	unlock func()

	queue   chan *pending
	dirty   chan struct{} // rung, at most once ahead, when something was appended
	closing chan struct{} // closed by Close
	stopped chan struct{} // closed when nothing more is written
	once    sync.Once
	running sync.WaitGroup

	mu sync.Mutex // guards all below
	disk
	news chan struct{} // closed, and made anew, when an entry is durable
}

// disk is what is in the files.
type disk struct {
	files   []*segment // ascending, the last one is written to
	head    event.Head // of the last entry
	durable uint64     // number of the last entry that is surely on the disk: auth gets no later one
	acked   uint64
	waits   int64  // bytes of the entries behind acked
	broken  error  // set once a write could not be undone, or a sync failed; nothing more is taken
	line    []byte // room for a line
}

type pending struct {
	event []byte
	done  chan error // buffered; gets exactly one
}

// Open opens or begins a spool. A last line that a crash tore is cut off; it was never acknowledged to anybody.
// Any other damage is a fault: events are missing, and that is not passed over.
func Open(cfg Config) (*Spool, error) {
	if cfg.Dir == "" || cfg.Cluster == "" || cfg.Now == nil {
		return nil, errors.New("audit spool with an incomplete configuration")
	}
	if err := event.ValidWriter(cfg.Writer); err != nil {
		return nil, err
	}
	if cfg.Max <= 0 {
		cfg.Max = defaultSpool
	}
	if cfg.Segment <= 0 {
		cfg.Segment = defaultSegment
	}
	if cfg.Group <= 0 || cfg.Group > maxGroup {
		cfg.Group = maxGroup
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make audit spool: %w", err)
	}
	unlock, err := lock(filepath.Join(cfg.Dir, "lock"))
	if err != nil {
		return nil, err
	}
	s := &Spool{cfg: cfg, unlock: unlock, queue: make(chan *pending, 1024), dirty: make(chan struct{}, 1), closing: make(chan struct{}), stopped: make(chan struct{}),
		disk: disk{head: event.Head{Writer: cfg.Writer}}, news: make(chan struct{})}
	if err := s.recover(); err != nil {
		s.closeFiles()
		unlock()
		return nil, err
	}
	s.durable = s.head.Seq
	s.running.Go(s.commitLoop)
	s.running.Go(s.syncLoop)
	return s, nil
}

// Write makes an event durable before it returns; those that wait together share one fsync. Empty fields are filled
// in: time, uid, cluster, code. An error means that what the event tells of must not happen. When ctx ends first the
// event may still be written.
func (s *Spool) Write(ctx context.Context, ev event.Event) error {
	b, err := s.encode(&ev)
	if err != nil {
		return err
	}
	p := &pending{event: b, done: make(chan error, 1)}
	select {
	case <-s.closing:
		return errClosed()
	default:
	}
	select {
	case s.queue <- p:
	case <-ctx.Done():
		return fmt.Errorf("write audit event: %w", context.Cause(ctx))
	case <-s.closing:
		return errClosed()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("write audit event: %w", context.Cause(ctx))
	case <-s.stopped:
		select { // it may have been written just before
		case err := <-p.done:
			return err
		default:
			return errClosed()
		}
	}
}

// Append is Write for statements and requests, of which there are many: when it returns, the entry is chained and in
// the file, so that the end of this process loses nothing, and the disk has it within 50 ms, in one fsync with those
// that came meanwhile. Auth gets it after that. Once an fsync has failed nothing more is taken.
func (s *Spool) Append(_ context.Context, ev event.Event) error {
	buf, _ := encoded.Get().(*[]byte)
	defer encoded.Put(buf)
	if err := ev.Complete(s.cfg.Cluster, s.cfg.Now); err != nil {
		return err
	}
	b, err := ev.Append(*buf)
	if err != nil {
		return err
	}
	*buf = b
	s.mu.Lock()
	err = s.appendOneLocked(b)
	s.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case s.dirty <- struct{}{}:
	default:
	}
	return nil
}

// encoded are buffers for appended events.
var encoded = sync.Pool{New: func() any { b := make([]byte, 0, 1<<10); return &b }}

func (s *Spool) encode(ev *event.Event) ([]byte, error) {
	if err := ev.Complete(s.cfg.Cluster, s.cfg.Now); err != nil {
		return nil, err
	}
	return ev.Marshal()
}

func errClosed() error {
	return fault.New(fault.Unavailable, "this agent is stopping").WithReason("audit_spool_closed")
}

// commitLoop writes what waits. Nothing waits for the disk twice: what arrives during an fsync goes into the next.
func (s *Spool) commitLoop() {
	defer close(s.stopped)
	for {
		var batch []*pending
		select {
		case <-s.closing:
			return
		case p := <-s.queue:
			batch = s.gather(p)
		}
		errs := s.commit(batch)
		for i, p := range batch {
			p.done <- errs[i]
		}
	}
}

// gather takes what is queued.
func (s *Spool) gather(first *pending) []*pending {
	batch := []*pending{first}
	for len(batch) < cap(s.queue) {
		select {
		case p := <-s.queue:
			batch = append(batch, p)
		default:
			return batch
		}
	}
	return batch
}

// syncLoop brings to the disk what was appended.
func (s *Spool) syncLoop() {
	for {
		select {
		case <-s.closing:
			_ = s.sync() // what fails here is read again, and found torn or whole, by who opens the spool next
			return
		case <-s.dirty:
		}
		wait := time.NewTimer(s.cfg.Group)
		select {
		case <-wait.C:
		case <-s.closing:
		}
		wait.Stop()
		_ = s.sync() // broken then, which every later call is told
	}
}

// Pending returns up to max entries that auth has not acknowledged, oldest first, at most about 1 MiB of them.
func (s *Spool) Pending(max int) ([]event.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var entries []event.Entry
	for seq, size := s.acked+1, 0; seq <= s.durable && len(entries) < max && size < 1<<20; {
		f := s.fileOfLocked(seq)
		if f == nil {
			seq++
			continue // sent before an earlier run ended; auth has it
		}
		last := min(f.last(), s.durable, seq+uint64(max-len(entries))-1)
		for last > seq && size+int(f.end(last)-f.start(seq)) > 1<<20 {
			last = seq + (last-seq)/2
		}
		lines, err := f.lines(seq, last)
		if err != nil {
			return nil, err
		}
		size += len(lines)
		for at := f.start(seq); seq <= last; seq++ {
			e, err := event.ReadEntry(lines[f.start(seq)-at : f.end(seq)-at-1])
			if err != nil {
				return nil, damaged(f.name, err)
			}
			entries = append(entries, e)
		}
	}
	return entries, nil
}

// Ack says that auth has every entry up to seq; their files are removed.
func (s *Spool) Ack(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if seq > s.durable {
		return fault.New(fault.Conflict, "auth has %d audit entries of this agent, which wrote %d", seq, s.durable).
			WithReason("audit_spool_lost").WithFix("join this agent again with a new token and an empty data directory")
	}
	for ; s.acked < seq; s.acked++ {
		if f := s.fileOfLocked(s.acked + 1); f != nil {
			s.waits -= f.size(s.acked + 1)
		}
	}
	for len(s.files) > 1 && s.files[0].last() <= s.acked && len(s.files[len(s.files)-1].ends) > 0 {
		f := s.files[0]
		s.files = s.files[1:]
		if err := errors.Join(f.file.Close(), os.Remove(f.name)); err != nil {
			return fmt.Errorf("remove audit spool file: %w", err)
		}
	}
	return nil
}

// Status is the number of the last durable entry, of the last acknowledged one, and the bytes that wait.
func (s *Spool) Status() (head, acked uint64, waiting int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable, s.acked, s.waits
}

// Run sends what is pending, in order, 256 entries at a time; send returns the number that auth has acknowledged,
// also beside an error, after which Run waits, from 100 ms doubling to 15 s. It ends with ctx, with the spool, or with a
// fault that no repetition mends: a damaged file, or an auth server that has more entries than were written here.
func (s *Spool) Run(ctx context.Context, send func(context.Context, []event.Entry) (acked uint64, err error)) error {
	const first, longest = 100 * time.Millisecond, 15 * time.Second
	for backoff := first; ; {
		s.mu.Lock()
		news, idle := s.news, s.acked >= s.durable
		s.mu.Unlock()
		var retry <-chan time.Time
		if !idle {
			entries, err := s.Pending(256)
			if err != nil {
				return err
			}
			acked, failed := send(ctx, entries)
			moved, err := s.advance(acked)
			if err != nil {
				return err
			}
			if moved && failed == nil {
				backoff = first
				continue
			}
			news, retry = nil, time.After(backoff)
			backoff = min(2*backoff, longest)
		}
		select {
		case <-news:
		case <-retry:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.closing:
			return errClosed()
		}
	}
}

func (s *Spool) advance(acked uint64) (moved bool, err error) {
	_, before, _ := s.Status()
	return acked > before, s.Ack(acked)
}

// Close waits for what is being written and closes the files. What waits for auth stays on disk.
func (s *Spool) Close() error {
	s.once.Do(func() {
		close(s.closing)
		s.running.Wait()
		s.mu.Lock()
		s.closeFiles()
		s.broken = errClosed()
		s.mu.Unlock()
		s.unlock()
	})
	return nil
}
