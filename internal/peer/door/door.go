// Package door is a database door as an agent has it, for tests: the real gate on a picture that the test makes, the real
// spool, and a listener in place of the proxy. No shipped binary links it.
package door

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/peer/authority"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

const host = "11111111-2222-4333-8444-555555555555"

// World is a door with what it stands on.
type World struct {
	Servers   *Servers
	AdminUser string // of the database
	t         testing.TB
	mirror    *snapshot.Mirror
	spool     *spool.Spool
	door      *database.Door
	ctx       context.Context
	running   sync.WaitGroup

	mu  sync.Mutex
	rev uint64 // guarded by mu
}

// Servers is the agent's side towards one server.
type Servers struct {
	Addr      string
	Authority *authority.Authority
	Passwords map[string]string // by database user; who has none shows a certificate

	mu    sync.Mutex
	certs map[string]tls.Certificate // guarded by mu
}

// Dial implements database.Servers.
func (s *Servers) Dial(ctx context.Context, _ *target.DatabaseServer) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", s.Addr)
}

// TLS implements database.Servers.
func (s *Servers) TLS(_ context.Context, _ *target.DatabaseServer, dbUser string) (*tls.Config, error) {
	c := &tls.Config{RootCAs: s.Authority.Pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if _, has := s.Passwords[dbUser]; has {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.certs == nil {
		s.certs = map[string]tls.Certificate{}
	}
	if _, has := s.certs[dbUser]; !has {
		s.certs[dbUser] = s.Authority.Client(dbUser)
	}
	c.Certificates = []tls.Certificate{s.certs[dbUser]}
	return c, nil
}

// Password implements database.Servers.
func (s *Servers) Password(_ *target.DatabaseServer, dbUser string) (string, bool, error) {
	p, has := s.Passwords[dbUser]
	return p, has, nil
}

// New opens a door with roles.
func New(t testing.TB, servers *Servers, engines map[target.Protocol]database.Engine, roles ...role.Role) *World {
	t.Helper()
	w := &World{Servers: servers, t: t, mirror: snapshot.NewMirror(func() time.Duration { return time.Duration(time.Now().UnixNano()) })}
	c := snapshot.Change{Complete: true, Revision: 1}
	for _, r := range roles {
		c.Put = append(c.Put, manifest.New(&r, 0))
	}
	s := cluster.Default()
	c.Put = append(c.Put, manifest.New(&s, 0))
	w.rev = 1
	w.mirror.Apply(c)
	w.mirror.Confirm(w.mirror.Now())
	var err error
	w.spool, err = spool.Open(spool.Config{Dir: t.TempDir(), Writer: host, Cluster: "example.com", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	g := gate.New(w.mirror, w.spool, identity.Host{ID: host, Role: identity.RoleDB, Name: "agent", Cluster: "example.com"}, time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	w.ctx = ctx
	w.running.Go(func() { g.Run(ctx) })
	w.running.Go(func() { w.hear(ctx) })
	t.Cleanup(func() {
		cancel()
		w.running.Wait()
		w.spool.Close()
	})
	w.door = database.New(database.Config{Gate: g, Servers: servers, Engines: engines})
	return w
}

func (w *World) hear(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		w.mirror.Confirm(w.mirror.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep disables the users on demand that were left enabled, as an agent does now and then.
func (w *World) Sweep(ctx context.Context, p target.Protocol, m database.Maker) ([]string, error) {
	v := w.Visit(nil, p)
	return w.door.Sweep(ctx, v.Database, m)
}

// Put changes the picture.
func (w *World) Put(specs ...any) {
	c := snapshot.Change{}
	for _, s := range specs {
		c.Put = append(c.Put, manifest.New(s, 0))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rev++
	c.Revision = w.rev
	w.mirror.Apply(c)
}

// Drop takes a resource out of the picture.
func (w *World) Drop(kind manifest.Kind, name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rev++
	w.mirror.Apply(snapshot.Change{Revision: w.rev, Removed: []snapshot.Ref{{Kind: kind, Name: name}}})
}

// Role lets its holders in as some database users to some databases.
func Role(name string, users, names []string) role.Role {
	return role.Role{Name: name, Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: users, DBNames: names}}
}

// User is somebody with a verified certificate.
func User(name string, roles ...string) *identity.User {
	now := time.Now()
	return &identity.User{Name: name, Cluster: "example.com", Kind: identity.Human, Roles: roles, KeyPolicy: identity.KeyAnywhere,
		Validity: identity.Validity{IssuedAt: now, Expires: now.Add(time.Hour)}}
}

// Visit is such a user's connection to a database.
func (w *World) Visit(who *identity.User, p target.Protocol) database.Visit {
	return database.Visit{User: who, From: netip.MustParseAddr("10.0.0.1"),
		Database: &target.DatabaseServer{Name: "orders", Protocol: p, Labels: map[string]string{"env": "test"}, URI: w.Servers.Addr, AdminUser: w.AdminUser}}
}

// Listen serves a user's connections on loopback, TLS ended, until the test is over; it gives the address.
func (w *World) Listen(who *identity.User, p target.Protocol) string {
	return w.serve(who, p, func(c net.Conn) net.Conn { return c })
}

// ListenTLS is Listen with TLS, by clients' certificates of the authority.
func (w *World) ListenTLS(who *identity.User, p target.Protocol, a *authority.Authority) string {
	conf := &tls.Config{Certificates: []tls.Certificate{a.Server()}, ClientCAs: a.Pool, ClientAuth: tls.RequireAndVerifyClientCert,
		SessionTicketsDisabled: true, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(s tls.ConnectionState) error {
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: a.Pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
			return err
		}}
	return w.serve(who, p, func(c net.Conn) net.Conn { return tls.Server(c, conf) })
}

func (w *World) serve(who *identity.User, p target.Protocol, wrap func(net.Conn) net.Conn) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(w.ctx)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { w.door.Serve(ctx, wrap(c), w.Visit(who, p)) })
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		cancel()
		serving.Wait()
	})
	return l.Addr().String()
}

// Serve carries one connection, and returns when it is over.
func (w *World) Serve(c net.Conn, who *identity.User, p target.Protocol) {
	w.door.Serve(w.ctx, c, w.Visit(who, p))
}

// Event is an audit event as it is on disk.
type Event map[string]any

// Events are those in the spool of some kinds, or all of them.
func (w *World) Events(kinds ...event.Kind) []Event {
	w.t.Helper()
	const mark = "everything before this is on the disk"
	if err := w.spool.Write(w.ctx, event.Event{Kind: event.Auth, Message: mark}); err != nil {
		w.t.Fatal(err)
	}
	entries, err := w.spool.Pending(1 << 20)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []Event
	for _, e := range entries {
		var ev Event
		if err := json.Unmarshal(e.Event, &ev); err != nil {
			w.t.Fatal(err)
		}
		if ev["message"] == mark {
			continue
		}
		for _, k := range kinds {
			if ev["event"] == string(k) {
				out = append(out, ev)
			}
		}
		if len(kinds) == 0 {
			out = append(out, ev)
		}
	}
	return out
}

// Queries are the statements on record, each as `user/database: text [parameters] !error`.
func (w *World) Queries() []string {
	w.t.Helper()
	var out []string
	for _, ev := range w.Events(event.DBSessionQuery) {
		s := str(ev["db_user"]) + "/" + str(ev["db_name"]) + ": " + str(ev["db_query"])
		if p, ok := ev["db_query_parameters"].([]any); ok {
			b, _ := json.Marshal(p)
			s += " " + string(b)
		}
		if ev["success"] != true {
			s += " !" + str(ev["message"])
		}
		out = append(out, s)
	}
	return out
}

func str(v any) string {
	s, _ := v.(string)
	return s
}
