package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// tunnels are the agents that dialed in.
type tunnels struct {
	proxy *Proxy

	mu   sync.Mutex
	live map[string]agent // guarded by mu; by host id
}

type agent struct {
	host   identity.Host
	tunnel *tunnel.Tunnel
}

// accept takes an agent's own connection: mutual TLS, its host certificate says which host it is.
func (t *tunnels) accept(ctx context.Context, c *peeked, known func()) {
	p := t.proxy
	config := p.server(tunnel.ALPNTunnel)
	config.ClientAuth = tls.RequireAndVerifyClientCert
	config.ClientCAs = x509.NewCertPool()
	config.ClientCAs.AddCert(p.TLSHost)
	conn := tls.Server(c, config)
	defer conn.Close()
	if err := conn.HandshakeContext(ctx); err != nil {
		p.Log.Info("tunnel refused", "addr", c.addr, "err", err)
		return
	}
	host, err := identity.HostFromX509(conn.ConnectionState().PeerCertificates[0])
	if err != nil || host.Cluster != p.Cluster || host.Role == identity.RoleAuth || host.Role == identity.RoleProxy {
		p.Log.Info("tunnel refused", "addr", c.addr, "err", err)
		return
	}
	if picture, _ := p.Pictures.Current(); picture.HostLocked(host.ID, p.Now()) {
		p.Log.Info("tunnel refused", "addr", c.addr, "host", host.ID, "reason", "host_removed")
		return
	}
	known()
	_ = c.SetDeadline(time.Time{})
	mux, err := tunnel.Server(conn)
	if err != nil {
		return
	}
	defer mux.Close()
	t.put(agent{*host, mux})
	defer t.drop(host.ID, mux)
	if picture, _ := p.Pictures.Current(); picture.HostLocked(host.ID, p.Now()) {
		return // removed since it was asked above: watch did not know the tunnel yet
	}
	p.Log.Info("tunnel open", "host", host.ID, "role", string(host.Role), "name", host.Name, "addr", c.addr)
	stop := context.AfterFunc(ctx, func() { mux.Close() })
	defer stop()
	// An agent opens no streams of its own.
	_ = mux.Serve(func(s *tunnel.Stream) { s.Close() })
	p.Log.Info("tunnel closed", "host", host.ID)
}

func (t *tunnels) put(a agent) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live == nil {
		t.live = map[string]agent{}
	}
	if old, ok := t.live[a.host.ID]; ok {
		old.tunnel.Close() // the host has a new connection; the old one is dead or about to be
	}
	t.live[a.host.ID] = a
}

func (t *tunnels) drop(id string, m *tunnel.Tunnel) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.live[id].tunnel == m {
		delete(t.live, id)
	}
}

// of is a host's tunnel, or nil.
func (t *tunnels) of(id string) *tunnel.Tunnel {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[id].tunnel
}

func (t *tunnels) host(id string) identity.Host {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.live[id].host
}

// named lists the live hosts whose certificate has a name, beside those that are known already.
func (t *tunnels) named(role identity.HostRole, name string, beside []string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for id, a := range t.live {
		if a.host.Role == role && a.host.Name == name && !slices.Contains(beside, id) {
			out = append(out, id)
		}
	}
	return out
}

// watch cuts the tunnels of hosts that are removed.
func (t *tunnels) watch(ctx context.Context) {
	for {
		changed := t.proxy.Pictures.Changed()
		picture, _ := t.proxy.Pictures.Current()
		t.mu.Lock()
		for id, a := range t.live {
			if picture.HostLocked(id, t.proxy.Now()) {
				a.tunnel.Close()
			}
		}
		t.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (t *tunnels) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.live {
		a.tunnel.Close()
	}
}
