package spool

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/recording"
)

const session = "5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01"

type place struct {
	*Spool
	t   *testing.T
	id  *recording.Identity
	to  *recording.Recipient
	got map[string][]byte // what auth has
	end map[string]bool
	mu  sync.Mutex
	err error // guarded by mu: what auth answers
	n   int
}

func newPlace(t *testing.T, dir string, most int64) *place {
	t.Helper()
	id, err := recording.NewIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	to, err := recording.NewRecipient(id.Public())
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Dir: dir, Max: most, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return &place{Spool: s, t: t, id: id, to: to, got: map[string][]byte{}, end: map[string]bool{}}
}

func start(name string) recording.Start {
	return recording.Start{Name: name, Time: time.Now(), Place: recording.Place{Host: session, Protocol: "ssh"}, User: "alice"}
}

func (p *place) begin(s recording.Start, broken func(error)) *Tape {
	p.t.Helper()
	t, err := p.Begin(s, p.to, broken)
	if err != nil {
		p.t.Fatal(err)
	}
	return t
}

func (p *place) answers(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

// has is what auth has of a recording, and whether that is all there will be.
func (p *place) has(name string) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got[name], p.end[name]
}

func (p *place) tries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.n
}

// send is auth.
func (p *place) send(_ context.Context, m recording.Piece) (int64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.n++
	if p.err != nil {
		return 0, p.err
	}
	have := int64(len(p.got[m.Name]))
	if m.Offset != have {
		return have, nil
	}
	r := bytes.NewReader(m.Data)
	if m.Offset == 0 {
		if _, _, err := recording.ReadHeader(r); err != nil {
			p.t.Errorf("the first piece: %v", err)
		}
	}
	for rest := m.Data[len(m.Data)-r.Len():]; len(rest) > 0; {
		n := recording.NextChunk(rest)
		if n == 0 {
			p.t.Fatal("a piece with a part of a chunk")
		}
		rest = rest[n:]
	}
	p.got[m.Name] = append(p.got[m.Name], m.Data...)
	p.end[m.Name] = m.Last
	return int64(len(p.got[m.Name])), nil
}

// streams reads a recording: what of each stream is there and is missing, and how it ends.
func (p *place) streams(raw []byte) (kept map[recording.Kind]string, lost map[recording.Kind]int64, end *recording.End, err error) {
	p.t.Helper()
	o, err := recording.NewOpener(bytes.NewReader(raw), p.id)
	if err != nil {
		p.t.Fatal(err)
	}
	all, lost := map[recording.Kind]*strings.Builder{}, map[recording.Kind]int64{}
	for {
		f, err := o.Next()
		if err != nil {
			kept = map[recording.Kind]string{}
			for k, b := range all {
				kept[k] = b.String()
			}
			return kept, lost, end, err
		}
		switch {
		case f.Kind.Stream():
			if all[f.Kind] == nil {
				all[f.Kind] = &strings.Builder{}
			}
			all[f.Kind].Write(f.Data)
		case f.Kind == recording.Lost:
			k, n := f.Missing()
			lost[k] += n
		case f.Kind == recording.Ended:
			e, err := f.End()
			if err != nil {
				p.t.Fatal(err)
			}
			end = &e
		}
	}
}

func (p *place) onDisk(name string) []byte {
	p.t.Helper()
	raw, err := os.ReadFile(p.file(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return raw
}

// TestSpool: what is shown is on the disk within a second, with auth some seconds later, and gone from here once auth has all of it.
func TestSpool(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, t.TempDir(), 0)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = p.Run(ctx, p.send) }()
		tape := p.begin(start(session), nil)
		line := []byte("hello\r\n")
		tape.Shown(recording.Output, line)
		copy(line, "XXXXX") // the caller's buffer is its own again
		tape.Resized(100, 30)
		time.Sleep(time.Second)
		synctest.Wait()
		if kept, _, end, err := p.streams(p.onDisk(session)); kept[recording.Output] != "hello\r\n" || end != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after a second: %v %v %v", kept, end, err)
		}
		if raw, _ := p.has(session); raw != nil {
			t.Error("a few bytes were sent at once")
		}
		time.Sleep(sendAfter)
		synctest.Wait()
		raw, over := p.has(session)
		if kept, _, _, _ := p.streams(raw); kept[recording.Output] != "hello\r\n" || over {
			t.Errorf("after %s: %v", sendAfter, kept)
		}
		tape.Shown(recording.Errors, []byte("bye"))
		code := 3
		tape.End(recording.End{ExitCode: &code})
		tape.End(recording.End{})
		if err := tape.Shown(recording.Output, []byte("late")); err == nil {
			t.Error("what comes behind the end is to go on")
		}
		synctest.Wait()
		raw, over = p.has(session)
		kept, lost, end, err := p.streams(raw)
		if !errors.Is(err, io.EOF) || kept[recording.Errors] != "bye" || len(lost) != 0 || *end.ExitCode != 3 || end.Bytes[recording.Output] != 7 || !over {
			t.Errorf("%v %v %+v %v", kept, lost, end, err)
		}
		if list, _ := filepath.Glob(p.cfg.Dir + "/*"); len(list) != 0 || p.bytes != 0 || len(p.waiting) != 0 {
			t.Errorf("%v stays behind, %d bytes", list, p.bytes)
		}
	})
}

// TestSpoolKilled: what a killed process left is whole to its last write, wherever that was torn, and is sent.
func TestSpoolKilled(t *testing.T) {
	dir := t.TempDir()
	p := newPlace(t, dir, 0)
	tape := p.begin(start(session), nil)
	empty := len(p.onDisk(session))
	tape.Shown(recording.Output, []byte("one"))
	tape.ring()
	for len(p.onDisk(session)) == empty {
		time.Sleep(time.Millisecond)
	}
	one := p.onDisk(session)
	tape.Shown(recording.Output, []byte("two"))
	tape.End(recording.End{})
	p.Close()
	whole := p.onDisk(session)
	for n := range whole {
		if err := os.WriteFile(p.file(session), whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Open(p.cfg)
		if err != nil {
			t.Fatal(err)
		}
		p.Spool = again
		p.got, p.end = map[string][]byte{}, map[string]bool{}
		if err := p.sendDue(t.Context(), p.send); err != nil {
			t.Fatal(err)
		}
		raw := p.got[session]
		if n < empty {
			if raw != nil {
				t.Fatalf("torn at %d: sent without a beginning", n)
			}
			continue
		}
		kept, _, _, err := p.streams(raw)
		want := map[bool]string{true: "one"}[n >= len(one)]
		if !strings.HasPrefix(kept[recording.Output], want) || !errors.Is(err, io.ErrUnexpectedEOF) || !p.end[session] {
			t.Fatalf("torn at %d: %v %v", n, kept, err)
		}
	}
}

// TestSpoolBulk: what goes fast is kept whole, and sent in pieces.
func TestSpoolBulk(t *testing.T) {
	p := newPlace(t, t.TempDir(), 0)
	tape := p.begin(start(session), func(err error) { t.Error(err) })
	want := sha256.New()
	block := make([]byte, 200_000)
	for i := range 100 {
		for j := range block {
			block[j] = byte(i*j + j>>8)
		}
		tape.Shown(recording.Output, block)
		want.Write(block)
		for waiting := true; waiting; { // no faster than the disk
			tape.mu.Lock()
			waiting = len(tape.queue.full) > 2
			tape.mu.Unlock()
		}
	}
	tape.End(recording.End{})
	p.tapes.Wait()
	if err := p.sendDue(t.Context(), p.send); err != nil {
		t.Fatal(err)
	}
	kept, _, end, err := p.streams(p.got[session])
	if got := sha256.Sum256([]byte(kept[recording.Output])); !errors.Is(err, io.EOF) || !bytes.Equal(got[:], want.Sum(nil)) || end.Bytes[recording.Output] != 20_000_000 || p.n < 2 {
		t.Errorf("%d of 20000000 bytes in %d pieces: %v", len(kept[recording.Output]), p.n, err)
	}
}

// TestSpoolLimits: of streams that are cut at a length, and of copies, the recording says how much there was.
func TestSpoolLimits(t *testing.T) {
	p := newPlace(t, t.TempDir(), 0)
	s := start(session)
	s.StreamMax = 10
	capped := p.begin(s, func(err error) { t.Error(err) })
	for range 3 {
		capped.Shown(recording.Input, []byte("1234567"))
	}
	capped.Shown(recording.Output, []byte("ok"))
	capped.End(recording.End{})
	s = start(recording.Name(session, 2))
	s.CopyOnly = true
	copied := p.begin(s, nil)
	copied.Shown(recording.Output, make([]byte, 1<<20))
	copied.End(recording.End{})
	p.tapes.Wait()
	kept, lost, end, _ := p.streams(p.onDisk(session))
	if kept[recording.Input] != "1234567123" || lost[recording.Input] != 11 || end.Bytes[recording.Input] != 21 || kept[recording.Output] != "ok" {
		t.Errorf("%v %v %+v", kept, lost, end)
	}
	if kept, lost, end, _ := p.streams(p.onDisk(session + "-2")); len(kept) != 0 || len(lost) != 0 || end.Bytes[recording.Output] != 1<<20 {
		t.Errorf("%v %v %+v", kept, lost, end)
	}
}

// TestSpoolFull: without room nothing begins, and what goes on says once that it is not whole.
func TestSpoolFull(t *testing.T) {
	const most = 40_000
	p := newPlace(t, t.TempDir(), most)
	flood := func(n int) (*Tape, chan error) {
		told := make(chan error, 10)
		tape := p.begin(start(recording.Name(session, n)), func(err error) { told <- err })
		for len(told) == 0 {
			_ = tape.Shown(recording.Output, noise(most/share/4))
			tape.ring()
			time.Sleep(time.Millisecond)
		}
		return tape, told
	}
	tape, told := flood(1)
	if err := <-told; !fault.Because(err, "recording_full") {
		t.Error(err)
	}
	if err := tape.Shown(recording.Output, []byte("more")); !fault.Because(err, "recording_full") {
		t.Errorf("what is missing is to go on: %v", err)
	}
	if err := tape.Shown(0, nil); !fault.Because(err, "recording_full") {
		t.Errorf("it still goes: %v", err)
	}
	// It ended itself; others begin and go on, until there is no room at all.
	quiet := p.begin(start(recording.Name(session, 2)), func(err error) { t.Error(err) })
	_ = quiet.Shown(recording.Output, []byte("quiet"))
	quiet.End(recording.End{})
	n := 3
	for ; n < 20 && p.room(); n++ {
		other, broke := flood(n)
		<-broke
		other.End(recording.End{})
	}
	if _, err := p.Begin(start(recording.Name(session, n)), p.to, nil); !fault.Because(err, "recording_full") || n < 5 {
		t.Errorf("after %d: %v", n, err)
	}
	tape.End(recording.End{})
	p.tapes.Wait()
	if len(told) != 0 {
		t.Error("it was told twice")
	}
	if err := p.sendDue(t.Context(), p.send); err != nil {
		t.Fatal(err)
	}
	if _, _, end, err := p.streams(p.got[session]); end != nil || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v %v", end, err)
	}
	if kept, _, _, err := p.streams(p.got[recording.Name(session, 2)]); kept[recording.Output] != "quiet" || !errors.Is(err, io.EOF) {
		t.Errorf("%v %v", kept, err)
	}
	if p.bytes != 0 || p.unsent != 0 {
		t.Errorf("%d bytes, %d unsent, of nothing", p.bytes, p.unsent)
	}
	if _, err := p.Begin(start(recording.Name(session, n)), p.to, nil); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// noise is n bytes that no compression makes less.
func noise(n int) []byte {
	b := make([]byte, n)
	for i, x := 0, uint32(1); i < len(b); i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// TestSpoolSent: what auth has takes no room from others, however long its session goes on.
func TestSpoolSent(t *testing.T) {
	p := newPlace(t, t.TempDir(), 40_000)
	tape := p.begin(start(session), func(err error) { t.Error(err) })
	for range 20 {
		before := len(p.onDisk(session))
		_ = tape.Shown(recording.Output, noise(5000))
		tape.ring()
		for len(p.onDisk(session)) == before {
			time.Sleep(time.Millisecond)
		}
		p.mu2(func() { p.waiting[session].oldest = time.Time{} })
		if err := p.sendDue(t.Context(), p.send); err != nil {
			t.Fatal(err)
		}
	}
	if !p.room() {
		t.Error("no room")
	}
	tape.End(recording.End{})
	p.tapes.Wait()
}

func (p *place) mu2(do func()) {
	p.Spool.mu.Lock()
	defer p.Spool.mu.Unlock()
	do()
}

// TestA77_RecordingDiskFull: a disk without room refuses the beginning and breaks what goes on; what was written stays whole.
func TestA77_RecordingDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	p := newPlace(t, dir, 0)
	told := make(chan error, 1)
	tape := p.begin(start(session), func(err error) { told <- err })
	noise := noise(150_000)
	tape.Shown(recording.Output, []byte("first"))
	tape.ring()
	for i := 0; ; i++ {
		if kept, _, _, _ := p.streams(p.onDisk(session)); kept[recording.Output] == "first" {
			break
		}
		time.Sleep(time.Millisecond)
	}
	tape.Shown(recording.Output, noise)
	tape.ring()
	if err := <-told; !fault.Because(err, "recording_full") {
		t.Error(err)
	}
	tape.End(recording.End{})
	p.tapes.Wait()
	if err := os.WriteFile(filepath.Join(dir, "x"), noise, 0o600); err == nil {
		t.Error("there is room")
	}
	if _, err := p.Begin(start(recording.Name(session, 2)), p.to, nil); !fault.Because(err, "recording_full") {
		t.Errorf("%v", err)
	}
	if list, _ := filepath.Glob(dir + "/*" + suffix); len(list) != 1 {
		t.Errorf("%v", list)
	}
	again, err := Open(p.cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Spool = again
	if err := p.sendDue(t.Context(), p.send); err != nil {
		t.Fatal(err)
	}
	if kept, _, _, err := p.streams(p.got[session]); kept[recording.Output] != "first" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%.20v %v", kept, err)
	}
}

// TestSpoolSlow: a disk that does not answer holds nobody up; what then is missing is told once and said in the recording.
func TestSpoolSlow(t *testing.T) {
	p := newPlace(t, t.TempDir(), 0)
	told := make(chan error, 10)
	tape := p.begin(start(session), func(err error) { told <- err })
	p.mu.Lock() // what the writer needs
	n := int64(0)
	for block := make([]byte, 1<<20); len(told) == 0 && n < 100<<20; n += 1 << 20 {
		tape.Shown(recording.Output, block)
	}
	p.mu.Unlock()
	if err := <-told; !fault.Because(err, "recording_slow") {
		t.Error(err)
	}
	for waiting := true; waiting; {
		tape.mu.Lock()
		waiting = len(tape.queue.full) > 0
		tape.mu.Unlock()
	}
	tape.Shown(recording.Output, []byte("and on"))
	tape.End(recording.End{})
	p.tapes.Wait()
	kept, lost, end, err := p.streams(p.onDisk(session))
	if out := kept[recording.Output]; !errors.Is(err, io.EOF) || !strings.HasSuffix(out, "and on") || lost[recording.Output] == 0 ||
		int64(len(out))+lost[recording.Output] != n+6 || end.Bytes[recording.Output] != n+6 || len(told) != 0 {
		t.Errorf("%d kept, %v lost of %d: %v", len(out), lost, n+6, err)
	}
}

// TestSpoolRefused: while auth cannot be reached nothing is lost; what it will never take stays for a person to see.
func TestSpoolRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlace(t, t.TempDir(), 0)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = p.Run(ctx, p.send) }()
		p.answers(errors.New("away"))
		tape := p.begin(start(session), nil)
		tape.End(recording.End{})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := p.tries(); n < 10 || n > 100 {
			t.Errorf("%d tries in an hour", n)
		}
		p.answers(nil)
		time.Sleep(longestRetry + time.Second)
		synctest.Wait()
		if _, over := p.has(session); !over {
			t.Error("it was not sent")
		}
		p.answers(fault.New(fault.Denied, "not yours"))
		other := p.begin(start(recording.Name(session, 2)), nil)
		other.End(recording.End{})
		time.Sleep(time.Minute)
		synctest.Wait()
		before := p.tries()
		time.Sleep(time.Hour / 2)
		synctest.Wait()
		if p.tries() != before || len(p.onDisk(session+"-2")) == 0 {
			t.Error("what is refused is sent again at once, or gone")
		}
		p.answers(nil) // an agent that was locked is not locked any more
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, over := p.has(session + "-2"); !over || p.bytes != 0 {
			t.Error("what was refused for a while stays for ever")
		}
	})
}

// TestSpoolOneBad: a recording that auth cannot take, or whose file is gone or torn, holds up no other, and is not tried without end.
func TestSpoolOneBad(t *testing.T) {
	bad := recording.Name(session, 2)
	for name, c := range map[string]struct {
		spoil func(p *place)
		send  func(p *place, m recording.Piece) (int64, error)
		stays bool
	}{
		"a fault of auth's": {send: func(*place, recording.Piece) (int64, error) {
			return 0, fault.New(fault.Internal, "shorter than it was")
		}, stays: true},
		"no progress": {send: func(*place, recording.Piece) (int64, error) { return 0, nil }, stays: true},
		"gone":        {spoil: func(p *place) { _ = os.Remove(p.file(bad)) }},
		"torn": {spoil: func(p *place) {
			_ = os.WriteFile(p.file(bad), make([]byte, 3<<20), 0o600)
			p.waiting[bad].size = 3 << 20
		},
			send: func(*place, recording.Piece) (int64, error) { return 0, nil }, stays: true},
		"auth has more": {send: func(_ *place, m recording.Piece) (int64, error) { return 1 << 20, nil }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, t.TempDir(), 0)
				for i, n := range []int{2, 1, 3} {
					p.begin(start(recording.Name(session, n)), nil).End(recording.End{})
					p.tapes.Wait()
					time.Sleep(time.Duration(i+1) * time.Second)
				}
				if c.spoil != nil {
					c.spoil(p)
				}
				tries := 0
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go func() {
					_ = p.Run(ctx, func(ctx context.Context, m recording.Piece) (int64, error) {
						if m.Name == bad && c.send != nil {
							if tries++; tries > 1000 {
								stop()
							}
							return c.send(p, m)
						}
						return p.send(ctx, m)
					})
				}()
				time.Sleep(time.Minute)
				synctest.Wait()
				if len(p.got) != 2 || tries > 10 {
					t.Errorf("%d of 2 others went, %d tries", len(p.got), tries)
				}
				if _, waits := p.waiting[bad]; waits != c.stays || !waits && p.bytes != 0 {
					t.Errorf("it waits: %v, %d bytes", waits, p.bytes)
				}
			})
		})
	}
}

// TestSpoolIdle: a session that showed much and shows nothing now holds no buffers.
func TestSpoolIdle(t *testing.T) {
	const many = 64
	p := newPlace(t, t.TempDir(), 0)
	noise := noise(400 << 10)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var tapes []*Tape
	for n := range many {
		tape := p.begin(start(recording.Name(session, n+1)), nil)
		_ = tape.Shown(recording.Output, noise)
		tape.ring()
		for size := int64(0); size < int64(len(noise)); { // until it is written
			p.Spool.mu.Lock()
			size = p.waiting[recording.Name(session, n+1)].size
			p.Spool.mu.Unlock()
		}
		tapes = append(tapes, tape)
	}
	for range 3 { // pools forget in two
		runtime.GC()
	}
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapInuse) - int64(before.HeapInuse)) / many; each > 64<<10 {
		t.Errorf("an idle session holds %d bytes", each)
	}
	for _, tape := range tapes {
		tape.End(recording.End{})
	}
	p.tapes.Wait()
}

// TestSpoolSync: a recording that auth does not have soon is brought to the disk once it is over, and before the agent ends.
func TestSpoolSync(t *testing.T) {
	for name, c := range map[string]struct {
		away, closes bool
		want         int32
	}{"auth is there": {}, "auth is away": {away: true, want: 1}, "the agent ends": {away: true, closes: true, want: 1}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlace(t, t.TempDir(), 0)
				var synced atomic.Int32
				p.sync = func(f *os.File) error { synced.Add(1); return f.Sync() }
				ctx, stop := context.WithCancel(t.Context())
				defer stop()
				go func() { _ = p.Run(ctx, p.send) }()
				if c.away {
					p.answers(errors.New("away"))
				}
				p.begin(start(session), nil).End(recording.End{})
				began := time.Now()
				if c.closes {
					p.Close()
				} else {
					time.Sleep(2 * syncAfter)
					synctest.Wait()
				}
				if synced.Load() != c.want || c.closes && time.Since(began) != 0 {
					t.Errorf("synced %d times, in %s", synced.Load(), time.Since(began))
				}
			})
		})
	}
}
