// Package postgres measures the database door at the agent itself: client, agent and server over TLS, the audit log on,
// beside pgbouncer, a relay that only copies, and the server without either.
package postgres

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	_ "net/http/pprof" // BENCH_PPROF names an address to profile at
	"net/netip"
	"os"
	"time"

	"github.com/sallyport/sallyport/bench/rig"
	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/database"
	engine "github.com/sallyport/sallyport/internal/database/postgres"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// Env tells a process of the bench's to be an agent or a relay: the place is in it, as JSON.
const Env = "BENCH_POSTGRES"

// place is where an agent or a relay stands.
type place struct {
	Copy   bool // only copies
	Listen string
	Server string
	Dir    string // of its audit log
	Files  files  // towards the server
	Front  files  // towards clients
}

type files struct{ Cert, Key, CA string }

// Serve is the process that Env asks for; it ends with its standard input.
func Serve() error {
	var p place
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &p); err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(p.Front.Cert, p.Front.Key)
	if err != nil {
		return err
	}
	front := &tls.Config{Certificates: []tls.Certificate{cert}, DynamicRecordSizingDisabled: true, SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}
	l, err := net.Listen("tcp", p.Listen)
	if err != nil {
		return err
	}
	handle := p.copies
	if !p.Copy {
		if handle, err = p.agent(); err != nil {
			return err
		}
	}
	if at := os.Getenv("BENCH_PPROF"); at != "" && !p.Copy {
		go func() { _ = http.ListenAndServe(at, nil) }() // for who looks
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if t, err := begin(c, front); err == nil {
				handle(t)
			}
		}()
	}
}

// begin answers a client's SSLRequest and lets it speak TLS.
func begin(c net.Conn, front *tls.Config) (net.Conn, error) {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	s, err := wire.ReadStartup(c)
	if err != nil || !s.Encryption {
		return nil, errors.Join(errors.New("no SSLRequest"), err)
	}
	if _, err := c.Write([]byte("S")); err != nil {
		return nil, err
	}
	t := tls.Server(c, front)
	if err := t.Handshake(); err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Time{})
	return t, nil
}

func (p *place) upstream() (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(p.Files.Cert, p.Files.Key)
	if err != nil {
		return nil, err
	}
	roots, err := pool(p.Files.CA)
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "db.example.com", DynamicRecordSizingDisabled: true}, err
}

// copies carries bytes both ways and looks at none.
func (p *place) copies(client net.Conn) {
	config, err := p.upstream()
	if err != nil {
		return
	}
	server, err := net.Dial("tcp", p.Server)
	if err != nil {
		return
	}
	defer server.Close()
	answer := make([]byte, 1)
	if _, err := server.Write(wire.SSLRequest()); err != nil {
		return
	}
	if _, err := server.Read(answer); err != nil || answer[0] != 'S' {
		return
	}
	rig.Join(client, tls.Client(server, config))
}

// servers reaches the one server, as the one user.
type servers struct {
	addr   string
	config *tls.Config
}

func (s servers) Dial(ctx context.Context, _ *target.DatabaseServer) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
}
func (s servers) TLS(context.Context, *target.DatabaseServer, string) (*tls.Config, error) {
	return s.config, nil
}
func (s servers) Password(*target.DatabaseServer, string) (string, bool, error) {
	return "", false, nil
}

// agent is a door with gate, picture and audit log, as an agent has them.
func (p *place) agent() (func(net.Conn), error) {
	began := time.Now()
	mirror := snapshot.NewMirror(func() time.Duration { return time.Since(began) })
	everything := label.Selector{"*": {"*"}}
	mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: []*manifest.Resource{
		manifest.New(&cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOff}}, 0),
		manifest.New(&role.Role{Name: "access", Allow: role.Conditions{DBLabels: everything, DBUsers: []string{"bench"}, DBNames: []string{"bench"}}}, 0)}})
	mirror.Confirm(mirror.Now())
	log, err := spool.Open(spool.Config{Dir: p.Dir, Writer: "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11", Cluster: "example.com", Now: time.Now, Max: 1 << 40})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	// Auth takes what is durable, as a cluster's would.
	go func() {
		_ = log.Run(ctx, func(_ context.Context, entries []event.Entry) (uint64, error) {
			return entries[len(entries)-1].Seq, nil
		})
	}()
	go func() {
		for ; ; time.Sleep(time.Second) {
			mirror.Confirm(mirror.Now())
		}
	}()
	g := gate.New(mirror, log, identity.Host{ID: "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11", Role: identity.RoleDB, Name: "db", Cluster: "example.com"}, time.Now)
	go g.Run(ctx)
	config, err := p.upstream()
	if err != nil {
		return nil, err
	}
	door := database.New(database.Config{Gate: g, Servers: servers{p.Server, config}, Engines: map[target.Protocol]database.Engine{target.PostgreSQL: engine.New()}})
	who := &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, Roles: []string{"access"}, KeyPolicy: identity.KeyAnywhere,
		Device:   &identity.Device{ID: "0f1e2d3c-0000-4000-8000-000000000001", AssetTag: "C00AA0AAAA0A", CredentialID: "0f1e2d3c-0000-4000-8000-000000000002", Level: device.LevelTPMTrusted, OS: device.Linux},
		Validity: identity.Validity{IssuedAt: began, Expires: began.Add(24 * time.Hour)}}
	db := &target.DatabaseServer{Name: "bench", Protocol: target.PostgreSQL, URI: p.Server}
	return func(c net.Conn) {
		door.Serve(ctx, c, database.Visit{User: who, From: netip.MustParseAddr("192.0.2.1"), Database: db})
	}, nil
}

func (p place) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%s=%s", Env, b)
}
