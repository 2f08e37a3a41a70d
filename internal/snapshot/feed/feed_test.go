package feed

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

type fixture struct {
	t     *testing.T
	store store.Store
	*Feed
}

func open(t *testing.T, path string) *fixture {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: path, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, s, New(s, snapshot.Authorities{})}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return f
}

func (f *fixture) put(specs ...any) uint64 {
	f.t.Helper()
	var ops []store.Op
	for _, s := range specs {
		op, err := records.Put(manifest.New(s, 0))
		if err != nil {
			f.t.Fatal(err)
		}
		ops = append(ops, op)
	}
	r, err := f.store.Txn(f.t.Context(), ops)
	if err != nil {
		f.t.Fatal(err)
	}
	f.Reached(f.t.Context(), r)
	return r
}

// follow takes changes until a revision is reached.
func (f *fixture) follow(after, until uint64) []snapshot.Change {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), 10*time.Second)
	defer cancel()
	var out []snapshot.Change
	err := f.Follow(ctx, after, func(c snapshot.Change) error {
		out = append(out, c)
		if c.Revision >= until {
			cancel()
		}
		return nil
	})
	if len(out) == 0 || out[len(out)-1].Revision < until {
		f.t.Fatalf("followed to %+v, not to %d: %v", out, until, err)
	}
	return out
}

// TestResume goes on where somebody was, within one run, and begins anew where the changes are no longer known or are
// those of another run.
func TestResume(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	f := open(t, path)
	set := cluster.Default()
	first := f.put(&set, &role.Role{Name: "a"})
	all := f.follow(0, first)
	if len(all) != 1 || !all[0].Complete || len(all[0].Put) != 2 || all[0].Run == 0 || all[0].Authorities == nil {
		t.Fatalf("%+v", all)
	}
	second := f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "u"}})
	third := f.put(&role.Role{Name: "b"})
	if !f.Resumes(all[0].Run, first) || f.Resumes(all[0].Run+2, first) || f.Resumes(all[0].Run, 0) || f.Resumes(all[0].Run, third+1) {
		t.Fatal("who may go on")
	}
	rest := f.follow(first, third)
	if len(rest) != 2 || rest[0].Complete || rest[0].Revision != second || rest[1].Revision != third || rest[1].Put[0].Metadata.Name != "b" {
		t.Fatalf("%+v", rest)
	}
	// Mirrors that went either way have the same picture.
	one, other := snapshot.NewMirror(func() time.Duration { return 0 }), snapshot.NewMirror(func() time.Duration { return 0 })
	for _, c := range append(all, rest...) {
		one.Apply(c)
	}
	other.Apply(f.follow(0, third)[0])
	a, _ := one.Current()
	b, _ := other.Current()
	if len(a.Roles) != 2 || len(b.Roles) != 2 || a.Locks.Len() != 1 || b.Locks.Len() != 1 || a.Revision != b.Revision {
		t.Fatalf("%+v\n%+v", a, b)
	}
	if run, after := one.Resume(); run != all[0].Run || after != third {
		t.Fatal(run, after)
	}
	if run, after := snapshot.NewMirror(nil).Resume(); run != 0 || after != 0 {
		t.Fatal("a mirror that heard nothing goes on from somewhere")
	}
}

// TestForgotten is somebody who was away for longer than changes are remembered: they begin anew.
func TestForgotten(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "db"))
	first := f.put(&role.Role{Name: "a"})
	run := f.follow(0, first)[0].Run
	gone := f.put(&lock.Lock{Name: "gone", Target: lock.Target{User: "u"}})
	if _, err := f.store.Txn(t.Context(), []store.Op{records.Delete(manifest.Lock, "gone")}); err != nil {
		t.Fatal(err)
	}
	var last uint64
	for i := range remembered + 10 {
		last = f.put(&role.Role{Name: fmt.Sprint("r", i%7)})
	}
	if f.Resumes(run, first) || f.Resumes(run, gone) {
		t.Fatal("forgotten changes are resumed")
	}
	got := f.follow(first, last)
	if !got[0].Complete || len(got[0].Put) != 8 || slices.ContainsFunc(got[0].Put, func(r *manifest.Resource) bool { return r.Kind == manifest.Lock }) {
		t.Fatalf("%+v", got[0])
	}
	if n := len(f.changes); n > remembered {
		t.Fatalf("%d changes are kept", n)
	}
}

// TestFollowRace follows while changes come and holds that nothing is missed or told twice.
func TestFollowRace(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "db"))
	f.put(&role.Role{Name: "a"})
	const changes = 200
	done := make(chan map[string]bool, 4)
	for range 4 {
		go func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			seen, at := map[string]bool{}, uint64(0)
			_ = f.Follow(ctx, 0, func(c snapshot.Change) error {
				if c.Revision <= at && !c.Complete {
					t.Errorf("revision %d after %d", c.Revision, at)
				}
				at = c.Revision
				for _, r := range c.Put {
					seen[r.Metadata.Name] = true
				}
				if seen["last"] {
					cancel()
				}
				return nil
			})
			done <- seen
		}()
	}
	for i := range changes {
		f.put(&lock.Lock{Name: fmt.Sprint("l", i), Target: lock.Target{User: "u"}})
	}
	f.put(&role.Role{Name: "last"})
	for range 4 {
		if seen := <-done; len(seen) != changes+2 {
			t.Fatalf("%d of %d were seen", len(seen), changes+2)
		}
	}
}
