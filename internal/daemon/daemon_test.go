package daemon_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
	"github.com/sallyport/sallyport/internal/world"
)

// start runs a daemon on a data directory until it is up or refuses.
func start(t *testing.T, dir string) error {
	t.Helper()
	c := config.Default("example.com")
	c.NodeName, c.DataDir = "web", dir
	c.Auth.Listen, c.Proxy.Listen = "127.0.0.1:0", "127.0.0.1:0"
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	return daemon.Run(ctx, daemon.Options{Config: c, Executable: "/bin/false", Out: io.Discard, Log: slog.New(slog.DiscardHandler),
		Ready: func(daemon.State) { cancel() }})
}

func TestRestartKeepsEverything(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	before, pin := w.Login("alice"), w.State.CAPin
	nodes := func() map[string]bool {
		out := map[string]bool{}
		deadline := time.Now().Add(10 * time.Second)
		for len(out) < 2 && time.Now().Before(deadline) {
			list, err := w.Admin.List(t.Context(), manifest.Node)
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range list {
				out[n.Metadata.Name] = true
			}
		}
		return out
	}
	hosts := nodes()
	w.Stop()
	w.Start()
	if w.State.CAPin != pin {
		t.Fatal("another authority")
	}
	if _, err := before.Call().Authorities(t.Context()); err != nil {
		t.Fatalf("a login of before: %v", err)
	}
	w.Login("alice")
	for id := range nodes() {
		if !hosts[id] {
			t.Errorf("host %s is new", id)
		}
	}
	if v, err := w.Admin.Verify(t.Context(), nil); err != nil || !v.Intact {
		t.Fatalf("%+v %v", v, err)
	}
}

// TestStateOfANewerVersion starts on what a later program wrote: it says so before it looks at anything else.
func TestStateOfANewerVersion(t *testing.T) {
	w := world.New(t, nil)
	w.Stop()
	dir := filepath.Join(w.Dir, "data")
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(dir, "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	meta := map[string]any{}
	rec, err := s.Get(t.Context(), "meta/cluster")
	if err == nil {
		err = json.Unmarshal(rec.Value, &meta)
	}
	meta["state_version"] = 99
	raw, merr := json.Marshal(meta)
	if err != nil || merr != nil {
		t.Fatal(err, merr)
	}
	if _, err := s.Txn(t.Context(), []store.Op{store.Put("meta/cluster", raw)}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := os.Rename(filepath.Join(dir, "seal.key"), filepath.Join(dir, "aside")); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir); !fault.Because(err, "state_newer") {
		t.Fatal(err)
	}
}

func TestSealKeyMissing(t *testing.T) {
	w := world.New(t, nil)
	w.Stop()
	dir := filepath.Join(w.Dir, "data")
	key, aside := filepath.Join(dir, "seal.key"), filepath.Join(dir, "aside")
	if err := os.Rename(key, aside); err != nil {
		t.Fatal(err)
	}
	err := start(t, dir)
	if f := fault.Of(err); err == nil || f.Kind == fault.Internal || f.Fix == "" {
		t.Fatalf("%+v", f)
	}
	if _, err := os.Stat(key); err == nil {
		t.Fatal("a new key was made beside state that the old one sealed")
	}
	if err := os.Rename(aside, key); err != nil {
		t.Fatal(err)
	}
	if err := start(t, dir); err != nil {
		t.Fatal(err)
	}
}
