package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/outbound"
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

// FirstAuth asks auth's own listener for the cluster's authority: the last certificate of the chain that it shows.
// One of the pins must match.
func FirstAuth(ctx context.Context, addr string, pins []string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := outbound.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	var last *x509.Certificate
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true, // judged by the pin
		VerifyConnection: func(s tls.ConnectionState) error {
			last = s.PeerCertificates[len(s.PeerCertificates)-1]
			return MatchPin(last, pins)
		}})
	if err := conn.HandshakeContext(ctx); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return nil, f
		}
		return nil, outbound.Unreachable(addr, err)
	}
	if !last.IsCA || last.Subject.CommonName == "" {
		return nil, fault.New(fault.Unavailable, "%s shows no authority", addr).WithReason("no_auth")
	}
	return last, nil
}
