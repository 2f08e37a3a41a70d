package feed

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// TestA13OtherHosts: a node is told of itself, whatever comes or goes; a proxy of all.
func TestA13OtherHosts(t *testing.T) {
	c := snapshot.Change{Revision: 7, Put: []*manifest.Resource{manifest.New(&identity.Server{ID: "own", Role: identity.RoleNode}, 0),
		manifest.New(&identity.Server{ID: "other", Role: identity.RoleNode}, 0)},
		Removed: []snapshot.Ref{{Kind: manifest.Node, Name: "own"}, {Kind: manifest.Node, Name: "other"}, {Kind: manifest.Lock, Name: "l"}}}
	for role, want := range map[identity.HostRole][2]int{identity.RoleNode: {1, 2}, identity.RoleProxy: {2, 3}} {
		f := &follower{Handler: &Handler{Now: time.Now}, host: identity.Host{ID: "own", Role: role}}
		m, err := f.message(c)
		if err != nil || len(m.Put) != want[0] || len(m.Removed) != want[1] || m.Revision != 7 {
			t.Errorf("a %s: %d put, %d removed: %v", role, len(m.Put), len(m.Removed), err)
		}
	}
}
