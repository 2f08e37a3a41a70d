// Package spool keeps an agent's recordings on its disk, sealed, while they are made and until auth has them.
//
// A session is never held up: what it shows is copied into memory, at most 8 MiB of it, and written within half a second.
// What a process that was killed left behind is whole up to its last write, and is sent as it is.
package spool

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/recording"
)

const (
	suffix       = ".rec"
	defaultMax   = 4 << 30
	sendAt       = 1 << 20 // bytes that are sent at once where so many wait
	maxPiece     = 2 << 20
	sendAfter    = 10 * time.Second // how long less waits
	closeTime    = 5 * time.Second
	maxSyncs     = 32
	syncAfter    = 250 * time.Millisecond // what auth has by then need not be synced here
	firstRetry   = time.Second
	longestRetry = time.Minute
	refusedRetry = time.Hour // what auth refuses stays here, for a person to look at, and is tried again
)

// Config is what a Spool is opened with; Dir and Log are needed.
type Config struct {
	Dir string // made 0700 where missing, the files in it are 0600
	Max int64  // bytes of recordings that wait for auth, a quarter of them of one recording at most; 0: 4 GiB
	Log *slog.Logger
}

// Spool is one agent's. Its methods may be called by many goroutines at once.
type Spool struct {
	cfg  Config
	news chan struct{} // rung, at most once ahead, when something may have become due
	// Each fsync holds a thread of the system; a disk that hangs must not hold thousands.
	syncs     chan struct{}
	sync      func(*os.File) error
	closing   context.Context
	close     context.CancelFunc
	envelopes envelopes

	mu      sync.Mutex
	waiting map[string]*waiting // guarded by mu: by name
	bytes   int64               // guarded by mu: on the disk
	unsent  int64               // guarded by mu: of them, those that auth does not have
	tapes   sync.WaitGroup
}

// waiting is a recording that auth does not have whole.
type waiting struct {
	name       string
	size, sent int64
	oldest     time.Time // when the first byte behind sent was written
	ended      bool
	gone       chan struct{} // closed once auth has it; nil for what an earlier process left
	later      time.Time     // not to be tried before
	put        time.Duration // for how long it was put off last
}

func (w *waiting) due(now time.Time) bool {
	unsent := w.size - w.sent
	return !now.Before(w.later) && (w.ended || unsent >= sendAt || unsent > 0 && now.Sub(w.oldest) >= sendAfter)
}

// Open opens a spool. What it finds there is over, whatever its end.
func Open(cfg Config) (*Spool, error) {
	if cfg.Dir == "" || cfg.Log == nil {
		return nil, errors.New("recording spool with an incomplete configuration")
	}
	cfg.Max = cmp.Or(cfg.Max, defaultMax)
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make recording spool: %w", err)
	}
	s := &Spool{cfg: cfg, news: make(chan struct{}, 1), syncs: make(chan struct{}, maxSyncs), waiting: map[string]*waiting{}, sync: (*os.File).Sync}
	s.closing, s.close = context.WithCancel(context.Background())
	entries, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("read recording spool: %w", err)
	}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), suffix)
		if !ok || !recording.ValidName(name) {
			continue
		}
		size, err := s.recover(name)
		if err != nil {
			return nil, err
		}
		if size > 0 {
			s.waiting[name] = &waiting{name: name, size: size, ended: true}
			s.bytes, s.unsent = s.bytes+size, s.unsent+size
		}
	}
	return s, nil
}

func (s *Spool) file(name string) string { return filepath.Join(s.cfg.Dir, name+suffix) }

// recover says how long a recording is without what was written in part. One without its header and first
// chunk never began.
func (s *Spool) recover(name string) (int64, error) {
	f, err := os.Open(s.file(name))
	if err != nil {
		return 0, fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	h, head, err := recording.ReadHeader(f)
	var p recording.Progress
	if err == nil && h.Name == name {
		p, err = p.Advance(f)
	}
	if p.Chunks == 0 {
		s.cfg.Log.Warn("a recording that never began is removed", "name", name)
		return 0, os.Remove(s.file(name))
	}
	if err != nil {
		s.cfg.Log.Info("a recording's torn end is left out", "name", name, "chunks", p.Chunks)
	}
	return head + p.Length, nil
}

// Close waits a while for the tapes that were ended; what is not written by then is lost with this process.
func (s *Spool) Close() {
	s.close()
	over := make(chan struct{})
	go func() { s.tapes.Wait(); close(over) }()
	select {
	case <-over:
	case <-time.After(closeTime):
	}
}

func (s *Spool) ring() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// full is that there is no room for more.
func (s *Spool) full(err error) error {
	return fault.New(fault.Exhausted, "there is no room for the recordings of this agent").WithReason("recording_full").
		WithFix("see why this agent does not reach the auth server, and whether %s has space", s.cfg.Dir).Wrapping(err)
}

// grew accounts for bytes that a tape wrote.
func (s *Spool) grew(name string, n int, ended bool) {
	s.mu.Lock()
	w := s.waiting[name]
	if w.size <= w.sent {
		w.oldest = time.Now()
	}
	w.size, s.bytes, s.unsent, w.ended = w.size+int64(n), s.bytes+int64(n), s.unsent+int64(n), w.ended || ended
	ring := w.ended || w.size-w.sent >= sendAt
	s.mu.Unlock()
	if ring {
		s.ring()
	}
}

// room reports whether a recording may begin.
func (s *Spool) room() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unsent < s.cfg.Max
}

// share is how much of the room one recording may take, so that what floods ends itself and nobody else.
const share = 4

// roomFor reports whether a recording may go on. What auth has counts only where many have left very much of it here.
func (s *Spool) roomFor(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	w, own := s.waiting[name], s.cfg.Max/share
	return s.unsent < s.cfg.Max && w.size-w.sent < own && (w.size < own || s.bytes < share*s.cfg.Max)
}

// Run sends what is due until ctx ends. send returns how much of the recording auth then has; a Denied, Invalid or Conflict
// fault of it says that auth does not take the recording, an Internal one that it cannot.
func (s *Spool) Run(ctx context.Context, send func(context.Context, recording.Piece) (int64, error)) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	retry := firstRetry
	for {
		if err := s.sendDue(ctx, send); err != nil && ctx.Err() == nil {
			s.cfg.Log.Warn("recordings wait for auth", "err", err)
			select {
			case <-time.After(retry):
			case <-ctx.Done():
			}
			retry = min(2*retry, longestRetry)
			continue
		}
		retry = firstRetry
		select {
		case <-s.news:
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// sendDue sends a piece of each recording that is due, and so on until none is.
func (s *Spool) sendDue(ctx context.Context, send func(context.Context, recording.Piece) (int64, error)) error {
	for {
		list := s.due()
		if len(list) == 0 {
			return nil
		}
		for _, w := range list {
			if err := s.sendOne(ctx, w, send); err != nil {
				return err
			}
		}
	}
}

// due are copies of what is due, the oldest first.
func (s *Spool) due() []waiting {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []waiting
	now := time.Now()
	for _, w := range s.waiting {
		if w.due(now) {
			out = append(out, *w)
		}
	}
	slices.SortFunc(out, func(a, b waiting) int { return a.oldest.Compare(b.oldest) })
	return out
}

// sendOne sends a piece. Its error is that auth is not there; what is wrong with the one recording puts off that one, so that
// it holds up no other.
func (s *Spool) sendOne(ctx context.Context, w waiting, send func(context.Context, recording.Piece) (int64, error)) error {
	p, err := s.piece(w)
	if w.ended && errors.Is(err, os.ErrNotExist) {
		s.cfg.Log.Error("a recording is gone that auth did not have yet", "file", s.file(w.name))
		s.forget(w.name)
		return nil
	}
	if err != nil {
		s.putOff(w.name, firstRetry, err)
		return nil
	}
	have, err := send(ctx, p)
	switch over := p.Last && have >= w.size; {
	case fault.Is(err, fault.Denied) || fault.Is(err, fault.Invalid) || fault.Is(err, fault.Conflict):
		s.putOff(w.name, refusedRetry, fmt.Errorf("auth refuses it: %w", err))
		return nil
	case fault.Is(err, fault.Internal):
		s.putOff(w.name, firstRetry, err)
		return nil
	case err != nil:
		return err
	case have > w.size && !w.ended:
		s.putOff(w.name, refusedRetry, errors.New("auth has more of it than there is"))
		return nil
	case over:
		s.forget(w.name)
		if err := os.Remove(s.file(w.name)); !errors.Is(err, os.ErrNotExist) {
			return err
		}
		return nil
	case have == p.Offset:
		s.putOff(w.name, firstRetry, errors.New("auth takes nothing of it"))
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.waiting[w.name]
	s.unsent -= have - now.sent
	now.sent, now.put = have, 0
	return nil
}

// forget takes a recording off the list that no tape writes to any more.
func (s *Spool) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.waiting[name]
	s.bytes, s.unsent = s.bytes-w.size, s.unsent-(w.size-w.sent)
	delete(s.waiting, name)
	if w.gone != nil {
		close(w.gone)
	}
}

// putOff leaves a recording for a while, each time twice as long.
func (s *Spool) putOff(name string, least time.Duration, why error) {
	s.mu.Lock()
	w := s.waiting[name]
	w.put = min(max(least, 2*w.put), refusedRetry)
	w.later = time.Now().Add(w.put)
	s.mu.Unlock()
	s.cfg.Log.Error("a recording stays here", "file", s.file(name), "err", why, "again_in", w.put.String())
}

// piece reads what is to be sent next: whole chunks, and where the header is its beginning.
//
// Where auth has more than is here, which a power failure took from this disk, nothing but the end is to be said.
func (s *Spool) piece(w waiting) (recording.Piece, error) {
	p := recording.Piece{Name: w.name, Offset: w.sent}
	if w.sent > w.size {
		p.Last = true
		return p, nil
	}
	f, err := os.Open(s.file(w.name))
	if err != nil {
		return p, fmt.Errorf("open recording: %w", err)
	}
	defer f.Close()
	p.Data = make([]byte, min(w.size-w.sent, maxPiece))
	if _, err := f.ReadAt(p.Data, w.sent); err != nil && !errors.Is(err, io.EOF) {
		return p, fmt.Errorf("read recording: %w", err)
	}
	if int64(len(p.Data)) == w.size-w.sent {
		p.Last = w.ended
		return p, nil
	}
	whole := 0
	if w.sent == 0 {
		_, head, err := recording.ReadHeader(f)
		if err != nil {
			return p, fmt.Errorf("read recording %s: %w", w.name, err)
		}
		whole = int(head)
	}
	for n := -1; n != 0; whole += n {
		n = recording.NextChunk(p.Data[whole:])
	}
	p.Data = p.Data[:whole]
	if whole == 0 {
		return p, fmt.Errorf("read recording %s at %d: %w", w.name, w.sent, recording.ErrDamaged)
	}
	return p, nil
}
