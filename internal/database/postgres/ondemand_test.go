//go:build linux

package postgres

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/database/postgres/upstream"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
)

func making(roles ...string) *role.Role {
	return &role.Role{Name: "making", Options: role.Options{CreateDBUserMode: role.DBUsersKeep},
		Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBNames: []string{"orders"}, DBRoles: roles}}
}

// user is what the server says of a database user: whether it may log in, and its roles.
func (w *world) user(name string) string {
	w.t.Helper()
	out, err := w.pg.Admin("postgres", "SELECT r.rolcanlogin, (SELECT string_agg(m.rolname, ',' ORDER BY m.rolname) FROM pg_auth_members x JOIN pg_roles m ON m.oid = x.roleid WHERE x.member = r.oid) FROM pg_roles r WHERE rolname = '"+name+"'")
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// as makes whoever connects next a user of another name.
func (w *world) as(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := *w.who
	u.Name = name
	w.who = &u
}

func (w *world) ended(n int) {
	w.t.Helper()
	for range 1000 {
		if len(w.events(event.DBSessionEnd)) >= n {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	w.t.Fatal("a session did not end")
}

func TestOnDemand(t *testing.T) {
	w := newWorld(t, making("sales", "stock"))
	ctx := t.Context()
	w.as("anna") // made here alone
	c := w.connect("anna", "orders")
	var n int
	if err := c.QueryRow(ctx, "SELECT count(*) FROM t").Scan(&n); err != nil || n != 1000 {
		t.Fatal(n, err)
	}
	if got := w.user("anna"); got != "t|sales,sallyport-on-demand,stock" {
		t.Fatal(got)
	}
	second := w.connect("anna", "orders")
	c.Close(ctx)
	w.ended(1)
	if got := w.user("anna"); got != "t|sales,sallyport-on-demand,stock" {
		t.Fatalf("with a session left: %s", got)
	}
	second.Close(ctx)
	w.ended(2)
	if got := w.user("anna"); got != "f|sallyport-on-demand" {
		t.Fatalf("after the last session: %s", got)
	}
	if _, err := w.try("alice2", "orders"); pgError(t, err).Code != "28000" {
		t.Fatal("another name is made")
	}
	// A session whose roles change is cut, and the next has the new ones.
	c = w.connect("anna", "orders")
	w.put(making("stock"))
	if _, err := c.Exec(ctx, "SELECT pg_sleep(5)"); !strings.Contains(pgError(t, err).Message, "have changed") {
		t.Fatal(err)
	}
	w.ended(3)
	c = w.connect("anna", "orders")
	if got := w.user("anna"); got != "t|sallyport-on-demand,stock" {
		t.Fatal(got)
	}
	c.Close(ctx)
	w.ended(4)
}

// TestOnDemandLeft: users whom a killed agent left enabled are disabled, those with sessions and those that somebody else made are not.
func TestOnDemandLeft(t *testing.T) {
	w := newWorld(t, making("sales"))
	ctx := t.Context()
	for i, name := range []string{"frida", "frieda"} { // made here alone
		w.as(name)
		c := w.connect(name, "orders")
		c.Close(ctx)
		w.ended(i + 1)
	}
	if left, err := w.door.Sweep(ctx, w.db, upstream.Maker{}); err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	other := newWorld(t, making("sales")) // another agent of the same server
	other.as("frieda")
	live := other.connect("frieda", "orders")
	if _, err := w.pg.Admin("postgres", `ALTER ROLE frida LOGIN; GRANT sales TO frida`); err != nil { // as she was when her agent was killed
		t.Fatal(err)
	}
	if left, err := w.door.Sweep(ctx, w.db, upstream.Maker{}); err != nil || !slices.Equal(left, []string{"frida"}) {
		t.Fatal(left, err)
	}
	for name, want := range map[string]string{"frida": "f|sallyport-on-demand", "frieda": "t|sales,sallyport-on-demand", "reader": "t|", "maker": w.user("maker")} {
		if got := w.user(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
	live.Close(ctx)
	other.ended(1)
	db := *w.db
	db.AdminUser = "nobody"
	if left, err := w.door.Sweep(ctx, &db, upstream.Maker{}); err == nil || len(left) > 0 {
		t.Error(left, err)
	}
}

// TestOnDemandOddRoles: what somebody granted a made user by hand is taken too, whatever it is called; a lock that is held is told.
func TestOnDemandOddRoles(t *testing.T) {
	w := newWorld(t, making("sales"))
	ctx := t.Context()
	w.as("greta")
	c := w.connect("greta", "orders")
	if _, err := w.pg.Admin("postgres", `CREATE ROLE "a,b ""c"; GRANT "a,b ""c" TO greta`); err != nil {
		t.Fatal(err)
	}
	c.Close(ctx)
	w.ended(1)
	if got := w.user("greta"); got != "f|sallyport-on-demand" {
		t.Fatal(got)
	}
	held := make(chan error, 1)
	go func() {
		_, err := w.pg.Admin("postgres", "SELECT pg_advisory_lock(hashtextextended('sallyport greta', 0)), pg_sleep(13)")
		held <- err
	}()
	for range 500 {
		if n, err := w.pg.Admin("postgres", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"); err != nil || n != "0" {
			break
		}
		<-time.After(10 * time.Millisecond)
	}
	if _, err := w.try("greta", "orders"); !strings.Contains(pgError(t, err).Message, "holds the lock") {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Fatal(err)
	}
}

// TestLetInThenMade: a session that was let in as a user of the server's own ends once its roles would have that user made.
func TestLetInThenMade(t *testing.T) {
	w := newWorld(t, access())
	w.as("reader")
	c := w.connect("reader", "orders")
	other := access()
	other.Options.CreateDBUserMode = role.DBUsersKeep
	other.Allow.DBUsers = nil
	w.put(other)
	if _, err := c.Exec(t.Context(), "SELECT pg_sleep(5)"); !strings.Contains(pgError(t, err).Message, "have changed") {
		t.Fatal(err)
	}
	w.ended(1)
}

// TestOnDemandRefusals: a user that is there already is nobody's to take over, and a role that cannot be granted leaves
// nothing.
func TestOnDemandRefusals(t *testing.T) {
	w := newWorld(t, making("sales"))
	w.as("alice2")
	_, err := w.try("alice2", "orders")
	if pg := pgError(t, err); !strings.Contains(pg.Message, "there already") || pg.Hint == "" {
		t.Fatal(err)
	}
	if got := w.user("alice2"); got != "t|" {
		t.Fatal(got)
	}
	w.as("bertha")
	w.put(making("no such role"))
	if _, err := w.try("bertha", "orders"); !strings.Contains(pgError(t, err).Message, `does not grant "no such role"`) {
		t.Fatal(err)
	}
	w.put(making("pg_signal_backend"), making())
	if got := w.user("bertha"); got != "" {
		t.Fatalf("a user that was refused is there: %s", got)
	}
	w.as("maker")
	if _, err := w.try("maker", "orders"); !strings.Contains(pgError(t, err).Message, "makes others") {
		t.Fatal(err)
	}
	w.as("bertha")
	db := *w.db
	db.AdminUser = ""
	w.mu.Lock()
	w.db = &db
	w.mu.Unlock()
	if _, err := w.try("bertha", "orders"); !strings.Contains(pgError(t, err).Detail, "no admin_user") {
		t.Fatal(err)
	}
}

// TestOnDemandAgents has two agents begin and end sessions of one user at once: whoever is let in can work, and after the
// last the user is disabled.
func TestOnDemandAgents(t *testing.T) {
	granted := making("sales")
	granted.Allow.DBNames = []string{"orders", "Orders"}
	a, b := newWorld(t, granted), newWorld(t, granted)
	a.as("clara")
	b.as("clara")
	var all sync.WaitGroup
	for w, name := range map[*world]string{a: "orders", b: "Orders"} {
		for range 3 {
			all.Go(func() {
				for range 5 {
					c, err := w.try("clara", name)
					if err != nil {
						t.Error(err)
						return
					}
					var roles int
					if err := c.QueryRow(t.Context(), "SELECT count(*) FROM pg_auth_members WHERE member = current_user::regrole").Scan(&roles); err != nil || roles != 2 {
						t.Error(roles, err)
					}
					c.Close(t.Context())
				}
			})
		}
	}
	all.Wait()
	a.ended(15)
	b.ended(15)
	if got := a.user("clara"); got != "f|sallyport-on-demand" {
		t.Fatal(got)
	}
}

// TestOnDemandTakesNobodyOver: a superuser counts as a member of every role, and who was granted a user that was made as one
// of its group. Sallyport made neither.
func TestOnDemandTakesNobodyOver(t *testing.T) {
	w := newWorld(t, making())
	db := *w.db
	db.AdminUser = "boss"
	w.mu.Lock()
	w.db = &db
	w.mu.Unlock()
	w.as("emma")
	w.connect("emma", "orders").Close(t.Context())
	w.ended(1)
	if _, err := w.pg.Admin("postgres", `CREATE ROLE chief LOGIN SUPERUSER; CREATE ROLE kin LOGIN; GRANT emma TO kin`); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"chief", "kin"} {
		w.as(name)
		c, err := w.try(name, "orders")
		if err == nil {
			c.Close(t.Context())
			t.Errorf("%s is taken over", name)
		} else if pg := pgError(t, err); !strings.Contains(pg.Message, "there already") {
			t.Error(err)
		}
	}
}

// TestStatementNames: PostgreSQL cuts names to 63 bytes, so that two names are one statement. What ran is on record.
func TestStatementNames(t *testing.T) {
	w := newWorld(t, access())
	r, _ := w.begin("reader", "orders")
	long := strings.Repeat("n", maxName)
	parse := func(name, text string) []byte {
		return wire.AppendMessage(nil, 'P', name, "\x00", text, "\x00\x00\x00")
	}
	r.says(slices.Concat(parse(long+"b", "SELECT 'innocent'"), wire.AppendMessage(nil, 'C', "S"+long+"a\x00"), parse(long+"a", "SELECT 'guilty'"),
		wire.AppendMessage(nil, 'B', "\x00", long+"b", "\x00\x00\x00\x00\x00\x00\x00"), wire.AppendMessage(nil, 'E', "\x00\x00\x00\x00\x00"), wire.AppendMessage(nil, 'S')))
	row, err := r.hears('D')
	if err != nil || !strings.Contains(string(row), "guilty") {
		t.Fatalf("%q %v", row, err)
	}
	if q := strings.Join(w.queries(), "\n"); !strings.Contains(q, "guilty") || strings.Contains(q, "innocent") {
		t.Fatalf("what ran is not on record:\n%s", q)
	}
}
