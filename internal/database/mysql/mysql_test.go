package mysql

import (
	"bytes"
	"database/sql"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/door"
	"github.com/sallyport/sallyport/internal/peer/mariadb"
	"github.com/sallyport/sallyport/internal/target"
)

const schema = `create database orders; create database secrets; create table orders.t (id int primary key auto_increment, name varchar(200), at datetime(6) null);
insert into orders.t (name) values ('one'),('two'),('three'); create table secrets.t (id int); insert into secrets.t values (42);
create user alice@'%' require subject '/CN=alice'; grant all on orders.* to alice@'%'; grant all on secrets.* to alice@'%';
create user bob@'%' require x509; grant all on *.* to bob@'%' with grant option;
create user carol@'%' identified by 'carol''s own'; grant all on orders.* to carol@'%';
create procedure orders.two() begin select 1; select 2; end;`

// world is a server with the door in front of it.
func world(t *testing.T, options ...string) (*door.World, *mariadb.Server) {
	t.Helper()
	leaks(t)
	s := mariadb.Start(t, options...)
	s.Exec(t, strings.ReplaceAll(schema, "create procedure", "delimiter //\ncreate procedure")+"//\n")
	servers := &door.Servers{Addr: s.Addr, Authority: s.Authority, Passwords: map[string]string{"carol": "carol's own", "ed": "Ed's", "sha": "x"}}
	return door.New(t, servers, map[target.Protocol]database.Engine{target.MySQL: Engine{}},
		door.Role("orders", []string{"alice", "bob", "carol", "ed"}, []string{"orders", "mysqlslap"}),
		door.Role("root", []string{"root"}, []string{"*"})), s
}

// leaks fails a test that leaves goroutines behind.
func leaks(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
			if time.Now().After(end) {
				buf := make([]byte, 1<<20)
				t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			}
		}
	})
}

// cli runs the mysql client at an address.
func cli(t *testing.T, addr, user, db, statements string, options ...string) (string, error) {
	t.Helper()
	host, port, _ := net.SplitHostPort(addr)
	args := append([]string{"--no-defaults", "-h", host, "-P", port, "-u", user, "-N", "--skip-ssl", "--connect-timeout=20"}, options...)
	cmd := exec.Command("mysql", append(args, db)...)
	cmd.Stdin = strings.NewReader(statements)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}

func open(t *testing.T, addr, user, db, options string) *sql.DB {
	t.Helper()
	d, err := sql.Open("mysql", fmt.Sprintf("%s@tcp(%s)/%s?%s", user, addr, db, options))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func has(t *testing.T, all []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, want) }) {
		t.Fatalf("%q is not on record:\n%s", want, strings.Join(all, "\n"))
	}
}

func hasNot(t *testing.T, all []string, bad string) {
	t.Helper()
	if slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, bad) }) {
		t.Fatalf("%q is on record:\n%s", bad, strings.Join(all, "\n"))
	}
}

func TestMySQLClient(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	for _, c := range []struct{ name, user, in, out string }{
		{"by certificate", "alice", "select user(), name from t where id=2", "alice@127.0.0.1\ttwo"},
		{"by password", "carol", "select count(*) from t", "3"},
		{"several statements", "alice", "select 1; select 2; select name from t where id=1", "1\n2\none"},
		{"a procedure with two results", "alice", "call two()", "1\n2"},
		{"an error", "alice", "select nothing from t", "ERROR 1054 (42S22) at line 1: Unknown column 'nothing' in 'SELECT'"},
		{"use what is granted", "alice", "use orders; select database()", "orders"},
		{"use what is not", "alice", "use secrets", "ERROR 1044 (42000) at line 1: "},
		{"another user", "root", "select 1", "ERROR 1045 (28000): "},
		{"a local file", "alice", "load data local infile '/etc/hostname' into table t (name)", "ERROR "},
	} {
		out, _ := cli(t, addr, c.user, "orders", c.in, "--local-infile=1")
		if !strings.Contains(out, c.out) {
			t.Errorf("%s: %s: %q, want %q", c.name, c.in, out, c.out)
		}
	}
	q := w.Queries()
	has(t, q, "alice/orders: select user(), name from t where id=2")
	has(t, q, "carol/orders: select count(*) from t")
	has(t, q, "!Unknown column 'nothing'")
	has(t, q, "USE `secrets` !refused")
	if n := len(w.Events(event.DBSessionStart)); n != len(w.Events(event.DBSessionEnd)) || n == 0 {
		t.Errorf("%d sessions began, %d ended", n, len(w.Events(event.DBSessionEnd)))
	}
	if out, err := cli(t, addr, "alice", "orders", "select 7", "-psomething"); err != nil || !strings.HasSuffix(out, "7") {
		t.Errorf("a client with a password of its own: %s", out)
	}
	if out, err := cli(t, addr, "alice", "orders", "select 7", "-psomething", "--default-auth=caching_sha2_password"); err != nil || !strings.HasSuffix(out, "7") {
		t.Errorf("a client that prefers caching_sha2_password: %s", out)
	}
}

func TestDriver(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	db := open(t, addr, "alice:ignored", "orders", "multiStatements=true&parseTime=true&allowNativePasswords=true")
	var name string
	if err := db.QueryRow("select name from t where id = ? and name <> ?", 2, "no\x00pe").Scan(&name); err != nil || name != "two" {
		t.Fatal(name, err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	if _, err := db.Exec("insert into t (name, at) values (?, ?), (?, ?)", []byte{0xff, 1}, at, nil, nil); err == nil {
		t.Fatal("the server took bytes that are no text") // and says so
	}
	if _, err := db.Exec("insert into t (name, at) values (?, ?), (?, ?)", "x", at, nil, nil); err != nil {
		t.Fatal(err)
	}
	rows, err := db.Query("select 1; select 2, 3")
	if err != nil {
		t.Fatal(err)
	}
	var n, m int
	rows.Next()
	if !rows.NextResultSet() || !rows.Next() || rows.Scan(&n, &m) != nil || n != 2 || m != 3 {
		t.Fatal("the second result", n, m, rows.Err())
	}
	rows.Close()
	big := strings.Repeat("0123456789abcdef", 20<<16) // 20 MiB: a row, and a statement, in two packets
	var got string
	if _, err := db.Exec("set @x = 1"); err != nil {
		t.Fatal(err)
	}
	if err := db.QueryRow("select repeat('0123456789abcdef', 20 << 16)").Scan(&got); err == nil && got != big {
		t.Fatal("a large row came out otherwise")
	}
	q := w.Queries()
	has(t, q, `alice/orders: select name from t where id = ? and name <> ? ["2","no\u0000pe"]`)
	has(t, q, `["0xff01","2026-01-02 03:04:05.000006","NULL","NULL"] !`)
	has(t, q, `["x","2026-01-02 03:04:05.000006","NULL","NULL"]`)
	has(t, q, "alice/orders: select 1; select 2, 3")
}

// TestLarge carries rows and statements of more than one packet.
func TestLarge(t *testing.T) {
	w, s := world(t, "--max-allowed-packet=64M")
	_ = s
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	db := open(t, addr, "alice", "orders", "maxAllowedPacket=67108864&interpolateParams=true")
	for _, size := range []int{mysql.MaxChunk - 30, mysql.MaxChunk - 5, mysql.MaxChunk - 4, mysql.MaxChunk, 2*mysql.MaxChunk - 4, 40 << 20} {
		var n int
		if err := db.QueryRow("select length(?)", strings.Repeat("a", size)).Scan(&n); err != nil || n != size {
			t.Fatalf("a statement of %d bytes: %d %v", size, n, err)
		}
		var got []byte
		if err := db.QueryRow(fmt.Sprintf("select repeat('b', %d)", size)).Scan(&got); err != nil || len(got) != size {
			t.Fatalf("a row of %d bytes: %d %v", size, len(got), err)
		}
	}
}

func TestPlugins(t *testing.T) {
	w, s := world(t, "--plugin-load-add=auth_ed25519")
	s.Exec(t, "create user ed@'%' identified via ed25519 using password('Ed''s') require ssl; grant all on orders.* to ed@'%'")
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	if out, err := cli(t, addr, "ed", "orders", "select current_user()"); err != nil || out != "ed@%" {
		t.Fatal(out, err)
	}
	if out, _ := cli(t, addr, "carol", "orders", "select 1", "--default-auth=dialog", "-pq"); !strings.HasSuffix(out, "1") {
		t.Errorf("a client of another plugin: %s", out)
	}
	w.Servers.Passwords["carol"] = "wrong"
	if out, _ := cli(t, addr, "carol", "orders", "select 1"); !strings.HasPrefix(out, "ERROR 1045 (28000): Access denied for user 'carol'") {
		t.Errorf("a wrong password of the agent's: %s", out)
	}
}

// TestA9LiveConnections is a lock on somebody whose connection is open.
func TestA9LiveConnections(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("mallory", "orders"), target.MySQL)
	for _, in := range []string{"", "select sleep(30)", "select a.seq, repeat('x', 1000) from seq_1_to_100000000 a"} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		enterRaw(t, c, "alice", "orders")
		if in != "" {
			c.Write(mysql.Append(nil, append([]byte{byte(mysql.Query)}, in...), 0))
			for !strings.Contains(s.Exec(t, "show processlist"), in[:10]) {
			}
		} else {
			c.Write(mysql.Append(nil, []byte{byte(mysql.Ping)}, 0))
			readPacket(t, c)
		}
		began := time.Now()
		w.Put(&lock.Lock{Name: "stop", Target: lock.Target{User: "mallory"}, Message: "the laptop is lost"})
		c.SetDeadline(began.Add(10 * time.Second))
		rest, err := io.ReadAll(c)
		c.Close()
		if err != nil || !bytes.Contains(rest, []byte("the laptop is lost")) {
			t.Errorf("%q: %v, %.300q", in, err, rest[max(0, len(rest)-300):])
		}
		if d := time.Since(began); d > 2*time.Second {
			t.Errorf("%q: the session was cut after %s", in, d)
		}
		if out, _ := cli(t, addr, "alice", "orders", "select 1"); !strings.Contains(out, "the laptop is lost") {
			t.Errorf("a new connection: %s", out)
		}
		w.Drop("lock", "stop")
	}
	q := w.Queries()
	has(t, q, "select sleep(30) !the connection ended before the server answered")
}

// enterRaw logs in without a driver.
func enterRaw(t *testing.T, c net.Conn, user, db string) {
	t.Helper()
	b := readPacket(t, c)
	g, err := mysql.ParseGreeting(b)
	if err != nil {
		t.Fatal(err)
	}
	l := mysql.Login{Capabilities: g.Capabilities &^ mysql.ConnectAttrs, MaxPacket: 1 << 24, Charset: 45, User: user, Database: db, Plugin: "mysql_native_password"}
	c.Write(mysql.Append(nil, l.Append(nil), 1))
	if b := readPacket(t, c); b[0] != mysql.HeadOK {
		t.Fatalf("%q", b)
	}
}

func readPacket(t *testing.T, c net.Conn) []byte {
	t.Helper()
	b, _, err := mysql.Read(c, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestKilledServer(t *testing.T) {
	for _, in := range []string{"", "select sleep(30)"} {
		w, s := world(t)
		addr := w.Listen(door.User("alice", "orders"), target.MySQL)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		enterRaw(t, c, "alice", "orders")
		if in != "" {
			c.Write(mysql.Append(nil, append([]byte{byte(mysql.Query)}, in...), 0))
			for !strings.Contains(s.Exec(t, "show processlist"), "sleep") {
			}
		}
		began := time.Now()
		s.Kill()
		c.SetDeadline(began.Add(10 * time.Second))
		rest, err := io.ReadAll(c)
		if err != nil || !bytes.Contains(rest, []byte("the connection to the database server is lost")) || time.Since(began) > 2*time.Second {
			t.Errorf("%q: %v %q after %s", in, err, rest, time.Since(began))
		}
		if in != "" {
			has(t, w.Queries(), in+" !the connection ended before the server answered")
		}
		if out, _ := cli(t, addr, "alice", "orders", "select 1"); !strings.Contains(out, "cannot be reached") {
			t.Errorf("%s", out)
		}
	}
}

func program(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	return string(out), err
}

func ptr[T any](v T) *T { return &v }

// TestSlap is mysqlslap through the door.
func TestSlap(t *testing.T) {
	peer.Need(t, "mysqlslap")
	w, _ := world(t)
	host, port, _ := net.SplitHostPort(w.Listen(door.User("alice", "orders"), target.MySQL))
	out, err := program("mysqlslap", "--no-defaults", "-h", host, "-P", port, "-u", "bob", "--skip-ssl",
		"--auto-generate-sql", "--auto-generate-sql-load-type=mixed", "--concurrency=1,8", "--number-of-queries=400", "--auto-generate-sql-add-autoincrement")
	if err != nil || strings.Contains(strings.ToLower(out), "error") {
		t.Fatal(err, out)
	}
}
