// Package client is what tsh, tctl and hosts do with a cluster: reach it, call it, follow it.
package client

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/outbound"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// dialTime bounds reaching a server, TLS included.
const dialTime = outbound.Time

// Address is a way to a cluster, after the first contact: HOST:PORT of a proxy (or of auth itself) and the authority
// that every host certificate is verified against, and nothing else.
type Address struct {
	Addr      string
	Cluster   string
	Authority *x509.Certificate
}

// wanted is a TLS connection inside the cluster: to which role, by which protocol, with which client certificate.
type wanted struct {
	role identity.HostRole
	name string // of the resource that an agent of the role serves; empty where the role is the name
	alpn []string
	cert *tls.Certificate
}

// tls connects to a host of the cluster. The certificate must be by the cluster's authority, for the role's name, and
// of that role.
func (a Address) tls(ctx context.Context, w wanted) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	raw, err := outbound.Dial(ctx, a.Addr)
	if err != nil {
		return nil, err
	}
	var cert func() *tls.Certificate
	if w.cert != nil {
		cert = func() *tls.Certificate { return w.cert }
	}
	config := a.config(w.role, w.alpn, cert)
	if w.name != "" {
		config.ServerName = identity.Host{Role: w.role, Cluster: a.Cluster}.ServedDNSName(w.name)
	}
	conn := tls.Client(raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		if w.name != "" && strings.Contains(err.Error(), "unrecognized name") {
			return nil, fault.New(fault.Unavailable, "no agent that serves %q is connected", w.name).WithReason("not_served").WithFix("tsh %s ls   (shows what there is; an administrator sees the agents: tctl get node)", string(w.role))
		}
		return nil, a.explain(err)
	}
	if conn.ConnectionState().NegotiatedProtocol == "" {
		conn.Close()
		return nil, a.intercepted("the protocol (ALPN) was stripped from it")
	}
	return conn, nil
}

// config verifies a host by the cluster's authority alone: name, role and cluster. tsh keeps no TLS session, so there is
// no session cache.
func (a Address) config(role identity.HostRole, alpn []string, cert func() *tls.Certificate) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(a.Authority)
	c := &tls.Config{
		MinVersion: tls.VersionTLS13, RootCAs: roots, ServerName: string(role) + "." + a.Cluster, NextProtos: alpn,
		VerifyConnection: func(s tls.ConnectionState) error {
			h, err := identity.HostFromX509(s.PeerCertificates[0])
			if err != nil {
				return err
			}
			if h.Role != role || h.Cluster != a.Cluster {
				return fmt.Errorf("host %s of cluster %s is no %s", h.ID, h.Cluster, role)
			}
			return nil
		},
	}
	if cert != nil {
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert(), nil }
	}
	return c
}

func (a Address) intercepted(why string) error {
	host, _, _ := net.SplitHostPort(a.Addr)
	return fault.New(fault.Unavailable, "the connection to %s is being intercepted", host).WithReason("intercepted").
		WithCause("%s", why).WithFix("exempt %s from TLS inspection, or use another network", host)
}

// explain words a failed handshake: an interceptor, a clock that is off, or another cluster.
func (a Address) explain(err error) error {
	if own := (*fault.Error)(nil); errors.As(err, &own) {
		return own // this side's key could not sign, and says why
	}
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return ClockFault(invalid.Cert.NotBefore, invalid.Cert.NotAfter, time.Now())
	}
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	if errors.As(err, &unknown) || errors.As(err, &name) {
		return a.intercepted("its certificate is not by the authority of cluster " + a.Cluster)
	}
	if strings.Contains(err.Error(), "no application protocol") { // every hello from here offers one
		return a.intercepted("the protocol (ALPN) was stripped from it")
	}
	if strings.Contains(err.Error(), "unrecognized name") {
		return fault.New(fault.Unavailable, "%s does not serve cluster %s", a.Addr, a.Cluster).WithReason("other_cluster").Wrapping(err).
			WithFix("tsh login --proxy=HOST:PORT")
	}
	return outbound.Unreachable(a.Addr, err)
}

// ClockFault says by how much this clock is off, or that a certificate is over.
func ClockFault(notBefore, notAfter, now time.Time) error {
	f := fault.New(fault.Unauthenticated, "the server's certificate has expired").WithReason("certificate_time").
		WithCause("it ended %s ago by this clock", now.Sub(notAfter).Truncate(time.Second))
	if now.Before(notBefore) {
		f = fault.New(fault.Unauthenticated, "the server's certificate is not valid yet").WithReason("certificate_time").
			WithCause("by this clock it begins in %s: this clock is probably behind", notBefore.Sub(now).Truncate(time.Second))
	}
	return f.WithFix("check this machine's clock: date")
}

// Streams connects to an agent of a role that serves a resource, for many streams that each is admitted by itself.
func (a Address) Streams(ctx context.Context, role identity.HostRole, resource string, cert *tls.Certificate) (*tunnel.Tunnel, error) {
	conn, err := a.tls(ctx, wanted{role: role, name: resource, alpn: []string{tunnel.ALPNMux}, cert: cert})
	if err != nil {
		return nil, err
	}
	return tunnel.Client(conn)
}

// Stream opens a stream to a target's door through the proxy. The TLS ends at the proxy and protects the ticket; what
// runs inside the stream is between the ends.
func (a Address) Stream(ctx context.Context, d tunnel.Dial) (net.Conn, error) {
	conn, err := a.tls(ctx, wanted{role: identity.RoleProxy, alpn: []string{tunnel.ALPNDial}})
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(dialTime))
	var st tunnel.Status
	err = tunnel.WriteFrame(conn, d)
	if err == nil {
		err = tunnel.ReadFrame(conn, &st)
	}
	if err == nil {
		err = st.Err()
	} else {
		err = outbound.Unreachable(a.Addr, err)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, conn.SetDeadline(time.Time{})
}
