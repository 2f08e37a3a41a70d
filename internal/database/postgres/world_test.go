//go:build linux

package postgres

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/pgserver"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

const agentID = "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11"

// shared is the one server of this package's tests.
var shared struct {
	sync.Once
	*pgserver.Server
	err error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.Server != nil {
		shared.Server.Stop()
	}
	os.Exit(code)
}

const schema = `
CREATE ROLE reader LOGIN PASSWORD 'reader-pass'; CREATE ROLE writer LOGIN; CREATE ROLE "Reader" LOGIN; CREATE ROLE boss LOGIN SUPERUSER;
CREATE ROLE copier LOGIN REPLICATION; CREATE ROLE maker LOGIN CREATEROLE; CREATE ROLE sales NOLOGIN; CREATE ROLE stock NOLOGIN; CREATE ROLE alice2 LOGIN;
CREATE DATABASE orders; CREATE DATABASE scram; CREATE DATABASE "Orders";
\c orders
CREATE TABLE t (id int, name text); INSERT INTO t SELECT g, 'name ' || g FROM generate_series(1, 1000) g;
GRANT ALL ON t TO reader, writer, sales; GRANT ALL ON SCHEMA public TO reader, writer;
CREATE EXTENSION IF NOT EXISTS plpgsql;
`

func server(t testing.TB) *pgserver.Server {
	t.Helper()
	peer.Need(t, "psql")
	if _, err := pgserver.Bin("postgres"); err != nil {
		peer.Absent(t, err.Error())
	}
	shared.Do(func() {
		if shared.Server, shared.err = pgserver.Start(); shared.err == nil {
			_, shared.err = shared.Server.Admin("postgres", schema)
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.Server
}

// servers reaches the server, by certificate, or by password where there is one for the user.
type servers struct {
	*pgserver.Server
	passwords map[string]string
	config    *tls.Config // in place of the right one
}

func (s *servers) Dial(ctx context.Context, db *target.DatabaseServer) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", db.URI)
}

func (s *servers) TLS(_ context.Context, db *target.DatabaseServer, user string) (*tls.Config, error) {
	if s.config != nil {
		return s.config, nil
	}
	if _, has, _ := s.Password(db, user); has {
		return s.Server.TLS("")
	}
	return s.Server.TLS(user)
}

func (s *servers) Password(_ *target.DatabaseServer, user string) (string, bool, error) {
	p, has := s.passwords[user]
	return p, has, nil
}

// world is a door with a real gate and a real spool before the real server. Whoever connects is the user of the moment.
type world struct {
	t        testing.TB
	pg       *pgserver.Server
	mirror   *snapshot.Mirror
	spool    *spool.Spool
	engine   *Engine
	door     *database.Door
	db       *target.DatabaseServer
	servers  *servers
	addr     string
	spoolDir string

	mu       sync.Mutex
	who      *identity.User
	revision uint64
	seen     []event.Event // guarded by mu
}

func access() *role.Role {
	return &role.Role{Name: "access", Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: []string{"reader", "writer", "boss", "copier"},
		DBNames: []string{"orders", "scram", "reader"}}}
}

func newWorld(t testing.TB, roles ...*role.Role) *world {
	t.Helper()
	w := &world{t: t, pg: server(t), engine: New()}
	w.servers = &servers{Server: w.pg}
	began := time.Now()
	w.mirror = snapshot.NewMirror(func() time.Duration { return time.Since(began) })
	if len(roles) == 0 {
		roles = []*role.Role{access()}
	}
	c := snapshot.Change{Complete: true, Put: []*manifest.Resource{manifest.New(&cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOff}}, 0)}}
	w.who = &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, KeyPolicy: identity.KeyAnywhere,
		Validity: identity.Validity{IssuedAt: began, Expires: began.Add(time.Hour)}}
	for _, r := range roles {
		c.Put = append(c.Put, manifest.New(r, 0))
		w.who.Roles = append(w.who.Roles, r.Name)
	}
	w.apply(c)
	w.mirror.Confirm(w.mirror.Now())
	w.spoolDir = t.TempDir()
	var err error
	if w.spool, err = spool.Open(spool.Config{Dir: w.spoolDir, Writer: agentID, Cluster: "example.com", Now: time.Now}); err != nil {
		t.Fatal(err)
	}
	w.db = &target.DatabaseServer{Name: "pg", Protocol: target.PostgreSQL, URI: w.pg.Addr, AdminUser: "maker"}
	g := gate.New(w.mirror, w.spool, identity.Host{ID: agentID, Role: identity.RoleDB, Name: "db", Cluster: "example.com"}, time.Now)
	w.door = database.New(database.Config{Gate: g, Servers: w.servers, Engines: map[target.Protocol]database.Engine{target.PostgreSQL: w.engine}})
	w.start(g)
	return w
}

// start listens in clear, as the listener does on the user's machine, and checks at the end that nothing is left.
func (w *world) start(g *gate.Gate) {
	before := runtime.NumGoroutine()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { g.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			w.mu.Lock()
			v := database.Visit{User: w.who, From: netip.MustParseAddr("192.0.2.1"), Database: w.db}
			w.mu.Unlock()
			running.Go(func() { w.door.Serve(ctx, conn, v) })
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		cancel()
		running.Wait()
		w.spool.Close()
		for range 100 {
			if runtime.NumGoroutine() <= before+2 {
				return
			}
			runtime.Gosched()
			<-time.After(10 * time.Millisecond)
		}
		buf := make([]byte, 1<<20)
		w.t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
	})
}

func (w *world) apply(c snapshot.Change) {
	w.revision++
	c.Revision = w.revision
	w.mirror.Apply(c)
	w.mirror.Confirm(w.mirror.Now())
}

func (w *world) put(specs ...any) {
	var c snapshot.Change
	for _, s := range specs {
		c.Put = append(c.Put, manifest.New(s, 0))
	}
	w.apply(c)
}

func (w *world) url(user, dbName string) string {
	return fmt.Sprintf("postgres://%s@%s/%s?sslmode=disable", user, w.addr, dbName)
}

func (w *world) try(user, dbName string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return pgx.Connect(ctx, w.url(user, dbName))
}

func (w *world) connect(user, dbName string) *pgx.Conn {
	w.t.Helper()
	c, err := w.try(user, dbName)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close(context.Background()) })
	return c
}

func (w *world) psql(user, dbName, sql string, args ...string) (string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := exec.CommandContext(ctx, "psql", append([]string{"-XAtq", "-d", w.url(user, dbName)}, args...)...)
	c.Stdin = strings.NewReader(sql)
	out, err := c.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// events are all that is written of some kinds.
func (w *world) events(kinds ...event.Kind) []event.Event {
	w.t.Helper()
	if err := w.spool.Write(context.Background(), event.Event{Kind: event.Auth, User: "mark"}); err != nil {
		w.t.Fatal(err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		entries, err := w.spool.Pending(1 << 20)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, e := range entries {
			ev, err := event.Parse(e.Event)
			if err != nil {
				w.t.Fatal(err)
			}
			w.seen = append(w.seen, ev)
			if err := w.spool.Ack(e.Seq); err != nil {
				w.t.Fatal(err)
			}
		}
		if len(entries) == 0 {
			break
		}
	}
	var out []event.Event
	for _, ev := range w.seen {
		if slices.Contains(kinds, ev.Kind) && ev.User != "mark" {
			out = append(out, ev)
		}
	}
	return out
}

// queries are the statements on record, a failed one with its message.
func (w *world) queries() []string {
	w.t.Helper()
	var out []string
	for _, ev := range w.events(event.DBSessionQuery) {
		s := ev.Query
		if len(ev.Parameters) > 0 {
			s += " " + strings.Join(ev.Parameters, "|")
		}
		if !ev.Success {
			s += " => " + ev.Message
		}
		out = append(out, s)
	}
	return out
}

// recorded waits until a statement that has the text is on record.
func (w *world) recorded(part string) string {
	w.t.Helper()
	for range 500 {
		for _, q := range w.queries() {
			if strings.Contains(q, part) {
				return q
			}
		}
		<-time.After(10 * time.Millisecond)
	}
	w.t.Fatalf("%q is not on record: %q", part, w.queries())
	return ""
}
