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
	if got := p.serving(identity.RoleDB, func(s string) bool { return s == "Old_DB" }); !slices.Equal(got, []string{"own"}) {
		t.Errorf("by its name: %v", got)
	}
}
