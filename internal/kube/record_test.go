package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kube/stream"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/spool"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// reels are the recordings of a place.
type reels struct {
	*place
	id  *recording.Identity
	mu  sync.Mutex
	got []byte // guarded by mu
	end bool   // guarded by mu
}

func (p *place) reels(mode role.RecordMode) *reels {
	p.t.Helper()
	r := &reels{place: p}
	var err error
	if r.id, err = recording.NewIdentity(nil); err != nil {
		p.t.Fatal(err)
	}
	p.apply(false, &role.Role{Name: "devs", Options: role.Options{RecordSession: mode},
		Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"devs"}}})
	picture, _ := p.mirror.Current()
	authorities := picture.Authorities
	authorities.Recording = r.id.Recipient()
	p.mirror.Apply(snapshot.Change{Run: 1, Revision: uint64(time.Now().UnixNano()), Authorities: &authorities})
	p.mirror.Confirm(p.mirror.Now())
	tapes, err := spool.Open(spool.Config{Dir: p.t.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(p.t.Context())
	var sender sync.WaitGroup
	sender.Go(func() {
		_ = tapes.Run(ctx, func(_ context.Context, m recording.Piece) (int64, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got, r.end = append(r.got, m.Data...), m.Last
			return int64(len(r.got)), nil
		})
	})
	p.t.Cleanup(func() { stop(); sender.Wait(); tapes.Close() })
	p.door.Record = Recorded(&recorder.Recorder{Spool: tapes, Pictures: p.mirror, Now: time.Now,
		Host: identity.Host{ID: "5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01", Role: identity.RoleKube}})
	return r
}

// input is what the one recording has of what was sent, once it is over.
func (r *reels) input(t *testing.T) (string, recording.Start) {
	t.Helper()
	eventually(t, "no recording", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.end })
	o, err := recording.NewOpener(bytes.NewReader(r.got), r.id)
	if err != nil {
		t.Fatal(err)
	}
	var in strings.Builder
	var start recording.Start
	for {
		f, err := o.Next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return in.String(), start
		}
		switch f.Kind {
		case recording.Began:
			start, _ = f.Start()
		case recording.Input:
			in.Write(f.Data)
		}
	}
}

// TestRecordedInput: what is sent is recorded where no terminal shows it, whatever the client says of terminals and commands.
func TestRecordedInput(t *testing.T) {
	for name, c := range map[string]struct {
		what, query string
		mode        role.RecordMode
		kept        bool
	}{
		"a terminal":                            {"exec", "stdin=1&stdout=1&tty=1&command=cat", role.RecordStrict, false},
		"no terminal":                           {"exec", "stdin=1&stdout=1&command=cat", role.RecordUnset, true},
		"a terminal that shows nothing":         {"exec", "stdin=1&stderr=0&tty=1&command=cat", role.RecordStrict, true},
		"attach, whatever it says":              {"attach", "stdin=1&stdout=1&tty=1", role.RecordStrict, true},
		"attach that looks like a copy":         {"attach", "stdin=1&stdout=1&command=tar&command=xf&command=-", role.RecordUnset, true},
		"attach that looks like a copy, strict": {"attach", "stdin=1&stdout=1&command=tar&command=xf&command=-", role.RecordStrict, true},
		"a copy":                                {"exec", "stdin=1&stdout=1&command=tar&command=xf&command=-", role.RecordUnset, false},
		"a copy, strict":                        {"exec", "stdin=1&stdout=1&command=tar&command=xf&command=-", role.RecordStrict, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t, (&pod{t: t}).ServeHTTP)
			r := p.reels(c.mode)
			conn, res, err := p.websocket("v5.channel.k8s.io", c.what, c.query)
			if err != nil {
				t.Fatal(err, res)
			}
			defer conn.Close()
			for _, m := range []string{"\x00rm -rf /", "\xff\x00"} {
				if err := conn.WriteMessage(websocket.BinaryMessage, []byte(m)); err != nil {
					t.Fatal(err)
				}
			}
			for s := (socket{t, conn}); ; {
				if ch, _ := s.next(); ch > 3 {
					break
				}
			}
			in, start := r.input(t)
			if (in == "rm -rf /") != c.kept || c.what == "attach" && start.Command != "" {
				t.Errorf("%q is recorded of %+v", in, start)
			}
		})
	}
}

// TestRecordedDeaf: a client that takes back the stream by which a terminal shows what is typed has its typing recorded.
func TestRecordedDeaf(t *testing.T) {
	p := newPlace(t, (&pod{t: t}).ServeHTTP)
	r := p.reels(role.RecordStrict)
	conn := p.upgrade("exec", "stdin=1&stdout=1&tty=1&command=hash", "v4.channel.k8s.io")
	streams := map[string]io.WriteCloser{}
	for _, name := range []string{"error", "stdin", "stdout", "resize"} {
		s, err := conn.CreateStream(http.Header{"streamType": {name}}, nil, false)
		if err == nil {
			err = s.WaitTimeout(5 * time.Second)
		}
		if err != nil {
			t.Fatal(err)
		}
		streams[name] = s
		if name == "stdout" {
			defer func() { _ = s.Reset() }()
		}
	}
	if s, ok := streams["stdout"].(interface{ Reset() error }); !ok || s.Reset() != nil {
		t.Fatal("no reset")
	}
	_, _ = io.WriteString(streams["stdin"], "rm -rf /")
	_ = streams["stdin"].Close()
	if in, _ := r.input(t); in != "rm -rf /" {
		t.Errorf("%q", in)
	}
}

// TestRecordingBreaks: what the tape does not take goes no further, either way.
func TestRecordingBreaks(t *testing.T) {
	for _, protocol := range protocols {
		p := newPlace(t, (&pod{t: t}).ServeHTTP)
		tape, _ := p.recorded()
		tape.broken = fault.New(fault.Unavailable, "no room").WithReason("recording_full")
		got := p.runs(protocol, "stdin=1&stdout=1&command=cat", strings.NewReader("hello"), "")
		if got.out != "" || !strings.Contains(got.status, "no room") || tape.of(stream.Stdout) != "" {
			t.Errorf("%s: %+v, %q came back", protocol, got, tape.of(stream.Stdout))
		}
	}
}
