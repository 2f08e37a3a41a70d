//go:build linux

package postgres

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/pgserver"
	"github.com/sallyport/sallyport/internal/role"
)

// startup is a startup packet of parameters.
func startup(pairs ...string) []byte {
	body := strings.Join(pairs, "\x00") + "\x00\x00"
	b := binary.BigEndian.AppendUint32(nil, uint32(8+len(body)))
	return append(binary.BigEndian.AppendUint32(b, 3<<16), body...)
}

// raw is a client that says bytes.
type raw struct {
	t testing.TB
	net.Conn
	*bufio.Reader
}

func (w *world) raw() *raw {
	w.t.Helper()
	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return &raw{w.t, c, bufio.NewReaderSize(c, 1<<16)}
}

func (r *raw) Read(b []byte) (int, error) { return r.Reader.Read(b) }

func (r *raw) says(b []byte) {
	r.t.Helper()
	if _, err := r.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

// hears reads messages up to one of a kind, or the end, and returns that one's body.
func (r *raw) hears(kind byte) ([]byte, error) {
	for {
		head := make([]byte, wire.HeadSize)
		if _, err := io.ReadFull(r, head); err != nil {
			return nil, err
		}
		k, n, _, err := wire.Head(head)
		if err != nil {
			return nil, err
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		if k == kind {
			return body, nil
		}
		if k == 'E' {
			e := wire.ParseError(body)
			return nil, &pgconn.PgError{Severity: e.Severity, Code: e.Code, Message: e.Message, Detail: e.Detail, Hint: e.Hint}
		}
	}
}

// begin is a raw client that was let in, and its key data.
func (w *world) begin(user, database string) (*raw, []byte) {
	w.t.Helper()
	r := w.raw()
	r.says(startup("user", user, "database", database))
	key, err := r.hears('K')
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := r.hears('Z'); err != nil {
		w.t.Fatal(err)
	}
	return r, key
}

// TestA61_Startup holds what a client may not begin with. Names are exact in case, and quoting is no part of them.
func TestA61_Startup(t *testing.T) {
	w := newWorld(t, access(), &role.Role{Name: "star", Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: []string{"copier"}, DBNames: []string{"*"}}})
	long := strings.Repeat("x", 70)
	for name, c := range map[string]struct {
		pairs []string
		code  string
		says  string
	}{
		"no user":              {[]string{"database", "orders"}, "08P01", "no database user"},
		"other case":           {[]string{"user", "Reader", "database", "orders"}, "28000", `grants database user "Reader"`},
		"database, other case": {[]string{"user", "reader", "database", "Orders"}, "28000", `in "Orders"`},
		"quoted":               {[]string{"user", `"reader"`, "database", "orders"}, "28000", `grants database user`},
		"space":                {[]string{"user", "reader ", "database", "orders"}, "28000", ""},
		"database not granted": {[]string{"user", "reader", "database", "postgres"}, "28000", ""},
		"default database":     {[]string{"user", "writer"}, "28000", `in "writer"`},
		"cut to another name":  {[]string{"user", "reader", "database", long}, "08P01", "too long"},
		"role":                 {[]string{"user", "reader", "database", "orders", "role", "boss"}, "28000", `"role" is refused`},
		"session":              {[]string{"user", "reader", "database", "orders", "Session_Authorization", "boss"}, "28000", "is refused"},
		"options, role":        {[]string{"user", "reader", "database", "orders", "options", "-c role=boss"}, "28000", "is refused"},
		"options, joined":      {[]string{"user", "reader", "database", "orders", "options", "-csession_authorization=boss"}, "28000", "is refused"},
		"options, long":        {[]string{"user", "reader", "database", "orders", "options", "--session-authorization=boss"}, "28000", "is refused"},
		"options, escaped":     {[]string{"user", "reader", "database", "orders", "options", `-c\ role=boss`}, "28000", "is refused"},
		"options, others":      {[]string{"user", "reader", "database", "orders", "options", "-e"}, "28000", "is refused"},
		"replication":          {[]string{"user", "copier", "replication", "true"}, "28000", "replication"},
		"replication, logical": {[]string{"user", "copier", "database", "orders", "replication", "database"}, "28000", "replication"},
		"replication, odd":     {[]string{"user", "copier", "replication", "maybe"}, "08P01", ""},
	} {
		r := w.raw()
		r.says(startup(c.pairs...))
		_, err := r.hears('Z')
		pg := pgError(t, err)
		if text := pg.Message + pg.Detail; pg.Code != c.code || pg.Severity != "FATAL" || !strings.Contains(text, c.says) {
			t.Errorf("%s: %s %s: %s", name, pg.Severity, pg.Code, text)
		}
	}
	for name, b := range map[string][]byte{"nonsense": []byte("GET / HTTP/1.1\r\n\r\n"), "endless": {0xff, 0xff, 0xff, 0xff, 0, 3, 0, 0},
		"encryption for ever": bytes.Repeat([]byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, 4)} {
		r := w.raw()
		r.says(b)
		all, _ := io.ReadAll(r)
		if !bytes.Contains(all, []byte("C08P01")) {
			t.Errorf("%s is answered %q", name, all)
		}
	}
	// What is passed on arrives, and GSS and SSL are answered first.
	r := w.raw()
	for _, code := range []byte{0x30, 0x2f} {
		r.says([]byte{0, 0, 0, 8, 4, 0xd2, 0x16, code})
		if b, err := r.ReadByte(); err != nil || b != 'N' {
			t.Fatal(b, err)
		}
	}
	r.says(startup("user", "reader", "database", "orders", "application_name", "me", "options", `-c search_path="a\ b" -c statement_timeout=5s`, "_pq_.x", "1"))
	if _, err := r.hears('v'); err != nil {
		t.Fatal(err)
	}
	if _, err := r.hears('Z'); err != nil {
		t.Fatal(err)
	}
	r.says(wire.AppendMessage(nil, 'Q', "SELECT current_setting('search_path') || current_setting('statement_timeout') || current_setting('application_name')\x00"))
	if row, err := r.hears('D'); err != nil || !strings.Contains(string(row), `"a b"5sme`) {
		t.Fatalf("%q %v", row, err)
	}
	refused := 0
	for _, ev := range w.events(event.Auth) {
		if ev.Session.Reason == "not_granted" {
			refused++
		}
	}
	if refused < 8 {
		t.Errorf("%d refusals are on record", refused)
	}
}

// TestA61_Replication works where it is granted to the letter.
func TestA61_Replication(t *testing.T) {
	w := newWorld(t, &role.Role{Name: "copies", Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: []string{"copier"}, DBNames: []string{"orders", "replication"}}})
	for _, pairs := range [][]string{{"user", "copier", "replication", "true"}, {"user", "copier", "database", "orders", "replication", "database"}} {
		r := w.raw()
		r.says(startup(pairs...))
		if _, err := r.hears('Z'); err != nil {
			t.Fatal(err)
		}
		r.says(wire.AppendMessage(nil, 'Q', "IDENTIFY_SYSTEM\x00"))
		if _, err := r.hears('D'); err != nil {
			t.Fatal(err)
		}
	}
	w.recorded("IDENTIFY_SYSTEM")
}

// TestA61_CancelKeys: the key that a client gets cancels its own statement, from a connection of its own person to its own
// database, and no other key does anything.
func TestA61_CancelKeys(t *testing.T) {
	w := newWorld(t)
	sleeper, key := w.begin("reader", "orders")
	sleeper.says(wire.AppendMessage(nil, 'Q', "SELECT pg_sleep(30)\x00"))
	for range 500 {
		if n, err := w.pg.Admin("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"); err != nil {
			t.Fatal(err)
		} else if n == "1" {
			break
		}
	}
	pid, err := w.pg.Admin("postgres", "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'")
	if err != nil || pid == "" {
		t.Fatal(pid, err)
	}
	if binary.BigEndian.Uint32(key) == 0 || len(key) != keySize {
		t.Fatalf("key %x", key)
	}
	w.engine.mu.Lock()
	r := w.engine.live[string(key)]
	w.engine.mu.Unlock()
	if r == nil || binary.BigEndian.Uint32(key) == r.server.PID || bytes.Equal(key[4:], r.server.Secret) {
		t.Fatal("the server's own key is the client's")
	}
	cancel := func(key []byte) {
		t.Helper()
		c := w.raw()
		c.says(wire.Cancel(binary.BigEndian.Uint32(key), key[4:]))
		if all, err := io.ReadAll(c); len(all) > 0 || err != nil {
			t.Errorf("a cancel was answered %q, %v", all, err)
		}
	}
	other := slices.Clone(key)
	other[7] ^= 1
	cancel(other)
	cancel(append(binary.BigEndian.AppendUint32(nil, r.server.PID), r.server.Secret...)) // the server's own
	alice := w.who
	for _, change := range []func(u *identity.User){func(u *identity.User) { u.Name = "mallory" }, func(u *identity.User) {
		u.Device = &identity.Device{ID: "d", CredentialID: "c"}
	}} {
		u := *alice
		change(&u)
		w.mu.Lock()
		w.who = &u
		w.mu.Unlock()
		cancel(key)
	}
	w.mu.Lock()
	w.who = alice
	here, elsewhere := w.db, *w.db
	elsewhere.Name = "another"
	w.db = &elsewhere
	w.mu.Unlock()
	cancel(key)
	w.mu.Lock()
	w.db = here
	w.mu.Unlock()
	if n, err := w.pg.Admin("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'"); err != nil || n != "1" {
		t.Fatalf("%s, %v: somebody else's cancel ended it", n, err)
	}
	began := time.Now()
	cancel(key)
	if _, err := sleeper.hears('C'); pgError(t, err).Code != "57014" || time.Since(began) > 5*time.Second {
		t.Fatal(err)
	}
	w.recorded("SELECT pg_sleep(30) => 57014")
}

// TestA61_SetSessionAuthorization is refused by its text, in every form of statement, and by what the server says where
// the text did not show it.
func TestA61_SetSessionAuthorization(t *testing.T) {
	w := newWorld(t)
	c := w.connect("boss", "orders")
	ctx := t.Context()
	for _, mode := range []pgx.QueryExecMode{pgx.QueryExecModeSimpleProtocol, pgx.QueryExecModeCacheStatement, pgx.QueryExecModeExec} {
		for _, sql := range []string{"SET SESSION AUTHORIZATION reader", "set session /* */ authorization 'reader'", "SELECT set_config('session_authorization', 'reader', false)"} {
			_, err := c.Exec(ctx, sql, mode)
			if pg := pgError(t, err); pg.Code != "42501" || pg.Severity != "ERROR" || !strings.Contains(pg.Message, "through Sallyport") || pg.Hint == "" {
				t.Fatalf("%s: %v", sql, err)
			}
			w.recorded(sql + " => refused: SET SESSION AUTHORIZATION")
		}
	}
	// A transaction in which it is refused is over, as after any error.
	if _, err := c.Exec(ctx, "BEGIN", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "SET SESSION AUTHORIZATION reader", pgx.QueryExecModeSimpleProtocol); err == nil {
		t.Fatal("taken")
	}
	if _, err := c.Exec(ctx, "SELECT 1", pgx.QueryExecModeSimpleProtocol); pgError(t, err).Code != "25P02" {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
	var who string
	if err := c.QueryRow(ctx, "SELECT session_user").Scan(&who); err != nil || who != "boss" {
		t.Fatal(who, err)
	}
	_, err := c.Exec(ctx, "SELECT set_config('session_' || 'authorization', 'reader', false)", pgx.QueryExecModeSimpleProtocol)
	if pg := pgError(t, err); pg.Severity != "FATAL" || !strings.Contains(pg.Message, `became database user "reader"`) {
		t.Fatal(err)
	}
	// A user who is none's superior is refused by the server too; SET ROLE is its own business.
	if _, err := w.connect("reader", "orders").Exec(ctx, "SET ROLE boss"); pgError(t, err).Code != "42501" {
		t.Fatal(err)
	}
}

// TestA62_Messages: lengths that overflow and messages without an end cost a connection and no memory.
func TestA62_Messages(t *testing.T) {
	w := newWorld(t)
	for name, b := range map[string][]byte{
		"negative":          {'Q', 0xff, 0xff, 0xff, 0xff},
		"too short":         {'Q', 0, 0, 0, 3},
		"statement of 1 GB": {'Q', 0x3f, 0xff, 0xff, 0xff},
		"close of 1 GB":     {'C', 0x3f, 0xff, 0xff, 0xff},
		"sync with a body":  {'S', 0, 1, 0, 4},
		"unknown kind":      {'?', 0, 0, 0, 4},
		"a password":        wire.AppendMessage(nil, 'p', "x\x00"),
		"query without NUL": wire.AppendMessage(nil, 'Q', "SELECT 1"),
		"bind of nothing":   wire.AppendMessage(nil, 'B', "\x00\x00\xff\xff"),
	} {
		r, _ := w.begin("reader", "orders")
		r.says(b)
		_, err := r.hears('Z')
		if pg := pgError(t, err); pg.Severity != "FATAL" || pg.Code != "08P01" && pg.Code != "57P01" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestA9_LiveConnections: a lock ends live connections within a second, with its words, whatever is under way.
func TestA9_LiveConnections(t *testing.T) {
	for name, busy := range map[string][]byte{
		"idle":      nil,
		"statement": wire.AppendMessage(nil, 'Q', "SELECT pg_sleep(60)\x00"),
		"result":    wire.AppendMessage(nil, 'Q', "SELECT repeat('x', 5000) FROM generate_series(1, 2000000)\x00"),
		"long rows": wire.AppendMessage(nil, 'Q', "SELECT repeat('x', 5000000) FROM generate_series(1, 2000000)\x00"),
		"copy out":  wire.AppendMessage(nil, 'Q', "COPY (SELECT repeat('x', 500) FROM generate_series(1, 2000000)) TO STDOUT\x00"),
		"copy in":   wire.AppendMessage(nil, 'Q', "COPY t FROM STDIN\x00"),
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r, _ := w.begin("writer", "orders")
			r.says(busy)
			ends := make(chan error, 1)
			flowing := make(chan struct{})
			go func() {
				if name == "result" || name == "long rows" || name == "copy out" {
					kind := byte('D')
					if name == "copy out" {
						kind = 'd'
					}
					if _, err := r.hears(kind); err != nil {
						ends <- err
						return
					}
				}
				if name == "copy in" {
					if _, err := r.hears('G'); err != nil {
						ends <- err
						return
					}
				}
				close(flowing)
				_, err := r.hears('Z')
				ends <- err
			}()
			<-flowing
			if name == "statement" {
				w.recordedActive("SELECT pg_sleep(60)", "1")
			}
			began := time.Now()
			w.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, Message: "ask the desk"})
			err := <-ends
			took := time.Since(began)
			if pg := pgError(t, err); pg.Severity != "FATAL" || pg.Code != "57P01" || !strings.Contains(pg.Message, "lock targeting") || !strings.Contains(pg.Detail, "ask the desk") {
				t.Fatal(err)
			}
			if took > time.Second {
				t.Errorf("after %s", took)
			}
			if busy != nil {
				sql := string(busy[5 : len(busy)-1])
				w.recorded(sql + " => the session ended before it was answered: lock targeting")
				w.recordedActive(sql, "0")
			}
			if _, err := w.try("writer", "orders"); pgError(t, err).Code != "28000" {
				t.Fatal(err)
			}
		})
	}
}

// recordedActive waits until so many are at a statement.
func (w *world) recordedActive(sql, want string) {
	w.t.Helper()
	got := ""
	for range 200 {
		var err error
		if got, err = w.pg.Admin("postgres", "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '"+strings.ReplaceAll(sql, "'", "''")+"'"); err != nil {
			w.t.Fatal(err)
		}
		if got == want {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	w.t.Fatalf("%s are at %s, want %s", got, sql, want)
}

// TestA9_StalledClient does not read: it is cut all the same, and holds nothing.
func TestA9_StalledClient(t *testing.T) {
	w := newWorld(t)
	r, _ := w.begin("writer", "orders")
	r.says(wire.AppendMessage(nil, 'Q', "SELECT repeat('x', 50000) FROM generate_series(1, 2000000)\x00"))
	for range 500 { // until nobody takes anything any more
		got, err := w.pg.Admin("postgres", "SELECT count(*) FROM pg_stat_activity WHERE usename = 'writer' AND wait_event = 'ClientWrite' AND query LIKE 'SELECT repeat%'")
		if err != nil {
			t.Fatal(err)
		}
		if got == "1" {
			break
		}
		<-time.After(20 * time.Millisecond)
	}
	began := time.Now()
	w.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}})
	for len(w.events(event.DBSessionEnd)) == 0 {
		if time.Since(began) > 5*time.Second {
			t.Fatal("a client that does not read keeps its session")
		}
	}
}

// TestA78_Secrets are on no record: not in statements, parameters, or what the server says of them.
func TestA78_Secrets(t *testing.T) {
	w := newWorld(t)
	c := w.connect("boss", "orders")
	ctx := t.Context()
	for _, sql := range []string{"ALTER ROLE stock PASSWORD 'hush-hush'", "ALTER ROLE stock PASSWORD hush_hush", "ALTER ROLE nosuch PASSWORD 'hush-hush'",
		"DO $$ BEGIN ALTER ROLE stock PASSWORD 'hush-hush'; END $$", "SELECT 1 AS password WHERE 'x' = 'hush-hush' -- "} {
		_, _ = c.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	}
	if _, err := c.Exec(ctx, "CREATE TEMP TABLE users (name text, password text)"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "INSERT INTO users (name, password) SELECT $1, x.p FROM (SELECT $2::text AS p) x", "bob", "in the open"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(ctx, "UPDATE users SET password = $1", "hush-hush"); err != nil {
		t.Fatal(err)
	}
	w.recorded("UPDATE users SET password = $1 ***")
	all := strings.Join(w.queries(), "\n")
	if strings.Count(all, "hush-hush") != 1 || strings.Contains(all, "hush_hush") || !strings.Contains(all, "ALTER ROLE stock PASSWORD '***'") { // the one that no rule knows for a secret
		t.Error(all)
	}
}

// TestFailedAudit: what cannot be written does not come back, and nothing more is taken.
func TestFailedAudit(t *testing.T) {
	w := newWorld(t)
	c := w.connect("reader", "orders")
	if _, err := c.Exec(t.Context(), "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	w.spool.Close()
	var n int
	err := c.QueryRow(context.Background(), "SELECT 42", pgx.QueryExecModeSimpleProtocol).Scan(&n)
	if pg := pgError(t, err); n != 0 || pg.Severity != "FATAL" || !strings.Contains(pg.Message, "audit log cannot be written") {
		t.Fatal(n, err)
	}
	if _, err := w.try("reader", "orders"); !strings.Contains(pgError(t, err).Message, "audit log cannot be written") {
		t.Fatal(err)
	}
}

// TestRecordedFirst reads the file beside the door: when a result is there, its statement is in it.
func TestRecordedFirst(t *testing.T) {
	w := newWorld(t)
	c := w.connect("reader", "orders")
	for i := range 50 {
		var n int
		if err := c.QueryRow(t.Context(), "SELECT $1::int + 100000", i).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := c.Query(t.Context(), "SELECT repeat('y', 1000) FROM generate_series(1, 100000)", pgx.QueryExecModeSimpleProtocol)
	if err != nil || !rows.Next() {
		t.Fatal(err, rows.Err())
	}
	found := false
	entries, _ := filepath.Glob(filepath.Join(w.spoolDir, "*.jsonl"))
	for _, f := range entries {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		found = found || bytes.Contains(b, []byte("SELECT repeat('y', 1000)"))
	}
	if !found {
		t.Error("a row came, and its statement is not in the file")
	}
	rows.Close()
}

// TestA63_AnotherDatabasesCertificate: a server takes certificates of its own authority alone, and an agent a server's.
func TestA63_AnotherDatabasesCertificate(t *testing.T) {
	w := newWorld(t)
	other, err := pgserver.Authority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := other.TLS("reader")
	if err != nil {
		t.Fatal(err)
	}
	ours, err := w.pg.TLS("reader")
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"another database's user":   {RootCAs: ours.RootCAs, ServerName: ours.ServerName, Certificates: theirs.Certificates},
		"another database's server": {RootCAs: theirs.RootCAs, ServerName: ours.ServerName, Certificates: ours.Certificates},
		"a server of another name":  {RootCAs: ours.RootCAs, ServerName: "other.example.com", Certificates: ours.Certificates},
		"no certificate":            {RootCAs: ours.RootCAs, ServerName: ours.ServerName},
	} {
		w.servers.config = config
		if _, err := w.try("reader", "orders"); pgError(t, err).Severity != "FATAL" {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.servers.config = ours
	if _, err := w.try("writer", "orders"); pgError(t, err).Code != "28000" { // a certificate names one user
		t.Fatal(err)
	}
	w.connect("reader", "orders")
}

// TestPgbench runs without an error, in every form of query.
func TestPgbench(t *testing.T) {
	w := newWorld(t)
	peer.Need(t, "pgbench")
	run := func(args ...string) {
		t.Helper()
		host, port, err := net.SplitHostPort(w.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command("pgbench", args...)
		c.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=boss", "PGDATABASE=orders", "PGSSLMODE=disable")
		out, err := c.CombinedOutput()
		if err != nil || bytes.Contains(out, []byte("ERROR")) || len(args) > 3 && !bytes.Contains(out, []byte("number of failed transactions: 0 ")) {
			t.Fatalf("%v: %s", err, out)
		}
	}
	run("-i", "-q")
	for _, mode := range []string{"simple", "extended", "prepared"} {
		run("-n", "-M", mode, "-c", "8", "-t", "25")
		run("-n", "-M", mode, "-c", "8", "-t", "100", "-S")
	}
	n := 0
	for _, q := range w.queries() {
		if strings.HasPrefix(q, "UPDATE pgbench_accounts") {
			n++
		}
	}
	if n != 3*8*25 {
		t.Errorf("%d updates are on record", n)
	}
}
