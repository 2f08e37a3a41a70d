package feed

import (
	"testing"
	"time"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/snapshot"
	"google.golang.org/protobuf/proto"
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

// TestParts splits a complete picture so that each message fits, whatever is in it.
func TestParts(t *testing.T) {
	m := &pb.FollowResponse{Run: 3, Revision: 7, Complete: true, Authorities: &pb.Authorities{}}
	for range 30 {
		m.Put = append(m.Put, &pb.Resource{Json: make([]byte, 300<<10)})
	}
	got := parts(m)
	n := 0
	for i, p := range got {
		n += len(p.Put)
		if size := proto.Size(p); size > 2<<20 {
			t.Errorf("part %d has %d bytes", i, size)
		}
		if p.More != (i < len(got)-1) || !p.Complete || p.Run != 3 || p.Revision != 7 || (p.Authorities != nil) != (i == 0) {
			t.Errorf("part %d: more %v, complete %v, run %d, revision %d", i, p.More, p.Complete, p.Run, p.Revision)
		}
	}
	if n != 30 || len(got) < 5 {
		t.Fatalf("%d resources in %d parts", n, len(got))
	}
}

// TestA10ProxiesHearNoLogins: who logs in and whose session ended is none of a proxy's business.
func TestA10ProxiesHearNoLogins(t *testing.T) {
	login := &identity.Login{Credential: "c", Identity: identity.User{Name: "alice"}}
	c := snapshot.Change{Revision: 7, Put: []*manifest.Resource{manifest.New(login, 0), manifest.New(&live.End{Session: "s"}, 0)},
		Removed: []snapshot.Ref{{Kind: manifest.FollowedLogin, Name: "d"}, {Kind: manifest.SessionEnd, Name: "e"}}}
	for role, want := range map[identity.HostRole]int{identity.RoleNode: 2, identity.RoleProxy: 0} {
		f := &follower{Handler: &Handler{Now: time.Now}, host: identity.Host{ID: "own", Role: role}}
		if m, err := f.message(c); err != nil || len(m.Put) != want || len(m.Removed) != want {
			t.Errorf("a %s: %v %v", role, m, err)
		}
	}
}
