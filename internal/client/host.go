package client

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// over begins TLS to auth on a stream that leads there.
func (a Address) over(ctx context.Context, raw net.Conn, cert func() *tls.Certificate) (net.Conn, error) {
	conn := tls.Client(raw, a.config(identity.RoleAuth, []string{"h2"}, cert))
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, a.explain(err)
	}
	return conn, nil
}

// mux makes a tunnel to a host of a role, with a host certificate.
func (a Address) mux(ctx context.Context, role identity.HostRole, cert *tls.Certificate) (*tunnel.Tunnel, error) {
	conn, err := a.tls(ctx, wanted{role: role, alpn: []string{tunnel.ALPNTunnel}, cert: cert})
	if err != nil {
		return nil, err
	}
	t, err := tunnel.Client(conn)
	if err != nil {
		conn.Close()
	}
	return t, err
}

// Tunnel is an agent's connection to its proxy, over which the proxy opens streams.
func (a Address) Tunnel(ctx context.Context, cert *tls.Certificate) (*tunnel.Tunnel, error) {
	return a.mux(ctx, identity.RoleProxy, cert)
}

// Link is a proxy's connection to auth, over which it opens one stream for each client connection.
func (a Address) Link(ctx context.Context, cert *tls.Certificate) (*tunnel.Tunnel, error) {
	return a.mux(ctx, identity.RoleAuth, cert)
}
