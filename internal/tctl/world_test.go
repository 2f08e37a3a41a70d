//go:build linux

package tctl_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// world is a cluster in this process, and tctl beside its admin socket.
type world struct {
	t     *testing.T
	dir   string
	state daemon.State
	env   map[string]string
	login tool.Login
	stop  func()
}

// newWorld starts auth and a proxy on loopback.
func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "sp") // short: a socket's path has 108 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, dir: dir, env: map[string]string{"SALLYPORT_DATA_DIR": dir, "HOME": dir}}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

// start runs the daemon until stop.
func (w *world) start() {
	w.t.Helper()
	c := config.Default("example.com")
	c.DataDir, c.SSH = w.dir, nil
	c.Auth.Listen, c.Proxy.Listen = "127.0.0.1:0", "127.0.0.1:0"
	ctx, cancel := context.WithCancel(context.Background())
	ended, ready := make(chan error, 1), make(chan daemon.State, 1)
	var log bytes.Buffer
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{Config: c, Executable: "/bin/false", Out: io.Discard,
			Log: slog.New(slog.NewTextHandler(&log, nil)), Ready: func(s daemon.State) { ready <- s }})
	}()
	w.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			w.t.Errorf("the daemon ended with %v\n%s", err, log.String())
		}
	})
	select {
	case w.state = <-ready:
	case err := <-ended:
		ended <- nil
		w.t.Fatalf("the daemon did not start: %v\n%s", err, log.String())
	case <-time.After(30 * time.Second):
		w.t.Fatal("the daemon did not start within 30 s")
	}
}

// result is what one run of tctl left.
type result struct {
	out, err string
	code     int
}

// run runs one command line with some standard input.
func (w *world) run(stdin string, args ...string) result {
	w.t.Helper()
	var out, errs bytes.Buffer
	p := tool.Program{Login: w.login, Streams: console.Streams{In: strings.NewReader(stdin), Out: &out, Err: &errs,
		Env: func(k string) string { return w.env[k] }}}
	code := tctl.Main(context.Background(), p, args)
	return result{out.String(), errs.String(), code}
}

// ok runs a command that must succeed without a word of error and returns what it printed.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	r := w.run("", args...)
	if r.code != 0 || r.err != "" {
		w.t.Fatalf("tctl %s: status %d\n%s%s", strings.Join(args, " "), r.code, r.out, r.err)
	}
	return r.out
}

// fails runs a command that must end with a status and say something.
func (w *world) fails(code int, says string, args ...string) result {
	w.t.Helper()
	r := w.run("", args...)
	if r.code != code || !strings.Contains(r.err, says) {
		w.t.Errorf("tctl %s: status %d, want %d\n%s%swant %s", strings.Join(args, " "), r.code, code, r.out, r.err, says)
	}
	return r
}

// has checks that a text has all of the parts.
func has(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("no %q in\n%s", p, text)
		}
	}
}
