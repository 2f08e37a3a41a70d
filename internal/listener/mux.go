package listener

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// mux is the one connection of a login to a resource, made when it is first needed.
type mux struct {
	mu     sync.Mutex
	tunnel *tunnel.Tunnel // guarded by mu
	used   time.Time      // guarded by mu
	closed bool           // guarded by mu
}

func (m *mux) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	if m.tunnel != nil {
		m.tunnel.Close()
	}
}

// stream opens one stream to a door's resource with the login as it is now.
func (l *Listener) stream(ctx context.Context, s Spec) (net.Conn, error) {
	login, err := l.Login(s.Cluster)
	if err != nil {
		return nil, err
	}
	key := s.Cluster + "\x00" + login.ID + "\x00" + string(s.Role) + "\x00" + s.Resource
	l.mu.Lock()
	m := l.muxes[key]
	if m == nil {
		m = &mux{}
		l.muxes[key] = m
	}
	l.mu.Unlock()
	return m.open(ctx, s, login.Streams)
}

// open opens a stream; a connection that broke unnoticed is made once more.
func (m *mux) open(ctx context.Context, s Spec, dial func(context.Context, identity.HostRole, string) (*tunnel.Tunnel, error)) (net.Conn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	header := tunnel.Header{Client: netip.AddrPortFrom(netip.IPv6Loopback(), 0), Target: s.Resource, Door: tunnel.Door(s.Role), DBUser: s.DBUser}
	if m.closed {
		return nil, fault.New(fault.Unavailable, "the listener is stopping")
	}
	m.used = time.Now()
	if m.tunnel != nil {
		if c, err := m.tunnel.Open(ctx, header); err == nil {
			return c, nil
		}
		m.tunnel.Close()
		m.tunnel = nil
	}
	t, err := dial(ctx, s.Role, s.Resource)
	if err != nil {
		return nil, err
	}
	m.tunnel = t
	return t.Open(ctx, header)
}

// sweep closes connections that carry nothing: those of logins before, and what was not used for a while.
func (l *Listener) sweep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, m := range l.muxes {
		if !m.mu.TryLock() {
			continue // it is being used
		}
		if m.tunnel == nil || m.tunnel.Streams() == 0 && time.Since(m.used) > keepIdle {
			if m.tunnel != nil {
				m.tunnel.Close()
			}
			m.closed = true
			delete(l.muxes, key)
		}
		m.mu.Unlock()
	}
}

// keepIdle is how long a connection stays that carries no stream.
const keepIdle = 5 * time.Minute
