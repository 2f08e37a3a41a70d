package proxy

import (
	"context"
	"math/rand/v2"
	"strings"
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
	d.agents = p.serving(identity.HostRole(role), func(s string) bool { return target.SNIName(s) == name })
	if len(d.agents) == 0 {
		return nil
	}
	return d
}

// serving lists the connected agents that say they serve a resource.
func (p *Proxy) serving(role identity.HostRole, is func(name string) bool) []string {
	picture, _ := p.Pictures.Current()
	var out []string
	for id, srv := range picture.Servers {
		if srv.Role != role || p.tunnels.of(id) == nil {
			continue
		}
		for _, s := range srv.Serves {
			if is(s.Name) {
				out = append(out, id)
				break
			}
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
