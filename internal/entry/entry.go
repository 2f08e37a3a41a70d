// Package entry is where users' TLS ends at an agent: it learns whose certificate it is and which resource they want, and
// hands each connection to the resource's door.
//
// A client speaks the resource's own protocol inside TLS, or offers ALPN sallyport-mux and opens many streams inside one
// connection. See docs/protocol/port.md.
package entry

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/turnstile"
)

// Before it is known who somebody is: how long that may take, how much they may send, and how many of one address may be
// there at once and wait.
const (
	handshakeTime  = 10 * time.Second
	handshakeBytes = 64 << 10
	halfOpen       = 20
	queued         = 200
)

// maxStreams is how many streams one connection may have open.
const maxStreams = 1000

// Pictures gives the current picture, with the authorities that users are known by.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
}

// Visit is a connection of a user to a resource, its TLS ended. Conn is the receiver's to close.
type Visit struct {
	Conn     net.Conn
	User     *identity.User
	From     netip.Addr
	Resource string
	DBUser   string // whom the client means where its protocol does not say
}

// Config is what an entry works with. Certificate has the names of what is served; Resource finds the resource of an SNI
// name; Protocols are the ALPN names that its clients may offer beside sallyport-mux; Handle serves a visit and returns
// once nothing of it is left.
type Config struct {
	Cluster     string
	Pictures    Pictures
	Certificate func() *tls.Certificate
	Resource    func(sni string) (name string, ok bool)
	Protocols   []string
	Handle      func(context.Context, Visit)
	Log         *slog.Logger
	Now         func() time.Time
}

// Entry serves connections.
type Entry struct {
	Config
	half *turnstile.Turnstile
}

// New makes an entry; a config with something missing is an error.
func New(c Config) (*Entry, error) {
	if c.Cluster == "" || c.Pictures == nil || c.Certificate == nil || c.Resource == nil || c.Handle == nil || c.Log == nil || c.Now == nil {
		return nil, errors.New("an entry with something missing")
	}
	return &Entry{c, turnstile.New(turnstile.Config{AtOnce: halfOpen, Waiting: queued, Wait: handshakeTime})}, nil
}

// Serve serves one connection of a client, whose address RemoteAddr says, and closes it. It returns once nothing of it is
// left; when ctx ends the connection is cut.
func (e *Entry) Serve(ctx context.Context, raw net.Conn) {
	defer raw.Close()
	var from netip.AddrPort
	if a, ok := raw.RemoteAddr().(*net.TCPAddr); ok {
		from = a.AddrPort()
	}
	known := e.half.Enter(ctx, from.Addr().Unmap())
	if known == nil {
		return
	}
	bounded := turnstile.Bound(raw, handshakeBytes)
	_ = raw.SetDeadline(time.Now().Add(handshakeTime))
	conn := tls.Server(bounded, e.config())
	user, name, err := e.identify(ctx, conn)
	known()
	if err != nil {
		e.Log.Debug("connection refused", "addr", from, "err", err)
		return
	}
	bounded.LetThrough()
	_ = raw.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, func() { raw.Close() }) })
	defer stop()
	v := Visit{Conn: conn, User: user, From: from.Addr().Unmap(), Resource: name}
	if conn.ConnectionState().NegotiatedProtocol == tunnel.ALPNMux {
		e.streams(ctx, v)
		return
	}
	e.Handle(ctx, v)
}

// drain is how long doors have, when the agent stops, to tell their clients so.
const drain = 500 * time.Millisecond

// config ends TLS 1.3 with a client certificate of the cluster's users; there are no session tickets, for a copied one
// would let somebody in without any key.
func (e *Entry) config() *tls.Config {
	picture, _ := e.Pictures.Current()
	users := x509.NewCertPool()
	for _, c := range picture.Authorities.TLSUser {
		users.AddCert(c)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, DynamicRecordSizingDisabled: true, NextProtos: append(slices.Clone(e.Protocols), tunnel.ALPNMux), SessionTicketsDisabled: true,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: users, Time: e.Now,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := e.Certificate(); c != nil {
				return c, nil
			}
			return nil, errors.New("no certificate yet")
		},
	}
}

// identify shakes hands and reads who and where.
func (e *Entry) identify(ctx context.Context, conn *tls.Conn) (*identity.User, string, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, "", err
	}
	s := conn.ConnectionState()
	if len(s.VerifiedChains) == 0 || len(s.VerifiedChains[0]) != 2 {
		return nil, "", errors.New("a certificate chain of another shape")
	}
	user, err := identity.FromX509(s.PeerCertificates[0])
	if err != nil {
		return nil, "", err
	}
	if user.Cluster != e.Cluster {
		return nil, "", errors.New("a user of another cluster")
	}
	name, ok := e.Resource(s.ServerName)
	if !ok {
		return nil, "", fault.New(fault.NotFound, "no resource is called %q here", s.ServerName)
	}
	return user, name, nil
}

// streams serves each stream of one connection by itself; the gate lets each in on its own.
func (e *Entry) streams(ctx context.Context, v Visit) {
	mux, err := tunnel.Server(v.Conn)
	if err != nil {
		return
	}
	defer mux.Close()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, func() { mux.Close() }) })
	defer stop()
	var mu sync.Mutex
	open := 0
	_ = mux.Serve(func(s *tunnel.Stream) {
		mu.Lock()
		full := open >= maxStreams
		open++
		mu.Unlock()
		defer func() { mu.Lock(); open--; mu.Unlock() }()
		if full {
			s.Close()
			return
		}
		one := v
		one.Conn, one.DBUser = s, s.Header.DBUser
		e.Handle(ctx, one)
	})
}
