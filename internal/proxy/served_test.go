package proxy

import (
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

type fixed struct{ *snapshot.Picture }

func (f fixed) Current() (*snapshot.Picture, time.Duration) { return f.Picture, 0 }

func (f fixed) Changed() <-chan struct{} { return nil }

// TestA53ServedNames: who serves a resource that is called as another's label is not asked for that other, by no way in.
func TestA53ServedNames(t *testing.T) {
	label := target.SNIName("Old_DB")
	server := func(name string) *identity.Server {
		return &identity.Server{Role: identity.RoleDB, Serves: []target.Served{{Name: name}}}
	}
	p := &Proxy{Config: Config{Cluster: "example.com", Pictures: fixed{&snapshot.Picture{Servers: map[string]*identity.Server{"own": server("Old_DB"), "other": server(label)}}}}}
	p.tunnels.proxy = p
	p.tunnels.live = map[string]agent{"own": {tunnel: new(tunnel.Tunnel)}, "other": {tunnel: new(tunnel.Tunnel)}}
	if d := p.served(label + ".db.example.com"); d == nil || !slices.Equal(d.agents, []string{"own"}) {
		t.Errorf("by its label: %+v", d)
	}
	if got := p.connected(p.directory().byName[resource{identity.RoleDB, "Old_DB"}]); !slices.Equal(got, []string{"own"}) {
		t.Errorf("by its name: %v", got)
	}
}

// TestDirectoryFollows: the directory is made once for a roster, and is another's at once.
func TestDirectoryFollows(t *testing.T) {
	servers := func(id string) map[string]*identity.Server {
		return map[string]*identity.Server{id: {Role: identity.RoleKube, Serves: []target.Served{{Name: "dev"}, {Name: "dev"}}}, "node": {Role: identity.RoleNode, Serves: []target.Served{{Name: "dev"}}}}
	}
	p := &Proxy{Config: Config{Cluster: "example.com"}}
	p.tunnels.proxy = p
	p.tunnels.live = map[string]agent{"a": {tunnel: new(tunnel.Tunnel)}, "b": {tunnel: new(tunnel.Tunnel)}, "node": {tunnel: new(tunnel.Tunnel)}}
	of := func(pic *snapshot.Picture) []string {
		p.Pictures = fixed{pic}
		if d := p.served("dev.kube.example.com"); d != nil {
			return d.agents
		}
		return nil
	}
	first := &snapshot.Picture{Servers: servers("a")}
	if got := of(first); !slices.Equal(got, []string{"a"}) {
		t.Fatal(got)
	}
	made := p.directory()
	if of(&snapshot.Picture{Revision: 2, Servers: first.Servers}); p.directory() != made {
		t.Error("a roster that did not change is read again")
	}
	if got := of(&snapshot.Picture{Servers: servers("b")}); !slices.Equal(got, []string{"b"}) {
		t.Error(got)
	}
	if got := of(&snapshot.Picture{}); got != nil {
		t.Error(got)
	}
	delete(p.tunnels.live, "a")
	if got := of(first); got != nil {
		t.Errorf("%v is not connected", got)
	}
}
