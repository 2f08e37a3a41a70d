package rpc

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/handoff"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// handshakeTime bounds a TLS handshake on auth's own listener.
const handshakeTime = 10 * time.Second

// ServeLink answers auth's own listener until ctx ends: proxies' links, each stream in them one client connection, and
// the calls of hosts that are to become proxies.
func (s *Server) ServeLink(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	config := s.http.TLSConfig.Clone() // before net/http, which writes into it when it begins to serve
	config.NextProtos = []string{tunnel.ALPNTunnel, "h2"}
	streams, direct := handoff.New(l.Addr()), handoff.New(l.Addr())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer direct.Close()
	defer streams.Close()
	wg.Go(func() { _ = s.Serve(streams) })
	wg.Go(func() { _ = s.http.Serve(direct) })
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			s.log.Warn("accept failed", "err", err)
			time.Sleep(50 * time.Millisecond) // out of files: wait for some to be given back
			continue
		}
		wg.Go(func() { s.link(ctx, tls.Server(c, config), streams, direct) })
	}
}

func (s *Server) link(ctx context.Context, c *tls.Conn, streams, direct *handoff.Listener) {
	hctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := c.HandshakeContext(hctx); err != nil {
		s.log.Debug("link refused", "addr", c.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	if c.ConnectionState().NegotiatedProtocol != tunnel.ALPNTunnel {
		if !direct.Give(ctx, c) {
			c.Close()
		}
		return
	}
	defer c.Close()
	host, err := s.proxyHost(c.ConnectionState())
	if err != nil {
		s.log.Info("link refused", "addr", c.RemoteAddr(), "err", err)
		return
	}
	mux, err := tunnel.Server(c)
	if err != nil {
		return
	}
	defer mux.Close()
	s.log.Info("link open", "proxy", host.ID, "addr", c.RemoteAddr())
	go s.cutWhenRemoved(ctx, host.ID, mux)
	stop := context.AfterFunc(ctx, func() { mux.Close() })
	defer stop()
	_ = mux.Serve(func(st *tunnel.Stream) {
		if st.Header.Door != tunnel.DoorRPC {
			st.Close()
			return
		}
		if !st.Header.Client.IsValid() { // the proxy's own call
			st.Header.Client, _ = netip.ParseAddrPort(c.RemoteAddr().String())
		}
		if !streams.Give(ctx, st) {
			st.Close()
		}
	})
	s.log.Info("link closed", "proxy", host.ID)
}

// proxyHost takes the certificate of a proxy that was not removed.
func (s *Server) proxyHost(state tls.ConnectionState) (*identity.Host, error) {
	if len(state.VerifiedChains) == 0 || !state.VerifiedChains[0][len(state.VerifiedChains[0])-1].Equal(s.public.TLSHost) {
		return nil, errors.New("a link needs a host certificate")
	}
	host, err := identity.HostFromX509(state.PeerCertificates[0])
	if err != nil {
		return nil, err
	}
	if host.Role != identity.RoleProxy {
		return nil, errors.New("a link needs a proxy's certificate")
	}
	if picture, _ := s.use.Feed.Current(); picture.HostLocked(host.ID, s.now()) {
		return nil, errors.New("the proxy was removed")
	}
	return host, nil
}

func (s *Server) cutWhenRemoved(ctx context.Context, id string, mux *tunnel.Tunnel) {
	for {
		changed := s.use.Feed.Changed()
		if picture, _ := s.use.Feed.Current(); picture.HostLocked(id, s.now()) {
			mux.Close()
			return
		}
		select {
		case <-changed:
		case <-mux.Done():
			return
		case <-ctx.Done():
			return
		}
	}
}
