package proxy

import (
	"context"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// servedBy is which role serves what is reached as NAME.ROLE.CLUSTER, and by which door.
var servedBy = map[identity.HostRole]tunnel.Door{identity.RoleDB: tunnel.DoorDB, identity.RoleKube: tunnel.DoorKube}

// destination is a resource that agents serve: those that are connected.
type destination struct {
	door   tunnel.Door
	agents []string
}

// served finds the agents behind an SNI name, nil where it is no resource's or none of its agents is here.
func (p *Proxy) served(sni string) *destination {
	rest, ok := strings.CutSuffix(sni, "."+p.Cluster)
	if !ok {
		return nil
	}
	name, role, ok := strings.Cut(rest, ".")
	if !ok || servedBy[identity.HostRole(role)] == "" {
		return nil
	}
	d := &destination{door: servedBy[identity.HostRole(role)]}
	d.agents = p.connected(p.directory().byLabel[resource{identity.HostRole(role), name}])
	if len(d.agents) == 0 {
		return nil
	}
	return d
}

// resource is what agents serve: a role, and a name or, for what stands in SNI, its label.
type resource struct {
	role identity.HostRole
	name string
}

// directory is who says of itself that it serves what.
type directory struct {
	of      uintptr // the roster's, which pictures share as long as it does not change
	byName  map[resource][]string
	byLabel map[resource][]string
}

func newDirectory(servers map[string]*identity.Server) *directory {
	d := &directory{byName: map[resource][]string{}, byLabel: map[resource][]string{}}
	add := func(to map[resource][]string, r resource, id string) {
		if had := to[r]; !slices.Contains(had, id) {
			to[r] = append(had, id)
		}
	}
	for id, srv := range servers {
		if servedBy[srv.Role] == "" {
			continue
		}
		for _, s := range srv.Serves {
			add(d.byName, resource{srv.Role, s.Name}, id)
			add(d.byLabel, resource{srv.Role, target.SNIName(s.Name)}, id)
		}
	}
	return d
}

// phonebook keeps the directory that was made last: strangers' connections ask for it.
type phonebook struct {
	mu   sync.Mutex
	last *directory // guarded by mu; with servers, whose address says that it is of these
	kept map[string]*identity.Server
}

func (b *phonebook) of(servers map[string]*identity.Server) *directory {
	at := reflect.ValueOf(servers).Pointer()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.last == nil || b.last.of != at {
		b.last, b.kept = newDirectory(servers), servers
		b.last.of = at
	}
	return b.last
}

// directory is that of the current picture.
func (p *Proxy) directory() *directory {
	picture, _ := p.Pictures.Current()
	return p.phonebook.of(picture.Servers)
}

// connected are those of some agents whose tunnels are here.
func (p *Proxy) connected(agents []string) []string {
	var out []string
	for _, id := range agents {
		if p.tunnels.of(id) != nil {
			out = append(out, id)
		}
	}
	return out
}

// toAgent passes the connection untouched to one of a resource's agents, to the next where one does not answer.
func (p *Proxy) toAgent(ctx context.Context, c *peeked, d *destination, known func()) {
	rand.Shuffle(len(d.agents), func(i, j int) { d.agents[i], d.agents[j] = d.agents[j], d.agents[i] })
	for _, id := range d.agents {
		t := p.tunnels.of(id)
		if t == nil {
			continue
		}
		up, err := t.Open(ctx, tunnel.Header{Client: c.addr, Target: id, Door: d.door})
		if err != nil {
			p.Log.Debug("agent did not answer", "host", id, "err", err)
			continue
		}
		known()
		_ = c.SetDeadline(time.Time{})
		p.carry(ctx, c, up)
		return
	}
}
