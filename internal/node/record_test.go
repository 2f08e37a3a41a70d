//go:build linux

package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/spool"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// reels is a cluster that keeps recordings.
type reels struct {
	*world
	id    *recording.Identity
	spool *spool.Spool
	dir   string

	mu  sync.Mutex
	got map[string][]byte // guarded by mu
}

func (w *world) records(most int64) *reels {
	w.t.Helper()
	id, err := recording.NewIdentity(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	to, err := recording.NewRecipient(id.Public())
	if err != nil {
		w.t.Fatal(err)
	}
	picture, _ := w.mirror.Current()
	authorities := picture.Authorities
	authorities.Recording = to
	w.revision++
	w.mirror.Apply(snapshot.Change{Revision: w.revision, Authorities: &authorities})
	r := &reels{world: w, id: id, dir: w.t.TempDir(), got: map[string][]byte{}}
	if r.spool, err = spool.Open(spool.Config{Dir: r.dir, Max: most, Log: slog.New(slog.DiscardHandler)}); err != nil {
		w.t.Fatal(err)
	}
	w.node.Recordings = &recorder.Recorder{Spool: r.spool, Pictures: w.mirror, Host: w.node.Host, Now: time.Now}
	return r
}

// all are the recordings once they are over, by their command.
func (r *reels) all() map[string][]recording.Frame {
	r.t.Helper()
	ctx, stop := context.WithCancel(r.t.Context())
	defer stop()
	go func() {
		_ = r.spool.Run(ctx, func(_ context.Context, p recording.Piece) (int64, error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got[p.Name] = append(r.got[p.Name], p.Data...)
			return int64(len(r.got[p.Name])), nil
		})
	}()
	await(r.t, "the recordings are sent", func() bool { left, err := os.ReadDir(r.dir); return err == nil && len(left) == 0 })
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string][]recording.Frame{}
	for name, raw := range r.got {
		o, err := recording.NewOpener(bytes.NewReader(raw), r.id)
		if err != nil {
			r.t.Fatal(err)
		}
		var frames []recording.Frame
		for {
			f, err := o.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					r.t.Errorf("%s: %v", name, err)
				}
				break
			}
			f.Data = bytes.Clone(f.Data)
			frames = append(frames, f)
		}
		start, err := frames[0].Start()
		if err != nil || start.User != "myuser" || start.Login != "ubuntu" || start.Server != nodeName || start.Host != nodeID {
			r.t.Errorf("%+v %v", start, err)
		}
		out[start.Command] = frames
	}
	return out
}

func text(frames []recording.Frame, k recording.Kind) string {
	var b strings.Builder
	for _, f := range frames {
		if f.Kind == k {
			b.Write(f.Data)
		}
	}
	return b.String()
}

func ending(t *testing.T, frames []recording.Frame) recording.End {
	t.Helper()
	if len(frames) == 0 {
		t.Fatal("no recording")
	}
	e, err := frames[len(frames)-1].End()
	if err != nil {
		t.Fatalf("%+v %v", frames[len(frames)-1], err)
	}
	return e
}

// TestRecord: what a terminal shows, its sizes, what goes in and out without one, and how it ended.
func TestRecord(t *testing.T) {
	w := newWorld(t)
	r := w.records(0)
	c := w.client()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 30, 90, nil); err != nil {
		t.Fatal(err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("stty -echo; echo ready; read secret; echo over; exit 3"); err != nil {
		t.Fatal(err)
	}
	shown := make([]byte, len("ready\r\n"))
	if _, err := io.ReadFull(out, shown); err != nil {
		t.Fatal(err)
	}
	if err := s.WindowChange(40, 120); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(in, "hunter2\n")
	rest, _ := io.ReadAll(out)
	_ = s.Wait()
	s, err = c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("put in")
	if got, err := s.CombinedOutput("cat; echo aside >&2"); err != nil || string(got) != "put inaside\n" {
		t.Errorf("%q %v", got, err)
	}
	all := r.all()
	terminal, plain := all["stty -echo; echo ready; read secret; echo over; exit 3"], all["cat; echo aside >&2"]
	if e := ending(t, terminal); text(terminal, recording.Output) != string(shown)+string(rest) || *e.ExitCode != 3 || text(terminal, recording.Input) != "" {
		t.Errorf("%q %+v", text(terminal, recording.Output), e)
	}
	start, _ := terminal[0].Start()
	var sizes [][2]uint32
	for _, f := range terminal {
		if f.Kind == recording.Resize {
			c, r := f.Size()
			sizes = append(sizes, [2]uint32{c, r})
		}
	}
	if start.Terminal == nil || start.Terminal.Columns != 90 || start.Terminal.Rows != 30 || len(sizes) != 1 || sizes[0] != [2]uint32{120, 40} {
		t.Errorf("%+v %v", start.Terminal, sizes)
	}
	if e := ending(t, plain); text(plain, recording.Input) != "put in" || text(plain, recording.Output) != "put in" || text(plain, recording.Errors) != "aside\n" || *e.ExitCode != 0 {
		t.Errorf("%v", plain)
	}
	first, second := start.Name, mustStart(t, plain).Name
	if ids := w.recorder.of(event.SessionStart); len(ids) != 1 || recording.Name(ids[0].SessionID, 1) != first || recording.Name(ids[0].SessionID, 2) != second {
		t.Errorf("%q and %q of session %q", first, second, ids[0].SessionID)
	}
}

// TestRecordHidden: what a client hides from the terminal's output is recorded: a terminal that begins without echo, and variables.
func TestRecordHidden(t *testing.T) {
	w := newWorld(t)
	r := w.records(0)
	c := w.client()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 30, 90, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader("rm -rf /nowhere\n")
	if err := s.Run("read x; $x"); err != nil {
		t.Fatal(err)
	}
	if s, err = c.NewSession(); err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("LC_X", "rm -rf /nowhere"); err != nil {
		t.Fatal(err)
	}
	for i := range 32 { // more than a recording's start has room for
		_ = s.Setenv(fmt.Sprintf("LC_%d", i), strings.Repeat("<", 1000))
	}
	if err := s.Run("eval $LC_X"); err != nil {
		t.Fatal(err)
	}
	all := r.all()
	if got := text(all["read x; $x"], recording.Input); got != "rm -rf /nowhere\n" {
		t.Errorf("%q", got)
	}
	if got := mustStart(t, all["eval $LC_X"]).Environment; len(got) != 5 || got[0] != "LC_X=rm -rf /nowhere" {
		t.Errorf("%.200q", got)
	}
}

func mustStart(t *testing.T, frames []recording.Frame) recording.Start {
	t.Helper()
	s, err := frames[0].Start()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestRecordModes: what roles say of recordings holds, with a cluster that keeps them, that keeps none, and without room.
func TestRecordModes(t *testing.T) {
	for _, c := range []struct {
		mode      role.RecordMode
		store     string
		runs      bool
		recorded  int
		refuseFor string
	}{
		{role.RecordUnset, "there", true, 1, ""},
		{role.RecordUnset, "none", true, 0, ""},
		{role.RecordUnset, "full", false, 0, "no room for the recordings"},
		{role.RecordOff, "there", true, 0, ""},
		{role.RecordOff, "full", true, 0, ""},
		{role.RecordBestEffort, "there", true, 1, ""},
		{role.RecordBestEffort, "full", true, 0, ""},
		{role.RecordStrict, "there", true, 1, ""},
		{role.RecordStrict, "none", false, 0, "the cluster keeps no recordings"},
		{role.RecordStrict, "full", false, 0, "no room for the recordings"},
	} {
		t.Run(string(c.mode)+" "+c.store, func(t *testing.T) {
			access := accessRole()
			access.Options.RecordSession = c.mode
			w := newWorld(t, access)
			var r *reels
			if c.store != "none" {
				r = w.records(map[string]int64{"full": 1}[c.store])
			}
			if c.store == "full" { // one that auth does not take
				if _, err := r.spool.Begin(recording.Start{Name: "5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01", Time: time.Now(), Place: recording.Place{Host: nodeID}, User: "x"}, mustPicture(w).Authorities.Recording, nil); err != nil {
					t.Fatal(err)
				}
			}
			s, err := w.client().NewSession()
			if err != nil {
				t.Fatal(err)
			}
			errs, err := s.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := s.Output("echo ran")
			if err != nil {
				_ = s.Close()
			}
			said, _ := io.ReadAll(errs)
			if ran := string(out) == "ran\n" && err == nil; ran != c.runs || !strings.Contains(string(said), c.refuseFor) {
				t.Fatalf("%q %q %v", out, said, err)
			}
			if refused := w.recorder.of(event.Auth); (len(refused) == 1) == c.runs {
				t.Errorf("%+v", refused)
			}
			if r != nil && c.store == "there" {
				if all := r.all(); len(all) != c.recorded {
					t.Errorf("%d recordings", len(all))
				} else if c.recorded == 1 && (mustStart(t, all["echo ran"]).StreamMax == 0) != (c.mode == role.RecordStrict) {
					t.Error("how much is kept")
				}
			}
		})
	}
}

func mustPicture(w *world) *snapshot.Picture {
	p, _ := w.mirror.Current()
	return p
}

// TestRecordBreaks: a session whose recording breaks is cut, unless the roles say best_effort.
func TestRecordBreaks(t *testing.T) {
	for mode, lives := range map[role.RecordMode]bool{role.RecordUnset: false, role.RecordStrict: false, role.RecordBestEffort: true} {
		t.Run(string(mode), func(t *testing.T) {
			access := accessRole()
			access.Options.RecordSession = mode
			w := newWorld(t, access)
			w.records(4000)
			s, err := w.client().NewSession()
			if err != nil {
				t.Fatal(err)
			}
			var errs bytes.Buffer
			s.Stderr = &errs
			out, err := s.Output("head -c 3000000 /dev/urandom; sleep 1; echo; echo lives")
			if strings.HasSuffix(string(out), "lives\n") != lives || (err == nil) != lives || strings.Contains(errs.String(), "no room for the recordings") == lives {
				t.Errorf("%d bytes, %q %v", len(out), errs.String(), err)
			}
		})
	}
}

// TestRecordCut: the recording of a session that is cut says why.
func TestRecordCut(t *testing.T) {
	w := newWorld(t)
	r := w.records(0)
	s, err := w.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo here; sleep 60"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	w.lock()
	var exit *ssh.ExitError
	if err := s.Wait(); !errors.As(err, &exit) || exit.ExitStatus() != 255 {
		t.Fatal(err)
	}
	frames := r.all()["echo here; sleep 60"]
	if e := ending(t, frames); e.Reason != "locked" || text(frames, recording.Output) != "here\n" {
		t.Errorf("%+v", e)
	}
}

// TestRecordFiles: files that SFTP carries are on record one by one, and their bytes are nowhere.
func TestRecordFiles(t *testing.T) {
	access := accessRole()
	access.Options.RecordSession = role.RecordStrict
	w := newWorld(t, access)
	w.apply(manifest.Role, access)
	r := w.records(0)
	s, err := w.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestSubsystem("sftp"); err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if all := r.all(); len(all) != 0 {
		t.Errorf("%v", all)
	}
}

// TestRecordLater: a session that nobody records is cut once a role wants it recorded, and not before.
func TestRecordLater(t *testing.T) {
	access := accessRole()
	access.Options.RecordSession = role.RecordOff
	w := newWorld(t, access)
	w.records(0)
	s, err := w.client().NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	s.Stderr = &errs
	in, err := s.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("cat"); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []role.RecordMode{role.RecordBestEffort, role.RecordUnset} {
		later := *access
		later.Options.RecordSession = mode
		w.apply(manifest.Role, &later)
		if _, err := io.WriteString(in, "still\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 6)); err != nil {
			t.Fatalf("%q: %v", mode, err)
		}
	}
	later := *access
	later.Options.RecordSession = role.RecordStrict
	w.apply(manifest.Role, &later)
	if err := s.Wait(); err == nil || !strings.Contains(errs.String(), "must be recorded, and is not") {
		t.Errorf("%v %q", err, errs.String())
	}
}
