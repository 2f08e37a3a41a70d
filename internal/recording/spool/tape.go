package spool

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/recording"
)

const (
	flushAfter = 500 * time.Millisecond // how long what was shown waits to be written
	maxQueued  = 16                     // full chunks that may wait
	behind     = 2                      // from how many on they are not compressed, so as to catch up
)

// Tape takes what one session shows. Its methods return at once, and may be called by many goroutines.
type Tape struct {
	spool  *Spool
	start  recording.Start
	began  time.Time
	broken func(error) // called once, when something will be missing from the recording
	file   *os.File
	sealer *recording.Sealer
	wake   chan struct{} // rung, at most once ahead
	gone   chan struct{} // closed once auth has all of it

	mu    sync.Mutex
	queue queue // guarded by mu
	fate        // guarded by mu
}

// fate is what becomes of a tape.
type fate struct {
	missed error          // something is missing, as broken was told
	failed error          // nothing more is kept
	over   *recording.End // set by End
}

// queue is what waits to be written.
type queue struct {
	full   [][]byte // frames of a chunk each
	last   []byte   // the frames behind them
	timer  *time.Timer
	passed [recording.Ended]int64 // bytes by stream, kept or not
	lost   [recording.Ended]int64 // of them, those that are not kept and of which the recording does not say so yet
}

// Begin begins a recording: that its file is there and can be written is known when Begin returns. broken, which may be nil, is
// told once when something will be missing.
func (s *Spool) Begin(start recording.Start, to *recording.Recipient, broken func(error)) (*Tape, error) {
	if err := start.Check(); err != nil {
		return nil, err
	}
	if !s.room() {
		return nil, s.full(nil)
	}
	first, err := recording.JSONFrame(recording.Began, 0, start)
	if err != nil {
		return nil, err
	}
	t := &Tape{spool: s, start: start, began: time.Now(), broken: broken, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	var raw []byte
	envelope, err := s.envelopes.of(to)
	if err != nil {
		return nil, err
	}
	if t.sealer, raw, err = recording.NewSealer(nil, envelope, start.Name); err != nil {
		return nil, err
	}
	if raw, err = t.sealer.Chunk(raw, recording.AppendFrame(nil, first), false, true); err != nil {
		return nil, err
	}
	if t.file, err = os.OpenFile(s.file(start.Name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return nil, s.unwritable(err)
	}
	if _, err := t.file.Write(raw); err != nil {
		return nil, s.unwritable(errors.Join(err, t.file.Close(), os.Remove(t.file.Name())))
	}
	s.mu.Lock()
	s.waiting[start.Name] = &waiting{name: start.Name, gone: t.gone}
	s.mu.Unlock()
	s.grew(start.Name, len(raw), false)
	s.tapes.Go(t.run)
	return t, nil
}

// envelopes is the one that is in use: for recordings that begin within a minute.
type envelopes struct {
	mu   sync.Mutex
	to   *recording.Recipient // guarded by mu
	made time.Time            // guarded by mu
	now  *recording.Envelope  // guarded by mu
}

const envelopeLife = time.Minute

func (e *envelopes) of(to *recording.Recipient) (*recording.Envelope, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.to == to && time.Since(e.made) < envelopeLife {
		return e.now, nil
	}
	now, err := recording.NewEnvelope(to)
	if err == nil {
		e.to, e.made, e.now = to, time.Now(), now
	}
	return now, err
}

func (s *Spool) unwritable(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return s.full(err)
	}
	return fault.New(fault.Unavailable, "the recordings of this agent cannot be written").WithReason("recording_failed").
		WithFix("see to the disk that holds %s", s.cfg.Dir).Wrapping(err)
}

// Shown takes bytes of a stream; p may be used again afterwards. Its error is that something is missing, of these or of others
// before, or that the recording is over: what must be recorded goes no further then.
func (t *Tape) Shown(stream recording.Kind, p []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		return errOver
	}
	if !stream.Stream() || len(p) == 0 {
		return t.missed
	}
	q := &t.queue
	before := q.passed[stream]
	q.passed[stream] += int64(len(p))
	if t.start.CopyOnly {
		return t.missed
	}
	if most := t.start.StreamMax; most > 0 && before+int64(len(p)) > most {
		keep := max(0, most-before)
		q.lost[stream] += int64(len(p)) - keep
		p = p[:keep]
	}
	at := time.Since(t.began)
	for len(p) > 0 {
		if t.failed != nil || len(q.full) >= maxQueued {
			q.lost[stream] += int64(len(p))
			t.tellLocked(fault.New(fault.Unavailable, "the recording of this session cannot be written as fast as it goes").WithReason("recording_slow").
				WithFix("see to the disk that holds %s", t.spool.cfg.Dir))
			return t.missed
		}
		n := min(len(p), recording.MaxData)
		t.addLocked(recording.Frame{Kind: stream, At: at, Data: p[:n]})
		p = p[n:]
	}
	return t.missed
}

// errOver is that nothing more comes into a recording.
var errOver = errors.New("the recording is over")

// Resized says the terminal's new size.
func (t *Tape) Resized(columns, rows uint32) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil && t.over == nil && len(t.queue.full) < maxQueued {
		t.addLocked(recording.ResizeFrame(time.Since(t.began), columns, rows))
	}
}

// chunks are buffers for whole chunks; what is small has one of its own size.
var chunks = sync.Pool{New: func() any { b := make([]byte, 0, recording.MaxChunk); return &b }}

// sealed are buffers for chunks on their way to the disk: a session that shows nothing holds none.
var sealed = sync.Pool{New: func() any { return new([]byte) }}

const small = 64 << 10

// frameRoom is what a frame takes beside its data, at most.
const frameRoom = 32

func (t *Tape) addLocked(f recording.Frame) {
	q := &t.queue
	need := len(q.last) + len(f.Data) + frameRoom
	if need > recording.MaxChunk {
		q.full, q.last = append(q.full, q.last), nil
		t.ring()
	} else if need > small && cap(q.last) < recording.MaxChunk {
		b, _ := chunks.Get().(*[]byte)
		q.last = append((*b)[:0], q.last...)
	}
	if len(q.last) == 0 {
		if q.timer == nil {
			q.timer = time.AfterFunc(flushAfter, t.ring)
		} else {
			q.timer.Reset(flushAfter)
		}
	}
	q.last = recording.AppendFrame(q.last, f)
}

func (t *Tape) ring() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// End ends the recording; the first call counts. What the session showed is then written and sent without it.
func (t *Tape) End(e recording.End) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over != nil {
		return
	}
	t.over = &e
	if t.queue.timer != nil {
		t.queue.timer.Stop()
	}
	t.ring()
}

// tellLocked says, once, that something will be missing.
func (t *Tape) tellLocked(err error) {
	if t.missed != nil {
		return
	}
	t.missed = err
	if t.broken != nil {
		go t.broken(err) // which may call back
	}
}

// fail ends what is kept.
func (t *Tape) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.failed = err
	t.tellLocked(err)
}

// run writes until the recording is over.
func (t *Tape) run() {
	defer t.file.Close()
	for {
		<-t.wake
		t.mu.Lock()
		list, last, over := t.queue.full, t.queue.last, t.over
		t.queue.full, t.queue.last = nil, nil
		t.mu.Unlock()
		for i, frames := range append(list, last) {
			if len(frames) > 0 {
				t.write(frames, false, len(list)-i <= behind)
			}
			if cap(frames) == recording.MaxChunk {
				chunks.Put(&frames)
			}
		}
		if over != nil {
			t.finish(*over)
			return
		}
	}
}

// write writes a chunk. One that could not be written whole is taken off again, as far as the disk still obeys.
func (t *Tape) write(frames []byte, final, compress bool) {
	t.mu.Lock()
	failed := t.failed
	t.mu.Unlock()
	if failed != nil && !final {
		return
	}
	at, err := t.file.Seek(0, 1)
	held, _ := sealed.Get().(*[]byte)
	defer sealed.Put(held)
	if err == nil {
		*held, err = t.sealer.Chunk((*held)[:0], frames, final, compress)
	}
	if err == nil && !t.spool.roomFor(t.start.Name) && !final {
		err = t.spool.full(nil)
	}
	if err == nil {
		if _, err = t.file.Write(*held); err != nil {
			err = errors.Join(t.spool.unwritable(err), t.file.Truncate(at))
		}
	}
	if err != nil {
		t.fail(err)
		t.spool.grew(t.start.Name, 0, final)
		return
	}
	t.spool.grew(t.start.Name, len(*held), final)
}

// finish writes what is missing and the end; where the recording failed before, it stays without one: it is cut short.
func (t *Tape) finish(e recording.End) {
	t.mu.Lock()
	failed, q := t.failed, t.queue
	t.mu.Unlock()
	at := time.Since(t.began)
	e.Bytes = map[recording.Kind]int64{}
	var frames []byte
	for k := range recording.Ended {
		if q.passed[k] > 0 {
			e.Bytes[k] = q.passed[k]
		}
		if q.lost[k] > 0 {
			frames = recording.AppendFrame(frames, recording.LostFrame(at, k, q.lost[k]))
		}
	}
	last, err := recording.JSONFrame(recording.Ended, at, e)
	if err != nil || failed != nil {
		t.spool.grew(t.start.Name, 0, true)
		return
	}
	t.write(recording.AppendFrame(frames, last), true, true)
	t.sync()
}

// sync brings an ended recording to the disk, unless auth has it in a moment.
func (t *Tape) sync() {
	late := time.NewTimer(syncAfter)
	defer late.Stop()
	select {
	case <-t.gone:
		return
	case <-late.C:
	case <-t.spool.closing.Done():
	}
	t.spool.syncs <- struct{}{}
	defer func() { <-t.spool.syncs }()
	if err := t.spool.sync(t.file); err != nil {
		t.spool.cfg.Log.Warn("a recording may not be on the disk", "name", t.start.Name, "err", fmt.Sprint(err))
	}
}
