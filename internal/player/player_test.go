package player

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/screen"
)

// reel is a recording in memory.
type reel struct{ left []recording.Frame }

func (r *reel) Next() (recording.Frame, error) {
	if len(r.left) == 0 {
		return recording.Frame{}, io.EOF
	}
	f := r.left[0]
	r.left = r.left[1:]
	return f, nil
}

func (r *reel) Close() error { return nil }

func session(t *testing.T, terminal *recording.Terminal, frames ...recording.Frame) []recording.Frame {
	t.Helper()
	first, err := recording.JSONFrame(recording.Began, 0, recording.Start{Name: "5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01", Time: time.Now(),
		Place: recording.Place{Host: "5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a02"}, User: "alice", Terminal: terminal})
	if err != nil {
		t.Fatal(err)
	}
	return append([]recording.Frame{first}, frames...)
}

func out(at time.Duration, text string) recording.Frame {
	return recording.Frame{Kind: recording.Output, At: at, Data: []byte(text)}
}

// page is what was shown so far.
type page struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

func (p *page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.String()
}

// shows runs a player in a bubble; do steers it.
func shows(t *testing.T, p *Player, frames []recording.Frame, do func(at func(time.Duration, string), press func(Key))) (e Ending, err error) {
	t.Helper()
	var screenful page
	keys := make(chan Key)
	p.Out, p.Keys = &screenful, keys
	p.Open = func(context.Context) (Frames, error) { return &reel{frames}, nil }
	over := make(chan struct{})
	go func() { defer close(over); e, err = p.Play(t.Context()) }()
	began := time.Now()
	do(func(at time.Duration, want string) {
		t.Helper()
		time.Sleep(time.Until(began.Add(at)))
		synctest.Wait()
		if got := screenful.String(); got != want {
			t.Errorf("at %s: %q, want %q", at, got, want)
		}
	}, func(k Key) { keys <- k; synctest.Wait() })
	<-over
	if !strings.HasSuffix(screenful.String(), restored) {
		t.Errorf("%q leaves the terminal as it is", screenful.String())
	}
	return e, err
}

// restored is how a terminal is put back on which nothing but text was shown.
var restored = strings.Repeat(new(screen.Filter).Restore(), 2)

var term = &recording.Terminal{Columns: 80, Rows: 24}

func abc(t *testing.T) []recording.Frame {
	return session(t, term, out(time.Second, "a"), out(20*time.Second, "b"), out(40*time.Second, "c\x1b]0;t\x07"))
}

func TestPlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := shows(t, &Player{Speed: 2}, abc(t), func(at func(time.Duration, string), _ func(Key)) {
			at(400*time.Millisecond, "")
			at(600*time.Millisecond, "a")
			at(9*time.Second, "a")
			at(11*time.Second, "ab")
			at(20*time.Second+1, "abc"+restored)
		})
		if err != nil || e.End != nil || e.At != 40*time.Second || e.Start.User != "alice" {
			t.Errorf("%+v %v", e, err)
		}
	})
}

func TestPlayIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, _ = shows(t, &Player{MaxIdle: 2 * time.Second}, abc(t), func(at func(time.Duration, string), _ func(Key)) {
			at(1100*time.Millisecond, "a")
			at(2900*time.Millisecond, "a")
			at(3100*time.Millisecond, "ab")
			at(5100*time.Millisecond, "abc"+restored)
		})
	})
}

func TestPlayKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, err := shows(t, &Player{}, abc(t), func(at func(time.Duration, string), press func(Key)) {
			at(2*time.Second, "a")
			press(Pause)
			at(100*time.Second, "a")
			press(Pause)
			at(101*time.Second, "a") // at 3 s of it
			press(Forward)           // 13 s
			at(107*time.Second, "a")
			at(109*time.Second, "ab") // 21 s
			press(Back)               // 11 s
			clear := restored + "\x1b[H\x1b[2J"
			at(109*time.Second, "ab"+clear+"a")
			at(119*time.Second, "ab"+clear+"ab")
			press(Faster) // 21 s, twice as fast
			at(128*time.Second, "ab"+clear+"ab")
			press(Slower) // 39 s
			at(128*time.Second+500*time.Millisecond, "ab"+clear+"ab")
			press(Quit)
		})
		if err != nil || !e.Quit {
			t.Errorf("%+v %v", e, err)
		}
	})
}

func TestKeys(t *testing.T) {
	got := keys([]byte(" \x1b[C\x1b[D\x1bOC+-q\x03x\x1b[A\x1b["))
	if want := []Key{Pause, Forward, Back, Forward, Faster, Slower, Quit, Quit}; string(kb(got)) != string(kb(want)) {
		t.Errorf("%v, want %v", got, want)
	}
	read := ReadKeys(t.Context(), strings.NewReader("q"))
	if k := <-read; k != Quit {
		t.Error(k)
	}
	if _, more := <-read; more {
		t.Error("more")
	}
}

func kb(k []Key) (out []byte) {
	for _, x := range k {
		out = append(out, byte(x))
	}
	return out
}

func plain(t *testing.T) []recording.Frame {
	status := 2
	end, err := recording.JSONFrame(recording.Ended, 3*time.Second, recording.End{ExitCode: &status})
	if err != nil {
		t.Fatal(err)
	}
	return session(t, nil, recording.Frame{Kind: recording.Input, At: 1, Data: []byte("rm \x1b[31mx\nls\n")}, out(time.Second, "one\n\x1b]0;t\x07two\xff"),
		recording.Frame{Kind: recording.Errors, Data: []byte("!\r\n")}, recording.ResizeFrame(2*time.Second, 100, 30), recording.LostFrame(2*time.Second, recording.Output, 12), end)
}

func TestText(t *testing.T) {
	var b bytes.Buffer
	e, err := Text(&b, &reel{plain(t)})
	if err != nil || e.End == nil || *e.End.ExitCode != 2 {
		t.Errorf("%+v %v", e, err)
	}
	if want := "< rm x\n< ls\none\ntwo\uFFFD!\n\n[12 bytes of output are not kept]\n"; b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
	if strings.ContainsAny(b.String(), "\x1b\r") {
		t.Errorf("%q", b.String())
	}
	b.Reset()
	if _, err := JSON(&b, &reel{plain(t)}); err != nil || !strings.Contains(b.String(), `{"at":1,"kind":"output","base64":"b25lChtdMDt0B3R3b/8="}`) ||
		!strings.Contains(b.String(), `{"at":2,"kind":"resize","value":{"columns":100,"rows":30}}`) || !strings.Contains(b.String(), `{"at":2,"kind":"lost","value":{"bytes":12,"stream":"output"}}`) ||
		!strings.Contains(b.String(), `"kind":"end","value":{"exit_code":2}`) {
		t.Errorf("%s %v", b.String(), err)
	}
}

// TestPlayPlain: without a terminal in it, a recording's lines still begin at the left of one.
func TestPlayPlain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b page
		p := &Player{Out: &b, Open: func(context.Context) (Frames, error) { return &reel{plain(t)}, nil }}
		if _, err := p.Play(t.Context()); err != nil || !strings.HasPrefix(b.String(), "< rm x\r\n< ls\r\none\r\ntwo") {
			t.Errorf("%q %v", b.String(), err)
		}
	})
}

// silent is a recording whose sender says nothing more, until it is closed.
type silent struct {
	reel
	ctx context.Context
}

func (s *silent) Next() (recording.Frame, error) {
	if len(s.left) > 0 {
		return s.reel.Next()
	}
	<-s.ctx.Done()
	return recording.Frame{}, s.ctx.Err()
}

// TestPlaySilent: a sender that says nothing more does not keep the person, whose terminal takes no Ctrl-C meanwhile.
func TestPlaySilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		keys := make(chan Key)
		p := &Player{Out: io.Discard, Keys: keys, Open: func(ctx context.Context) (Frames, error) {
			return &silent{reel{session(t, term, out(time.Second, "a"))}, ctx}, nil
		}}
		over := make(chan Ending)
		go func() {
			e, err := p.Play(t.Context())
			if err != nil {
				t.Error(err)
			}
			over <- e
		}()
		time.Sleep(time.Minute)
		for _, k := range []Key{Pause, Pause, Back, Quit} {
			select {
			case keys <- k:
			case <-time.After(time.Minute):
				t.Fatal("nobody looks at the keys")
			}
			synctest.Wait()
		}
		if e := <-over; !e.Quit || e.Start.User != "alice" {
			t.Errorf("%+v", e)
		}
	})
}

// TestA31_RecordingJSON: what a terminal acts on is not in JSON as it is, and programs read it all the same.
func TestA31_RecordingJSON(t *testing.T) {
	const evil = "a\u009b6n\u202e\x7f\x1b[c\u2028z"
	var b bytes.Buffer
	if _, err := JSON(&b, &reel{session(t, term, out(0, evil))}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(b.String(), "\u009b\u202e\x7f\x1b\u2028") {
		t.Errorf("%q", b.String())
	}
	_, last, _ := strings.Cut(b.String(), "\n")
	var got struct{ Text string }
	if err := json.Unmarshal([]byte(last), &got); err != nil || got.Text != evil {
		t.Errorf("%q %v", got.Text, err)
	}
}
