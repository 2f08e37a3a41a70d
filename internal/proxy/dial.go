package proxy

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// doorRole is which hosts have a door.
var doorRole = map[tunnel.Door]identity.HostRole{tunnel.DoorSSH: identity.RoleNode}

// dial ends a client's TLS here, with server authentication alone, and gives it a stream to the target that it names.
func (p *Proxy) dial(ctx context.Context, c *peeked, known func()) {
	conn := tls.Server(c, p.server(tunnel.ALPNDial))
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		p.Log.Debug("dial refused", "addr", c.addr, "err", err)
		return
	}
	var req tunnel.Dial
	if err := tunnel.ReadFrame(conn, &req); err != nil {
		p.Log.Debug("dial refused", "addr", c.addr, "err", err)
		return
	}
	up, err := p.openDial(ctx, c, req)
	if werr := tunnel.WriteFrame(conn, tunnel.StatusOf(err)); werr != nil || err != nil {
		if up != nil {
			up.Close()
		}
		return
	}
	known()
	_ = c.SetDeadline(time.Time{})
	p.carry(ctx, conn, up)
}

// openTarget finds the target and opens a stream to it.
func (p *Proxy) openTarget(ctx context.Context, c *peeked, name string, door tunnel.Door) (net.Conn, error) {
	for role, served := range servedBy {
		if served == door {
			return p.openServed(ctx, c, role, name)
		}
	}
	role, ok := doorRole[door]
	if !ok {
		return nil, fault.New(fault.Unsupported, "no door %q on this proxy", string(door)).WithReason("unknown_door")
	}
	id, err := p.resolve(role, name)
	if err != nil {
		return nil, err
	}
	t := p.tunnels.of(id)
	if t == nil {
		return nil, offline(name)
	}
	up, err := t.Open(ctx, tunnel.Header{Client: c.addr, Target: id, Door: door})
	if err != nil {
		return nil, offline(name).Wrapping(err)
	}
	return up, nil
}

// openServed opens a stream to an agent that serves a resource.
func (p *Proxy) openServed(ctx context.Context, c *peeked, role identity.HostRole, name string) (net.Conn, error) {
	for _, id := range p.connected(p.directory().byName[resource{role, name}]) {
		if t := p.tunnels.of(id); t != nil {
			if up, err := t.Open(ctx, tunnel.Header{Client: c.addr, Target: id, Door: servedBy[role]}); err == nil {
				return up, nil
			}
		}
	}
	return nil, fault.New(fault.Unavailable, "no agent that serves %q is connected", name).WithReason("not_served").WithFix("tsh %s ls   (shows what there is; an administrator sees the agents: tctl get node)", string(role))
}

func offline(name string) *fault.Error {
	return fault.New(fault.Unavailable, "node %q is not connected", name).WithReason("node_offline").
		WithFix("tsh ls; on the node: systemctl status sallyport")
}

// openDial judges the ticket, then opens its target.
func (p *Proxy) openDial(ctx context.Context, c *peeked, req tunnel.Dial) (net.Conn, error) {
	picture, _ := p.Pictures.Current()
	t, err := p.ticket(picture, req.Ticket)
	if err != nil {
		return nil, fault.New(fault.Denied, "the dial ticket was not accepted").WithReason("bad_ticket").WithFix("tsh login").Wrapping(err)
	}
	if l, is := p.userLocked(picture, t.User); is {
		return nil, fault.New(fault.Denied, "lock targeting %s is in force", l.Target).WithReason("locked").
			WithFix("ask an administrator: tctl rm lock/%s", l.Name)
	}
	return p.openTarget(ctx, c, req.Target, req.Door)
}

func (p *Proxy) ticket(picture *snapshot.Picture, printed string) (identity.Ticket, error) {
	err := error(fault.New(fault.Unavailable, "no ticket authority yet"))
	for _, key := range picture.Authorities.DialTicket {
		var t identity.Ticket
		if t, err = identity.VerifyTicket(ed25519.PublicKey(key), printed, p.Now()); err == nil {
			return t, nil
		}
	}
	return identity.Ticket{}, err
}

// userLocked finds a lock on all that a user does.
func (p *Proxy) userLocked(picture *snapshot.Picture, user string) (lock.Lock, bool) {
	for l := range picture.Locks.Candidates(&identity.User{Name: user}, target.Target{}, target.Action{}) {
		if l.Target == (lock.Target{User: user}) && l.IssuedBefore.IsZero() && l.InForce(p.Now()) {
			return *l, true
		}
	}
	return lock.Lock{}, false
}

// resolve finds the id of the host that a person means: an id, or a name that one host has.
func (p *Proxy) resolve(role identity.HostRole, name string) (string, error) {
	picture, _ := p.Pictures.Current()
	if t := p.tunnels.of(name); t != nil {
		if host := p.tunnels.host(name); host.Role == role {
			return name, nil
		}
	}
	var live, known []string
	for id, srv := range picture.Servers {
		if srv.Role != role || (srv.Hostname != name && id != name) {
			continue
		}
		known = append(known, id)
		if p.tunnels.of(id) != nil {
			live = append(live, id)
		}
	}
	live = append(live, p.tunnels.named(role, name, live)...)
	switch {
	case len(live) == 1:
		return live[0], nil
	case len(live) > 1:
		slices.Sort(live)
		return "", fault.New(fault.Invalid, "several nodes are called %q", name).WithReason("ambiguous_node").
			WithCause("they are %s", strings.Join(live, ", ")).WithFix("use the id in place of the name")
	case len(known) > 0:
		return "", offline(name)
	}
	return "", fault.New(fault.NotFound, "node %q not found", name).WithReason("not_found").WithFix("tsh ls")
}
