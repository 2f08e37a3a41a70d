package client

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/wire"
)

// pingEvery is how often a host asks whether its picture is current.
const pingEvery = 5 * time.Second

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
	raw, err := dialTCP(ctx, addr)
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
		return nil, unreachable(addr, err)
	}
	if !last.IsCA || last.Subject.CommonName == "" {
		return nil, fault.New(fault.Unavailable, "%s shows no authority", addr).WithReason("no_auth")
	}
	return last, nil
}

// HostRequest asks for a host's certificates.
type HostRequest struct {
	Token      string
	Role       identity.HostRole
	Name       string
	TLSKey     crypto.PublicKey
	SSHKey     ssh.PublicKey
	PublicAddr []string
}

// HostCertificates are what a host gets. Notice says why it has no name where it wanted one.
type HostCertificates struct {
	ID        string
	Name      string
	Notice    string
	TLS       []byte
	SSH       []byte
	Authority []byte
	Cluster   string
}

func (r HostRequest) keys() (tlsKey, sshKey []byte, err error) {
	if tlsKey, err = x509.MarshalPKIXPublicKey(r.TLSKey); err != nil {
		return nil, nil, err
	}
	if r.SSHKey != nil {
		sshKey = r.SSHKey.Marshal()
	}
	return tlsKey, sshKey, nil
}

// Join spends a join token.
func (c *Cluster) Join(ctx context.Context, r HostRequest) (HostCertificates, error) {
	tlsKey, sshKey, err := r.keys()
	if err != nil {
		return HostCertificates{}, err
	}
	res, err := c.member.Join(ctx, connect.NewRequest(&pb.JoinRequest{Token: r.Token, Role: string(r.Role), Name: r.Name, TlsKey: tlsKey, SshKey: sshKey,
		Version: cluster.Version, ProtocolVersion: cluster.ProtocolVersion, PublicAddr: r.PublicAddr}))
	if err != nil {
		return HostCertificates{}, err
	}
	return hostCertificates(res.Msg), nil
}

// Renew gets new certificates for the host that calls.
func (c *Cluster) Renew(ctx context.Context, r HostRequest) (HostCertificates, error) {
	tlsKey, sshKey, err := r.keys()
	if err != nil {
		return HostCertificates{}, err
	}
	res, err := c.member.Renew(ctx, connect.NewRequest(&pb.RenewRequest{TlsKey: tlsKey, SshKey: sshKey, Version: cluster.Version,
		ProtocolVersion: cluster.ProtocolVersion, PublicAddr: r.PublicAddr}))
	if err != nil {
		return HostCertificates{}, err
	}
	return hostCertificates(res.Msg), nil
}

func hostCertificates(m *pb.HostCertificates) HostCertificates {
	return HostCertificates{m.HostId, m.Name, m.Notice, m.Tls, m.Ssh, m.TlsHostAuthority, m.ClusterName}
}

// Ingest sends audit entries and returns the number that auth has.
func (c *Cluster) Ingest(ctx context.Context, entries []event.Entry) (uint64, error) {
	req := &pb.IngestEventsRequest{}
	for _, e := range entries {
		raw, err := json.Marshal(e)
		if err != nil {
			return 0, err
		}
		req.Entries = append(req.Entries, raw)
	}
	r, err := c.events.IngestEvents(ctx, connect.NewRequest(req))
	if err != nil {
		return 0, err
	}
	return r.Msg.Acknowledged, nil
}

// Follower keeps a mirror by the feed. Served is what the host serves; Heads takes each new list of audit heads.
type Follower struct {
	Mirror *snapshot.Mirror
	Served func() *identity.Server
	Every  time.Duration // how often Served is said again
	Heads  func([]byte)
}

// Follow runs the feed until it breaks or ctx ends. It begins with a complete picture: a mirror that was away starts
// from what is true.
func (c *Cluster) Follow(ctx context.Context, f Follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.feed.Follow(ctx)
	defer func() {
		_ = stream.CloseRequest()
		_ = stream.CloseResponse()
	}()
	pings := make(chan error, 1)
	go func() { pings <- f.ping(ctx, stream) }()
	for {
		m, err := stream.Receive()
		if err != nil {
			cancel()
			<-pings
			return FromRPC(err)
		}
		if err := f.apply(m); err != nil {
			cancel()
			<-pings
			return err
		}
	}
}

// ping sends the mirror's clock, which comes back as the echo, and what is served.
func (f Follower) ping(ctx context.Context, stream *connect.BidiStreamForClient[pb.FollowRequest, pb.FollowResponse]) error {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	said := time.Time{}
	for {
		m := &pb.FollowRequest{Ping: uint64(f.Mirror.Now()) + 1}
		if now := time.Now(); now.Sub(said) >= f.Every {
			res, err := wire.Resource(manifest.New(f.Served(), 0))
			if err != nil {
				return err
			}
			m.Served, said = []*pb.Resource{res}, now
		}
		if err := stream.Send(m); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (f Follower) apply(m *pb.FollowResponse) error {
	if len(m.Heads) > 0 && f.Heads != nil {
		f.Heads(m.Heads)
	}
	if m.Pong != 0 {
		f.Mirror.Confirm(time.Duration(m.Pong - 1))
		return nil
	}
	if !m.Complete && len(m.Put) == 0 && len(m.Removed) == 0 && m.Authorities == nil && len(m.Heads) > 0 {
		return nil
	}
	c := snapshot.Change{Revision: m.Revision, Complete: m.Complete}
	for _, r := range m.Put {
		res, err := manifest.Decode(r.Json)
		if err != nil {
			res = snapshot.Unreadable(manifest.Kind(r.Kind), r.Name)
		}
		c.Put = append(c.Put, res)
	}
	for _, r := range m.Removed {
		c.Removed = append(c.Removed, snapshot.Ref{Kind: manifest.Kind(r.Kind), Name: r.Name})
	}
	if m.Authorities != nil {
		a, err := authorities(m.Authorities)
		if err != nil {
			return err
		}
		c.Authorities = a
	}
	f.Mirror.Apply(c)
	return nil
}

func authorities(m *pb.Authorities) (*snapshot.Authorities, error) {
	out := &snapshot.Authorities{}
	for _, l := range []struct {
		raw [][]byte
		to  *[]ssh.PublicKey
	}{{m.SshUser, &out.SSHUser}, {m.SshHost, &out.SSHHost}} {
		for _, raw := range l.raw {
			k, err := ssh.ParsePublicKey(raw)
			if err != nil {
				return nil, fmt.Errorf("ssh authority: %w", err)
			}
			*l.to = append(*l.to, k)
		}
	}
	for _, raw := range m.TlsUser {
		c, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("tls authority: %w", err)
		}
		out.TLSUser = append(out.TLSUser, c)
	}
	for _, raw := range m.DialTicket {
		k, err := x509.ParsePKIXPublicKey(raw)
		key, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, errors.New("dial ticket authority is no Ed25519 key")
		}
		out.DialTicket = append(out.DialTicket, key)
	}
	return out, nil
}
