package world_test

import (
	"testing"

	"github.com/sallyport/sallyport/internal/client/census"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/world"
)

// TestSessionsOfARemovedHost are listed no more, and no lock claims to cut them.
func TestSessionsOfARemovedHost(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	carry(t, w.Login("alice"))
	(&here{World: w, t: t, user: "alice"}).told()
	all := census.New(w.Admin)
	list, err := all.List(t.Context())
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	other := newHost(t, w)
	if err := other.join(other.token("", "node"), "db1"); err != nil {
		t.Fatal(err)
	}
	stolen := list[0]
	stolen.ID = "11111111-2222-3333-4444-555555555555"
	other.tell(stolen)
	preview := func(want int) {
		t.Helper()
		if _, n, err := all.Preview(t.Context(), &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}); err != nil || n != want {
			t.Fatalf("%d sessions would be cut, want %d: %v", n, want, err)
		}
	}
	preview(2)
	if _, err := w.Admin.Delete(t.Context(), manifest.Node, other.ID); err != nil {
		t.Fatal(err)
	}
	if list, err = all.List(t.Context()); err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	preview(1)
	if _, err := all.End(t.Context(), stolen.ID, ""); err == nil {
		t.Fatal("a session of a host that is gone was ended")
	}
}
