package mysql

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/mysql/server"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/peer/authority"
	"github.com/sallyport/sallyport/internal/peer/door"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// raw is a connection without a driver, logged in as alice.
func raw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	enterRaw(t, c, "alice", "orders")
	return c
}

func send(t *testing.T, c net.Conn, code mysql.Command, args string) {
	t.Helper()
	if _, err := c.Write(mysql.Append(nil, append([]byte{byte(code)}, args...), 0)); err != nil {
		t.Fatal(err)
	}
}

// ask sends a query of one row and one column, and gives its text.
func ask(t *testing.T, c net.Conn, query string) string {
	t.Helper()
	send(t, c, mysql.Query, query)
	var row []byte
	for i := 0; ; i++ {
		b := readPacket(t, c)
		if b[0] == mysql.HeadErr {
			return mysql.ParseError(b).Error()
		}
		if i > 1 && b[0] == mysql.HeadEOF {
			return string(row)
		}
		if i == 2 {
			row = b[1:]
		}
	}
}

func changeUser(user, db string) string {
	return user + "\x00\x03abc" + db + "\x00\x2d\x00mysql_native_password\x00"
}

func TestA60ChangeUser(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	c := raw(t, addr)
	send(t, c, mysql.StmtPrepare, "select 1")
	for _, step := range []struct{ user, db, want string }{{"alice", "orders", "alice@%"}, {"carol", "orders", "carol@%"}, {"bob", "orders", "bob@%"}} {
		if step.user == "alice" {
			readPacket(t, c)
			readPacket(t, c)
		}
		send(t, c, mysql.ChangeUser, changeUser(step.user, step.db))
		if b := readPacket(t, c); b[0] != mysql.HeadOK {
			t.Fatalf("%s: %q", step.user, b)
		}
		if got := ask(t, c, "select current_user()"); got != step.want {
			t.Fatalf("the server takes %s for %s", step.user, got)
		}
	}
	has(t, w.Queries(), "bob/orders: select current_user()")
	// A user and a database that no role grants: refused, recorded, and over, though bob may read everything there.
	for _, to := range [][2]string{{"root", "orders"}, {"bob", "secrets"}, {"Bob", "orders"}, {"bob", "Orders"}, {"bob ", "orders"}} {
		c := raw(t, addr)
		before := len(w.Events(event.Auth))
		send(t, c, mysql.ChangeUser, changeUser(to[0], to[1]))
		rest, err := io.ReadAll(c)
		if err != nil || len(rest) < 7 || rest[4] != mysql.HeadErr || !bytes.Contains(rest, []byte("#28000")) {
			t.Errorf("%v: %q %v", to, rest, err)
		}
		if refused := w.Events(event.Auth)[before:]; len(refused) != 1 || refused[0]["success"] != false || refused[0]["reason"] != "not_granted" {
			t.Errorf("%v: %v", to, refused)
		}
	}
	// A packet cut short is no change of user.
	c = raw(t, addr)
	send(t, c, mysql.ChangeUser, "bob")
	if rest, err := io.ReadAll(c); err != nil || len(rest) < 5 || rest[4] != mysql.HeadErr {
		t.Errorf("%q %v", rest, err)
	}
}

func TestA60ResetConnection(t *testing.T) {
	w, _ := world(t)
	c := raw(t, w.Listen(door.User("alice", "orders"), target.MySQL))
	ask(t, c, "select @x := 5")
	send(t, c, mysql.StmtPrepare, "select 77")
	id := readPacket(t, c)[1:5]
	readPacket(t, c)
	send(t, c, mysql.ResetConnection, "")
	if b := readPacket(t, c); b[0] != mysql.HeadOK {
		t.Fatalf("%q", b)
	}
	if who, x := ask(t, c, "select current_user()"), ask(t, c, "select ifnull(@x, 'forgotten')"); who != "alice@%" || x != "forgotten" {
		t.Fatal(who, x)
	}
	send(t, c, mysql.StmtExecute, string(id)+"\x00\x01\x00\x00\x00")
	if b := readPacket(t, c); b[0] != mysql.HeadErr {
		t.Fatalf("a prepared statement outlives the reset: %q", b)
	}
	hasNot(t, w.Queries(), "select 77")
	send(t, c, mysql.InitDB, "secrets")
	if b := readPacket(t, c); b[0] != mysql.HeadErr || !bytes.Contains(b, []byte("#42000")) {
		t.Fatalf("another database after the reset: %q", b)
	}
}

func TestA60LocalInfile(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	// The client offers its files; the server is told that there is no such offer, and says so.
	file := filepath.Join(t.TempDir(), "private")
	if err := os.WriteFile(file, []byte("private\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	db := open(t, addr, "alice", "orders", "allowAllFiles=true")
	if _, err := db.Exec("load data local infile '" + file + "' into table t (name)"); err == nil || !strings.Contains(err.Error(), "local infile") {
		t.Fatalf("LOAD DATA LOCAL: %v", err)
	}
	has(t, w.Queries(), "load data local infile")
}

// evil is a server that asks each statement's client for a file, as a server that was taken over would.
func evil(t *testing.T, a *authority.Authority, got chan<- string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		g := mysql.Greeting{Version: "8.0.0-evil", Nonce: bytes.Repeat([]byte("n"), mysql.NonceLen), Capabilities: mysql.Known | mysql.TLS | mysql.LocalFiles, Plugin: "mysql_native_password"}
		c.Write(mysql.Append(nil, g.Append(nil), 0))
		mysql.Read(c, 1024)
		s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{a.Server()}, ClientAuth: tls.RequireAnyClientCert})
		b, _, err := mysql.Read(s, 4096)
		if login, perr := mysql.ParseLogin(b); err != nil || perr != nil || login.Capabilities&mysql.LocalFiles != 0 {
			got <- fmt.Sprintf("login: %v %v, capabilities %x", err, perr, login.Capabilities)
		}
		s.Write(mysql.Append(nil, mysql.AppendOK(nil, 2), 3))
		mysql.Read(s, 1024)
		s.Write(mysql.Append(nil, append([]byte{mysql.HeadInfile}, "/etc/shadow"...), 1))
		b, seq, err := mysql.Read(s, 1024)
		got <- fmt.Sprintf("%q as packet %d", b, seq)
		s.Write(mysql.Append(nil, mysql.AppendOK(nil, 2), 3))
	}()
	return l.Addr().String()
}

// TestA60EvilServer is a server that asks for a client's file unasked: it gets nothing, and the client hears nothing.
func TestA60EvilServer(t *testing.T) {
	leaks(t)
	got := make(chan string, 2)
	a := authority.New("evil")
	w := door.New(t, &door.Servers{Addr: evil(t, a, got), Authority: a}, map[target.Protocol]database.Engine{target.MySQL: Engine{}},
		door.Role("orders", []string{"alice"}, []string{"orders"}))
	c := raw(t, w.Listen(door.User("alice", "orders"), target.MySQL))
	send(t, c, mysql.Query, "select 1")
	b, seq, err := mysql.Read(c, 1024)
	if err != nil || b[0] != mysql.HeadOK || seq != 1 {
		t.Errorf("the client got %q as packet %d (%v)", b, seq, err)
	}
	for s := range got {
		if s != `"" as packet 2` {
			t.Errorf("the server got %s", s)
		}
	}
	has(t, w.Queries(), "select 1 !LOCAL INFILE is refused")
}

func TestReplicationRefused(t *testing.T) {
	w, s := world(t, "--log-bin=bin", "--server-id=1")
	w.Put(ptr(door.Role("replica", []string{"bob"}, []string{"orders", "replication"})))
	c := raw(t, w.Listen(door.User("alice", "orders"), target.MySQL))
	for _, code := range []mysql.Command{mysql.BinlogDump, mysql.BinlogDumpGTID, mysql.RegisterReplica, mysql.TableDump, 0x0b, 0x1d, 0x20, 0xff} {
		send(t, c, code, strings.Repeat("\x00", 30))
		if b := readPacket(t, c); b[0] != mysql.HeadErr || !bytes.Contains(b, []byte("#42000")) {
			t.Errorf("%s: %q", code, b)
		}
	}
	if got := ask(t, c, "select 5"); got != "5" {
		t.Fatal(got)
	}
	// Where it is granted, to the letter, a replica reads the log.
	addr := w.Listen(door.User("alice", "replica"), target.MySQL)
	host, port, _ := net.SplitHostPort(addr)
	file := strings.Fields(s.Exec(t, "show master status"))[0]
	out, err := program("mysqlbinlog", "--no-defaults", "-R", "-h", host, "-P", port, "-u", "bob", "--skip-ssl", file)
	if err != nil || !strings.Contains(out, "create database secrets") {
		t.Fatal(err, out)
	}
	has(t, w.Queries(), "COM_BINLOG_DUMP")
}

// TestDynamicUse is a change of database that no text shows: the server tells of it, and that ends the connection.
func TestDynamicUse(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	out, err := cli(t, addr, "alice", "orders", "execute immediate concat('u', 'se secrets'); select id from t")
	if err == nil || !strings.Contains(out, "ERROR") || strings.Contains(out, "42") && !strings.Contains(out, "42000") {
		t.Fatal(out)
	}
	hasNot(t, w.Queries(), "select id from t")
	if out, err := cli(t, addr, "alice", "orders", "execute immediate concat('u', 'se orders'); select database()"); err != nil || out != "orders" {
		t.Fatal(out)
	}
}

// TestTrackingStays: nobody keeps the server from telling where a session is, so that a change of database would be seen by nobody.
func TestTrackingStays(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	for _, q := range []string{"set session_track_schema=off", "SET @@SESSION.`Session_Track_Schema` = 0", "set statement session_track_schema=off for select 1",
		"execute immediate 'set session_track_schema=off'"} {
		out, err := cli(t, addr, "alice", "orders", q+"; use secrets; select id from t", "--delimiter=//")
		if err == nil || !strings.Contains(out, "not to be named") {
			t.Errorf("%s: %s", q, out)
		}
	}
	// Also where it lies behind what is looked at of a statement, and across its edge.
	for _, before := range []int{64<<10 - 14, 200 << 10} {
		c := raw(t, addr)
		send(t, c, mysql.Query, "select /*"+strings.Repeat("x", before)+"*/ 1; set session_track_schema=off; use secrets; select id from t")
		if b := readPacket(t, c); b[0] != mysql.HeadErr {
			t.Errorf("%d bytes before: %q", before, b)
		}
	}
	c := raw(t, addr)
	if got := ask(t, c, "select /*"+strings.Repeat("x", 200<<10)+"*/ length('session_track_schem')"); got != "19" {
		t.Errorf("another name: %q", got)
	}
	send(t, c, mysql.StmtPrepare, "set session_track_schema=off")
	if b := readPacket(t, c); b[0] != mysql.HeadErr {
		t.Errorf("prepared: %q", b)
	}
	if got := ask(t, c, "select @@session.session_track_"+"schema"); !strings.Contains(got, "not to be named") {
		t.Errorf("%q", got)
	}
	has(t, w.Queries(), "refused: ")
}

// TestA78Secrets are passwords in statements and their errors.
func TestA78Secrets(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	for _, in := range []string{"create user u1 identified by 'hunter2'", "create user u1 identified by 'hunter2' oops", "set password for u1 = password('hunter2')",
		"create user u2 identified via mysql_native_password using password('hunter2')", "execute immediate 'create user u3 identified by ''hunter2'''"} {
		cli(t, addr, "bob", "orders", in)
	}
	db := open(t, addr, "bob:hunter2", "orders", "")
	if _, err := db.Exec("select password(?)", "hunter2"); err != nil {
		t.Fatal(err)
	}
	q := w.Queries()
	has(t, q, "create user u1 identified by '***'")
	has(t, q, "create user u1 identified by '***' oops !")
	has(t, q, `select password(?) ["***"]`)
	for _, ev := range w.Events() {
		if s := fmt.Sprint(ev); strings.Contains(s, "hunter2") {
			t.Errorf("%s", s)
		}
	}
}

// TestRefusalsLeaveTheServer is that people who are refused do not use up the server's patience with the agent.
func TestRefusalsLeaveTheServer(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	for range 10 {
		if out, _ := cli(t, addr, "root", "orders", "select 1"); !strings.Contains(out, "ERROR 1045") {
			t.Fatal(out)
		}
		c, err := net.Dial("tcp", addr) // and who goes at once
		if err != nil {
			t.Fatal(err)
		}
		readPacket(t, c)
		c.Close()
	}
	if out, err := cli(t, addr, "alice", "orders", "select 1"); err != nil || out != "1" {
		t.Fatal(out)
	}
	// From loopback max_connect_errors does not bite; what it counts does show.
	if got := strings.Fields(s.Exec(t, "show global status like 'Aborted_connects_preauth'")); got[1] != "0" {
		t.Fatalf("%s handshakes were broken off", got[1])
	}
}

// TestKillQuery is Ctrl-C in the mysql client: a second connection that names the first one's thread.
func TestKillQuery(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	c := raw(t, addr)
	id := ask(t, c, "select connection_id()")
	result := make(chan string, 1)
	go func() { result <- ask(t, c, "select sleep(20)") }()
	for !strings.Contains(s.Exec(t, "show processlist"), "sleep") {
	}
	if out, err := cli(t, addr, "alice", "orders", "kill query "+id); err != nil {
		t.Fatal(out)
	}
	if got := <-result; !strings.Contains(got, "interrupted") {
		t.Fatal(got)
	}
}

// TestA62Door are commands that no client sends.
func TestA62Door(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MySQL)
	for name, b := range map[string]string{
		"a command of no bytes":        "\x00\x00\x00\x00",
		"a statement's id that is cut": "\x03\x00\x00\x00\x17\x01\x00",
		"a bulk execution of nothing":  "\x07\x00\x00\x00\xfa\x01\x00\x00\x00\x80\x00",
		"the last statement of none":   "\x0a\x00\x00\x00\x17\xff\xff\xff\xff\x00\x01\x00\x00\x00",
		"a packet that never ends":     "\xff\xff\xff\x00\x03sel",
	} {
		c := raw(t, addr)
		c.Write([]byte(b))
		c.(*net.TCPConn).CloseWrite()
		rest, err := io.ReadAll(c)
		if err != nil || len(rest) > 0 && rest[4] != mysql.HeadErr {
			t.Errorf("%s: %q %v", name, rest, err)
		}
	}
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	readPacket(t, c)
	c.Write([]byte("\xff\xff\xff\x01"))
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 && rest[4] != mysql.HeadErr {
		t.Errorf("a login of 16 MiB: %q %v", rest, err)
	}
}

// TestOnDemand is a user who is made for a session, with the roles that are granted, and disabled after the last one.
func TestOnDemand(t *testing.T) {
	w, s := world(t)
	w.AdminUser = "maker"
	s.Exec(t, "create user maker@'%' require subject '/CN=maker'; grant all on *.* to maker@'%' with grant option; create role readers; create role writers; grant select on orders.* to readers; grant insert on orders.* to writers;"+
		"grant readers to maker@'%' with admin option; grant writers to maker@'%' with admin option; create user taken@'%'")
	made := door.Role("made", nil, []string{"orders"})
	made.Options.CreateDBUserMode, made.Allow.DBRoles = "keep", []string{"readers", "writers"}
	w.Put(&made)
	for _, name := range []string{"dora", "taken"} {
		addr := w.Listen(door.User(name, "made"), target.MySQL)
		first, err := cli(t, addr, name, "orders", "insert into t (name) values ('by "+name+"'); select current_user(), count(*) from t")
		if name == "taken" {
			if err == nil || !strings.Contains(first, "Sallyport did not make it") {
				t.Fatal(first)
			}
			continue
		}
		if err != nil || first != "dora@%\t4" {
			t.Fatal(first, err)
		}
		locked := "select json_value(priv, '$.account_locked') from mysql.global_priv where user = 'dora'"
		for s.Exec(t, locked) != "1" { // it is disabled once the server is done with the session
		}
		if got := s.Exec(t, "select count(*) from mysql.roles_mapping where user = 'sallyport:dora'"); got != "0" {
			t.Fatalf("%s roles are left", got)
		}
		made.Allow.DBRoles = []string{"readers"}
		w.Put(&made)
		live := open(t, addr, "dora", "orders", "")
		if err := live.Ping(); err != nil {
			t.Fatal(err)
		}
		if out, err := cli(t, addr, "dora", "orders", "insert into t (name) values ('again')"); err == nil || !strings.Contains(out, "denied") {
			t.Fatal(out)
		}
		if got := s.Exec(t, locked); got == "1" {
			t.Fatal("the user is disabled while a session lives")
		}
		s.Exec(t, "create role if not exists 'sallyport:lost'; create user if not exists lost@'%' require subject '/CN=lost'; grant 'sallyport:lost' to lost@'%'; grant readers to 'sallyport:lost'")
		if left, err := w.Sweep(t.Context(), target.MySQL, server.Maker{}); err != nil || !slices.Equal(left, []string{"lost"}) {
			t.Fatalf("%v, %v: one was left enabled", left, err)
		}
		if got := s.Exec(t, strings.ReplaceAll(locked, "dora", "lost")+" union all select count(*) from mysql.roles_mapping where user = 'sallyport:lost'"); got != "1\n0" {
			t.Fatalf("who was left enabled is %q", got)
		}
		live.Close()
		for s.Exec(t, locked) != "1" {
		}
		if left, err := w.Sweep(t.Context(), target.MySQL, server.Maker{}); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
	}
}

// TestA60ChangeUserMakesNobody: a role that has users made on demand lets nobody in as a user who is not made. A change of
// user makes none, so what the server has of that name, the maker of users first of all, is not to be had by it.
func TestA60ChangeUserMakesNobody(t *testing.T) {
	w, s := world(t)
	w.AdminUser = "maker"
	s.Exec(t, "create user maker@'%' require subject '/CN=maker'; grant all on *.* to maker@'%' with grant option")
	made := door.Role("made", nil, []string{"orders"})
	made.Options.CreateDBUserMode = "keep"
	w.Put(&made)
	c, err := net.Dial("tcp", w.Listen(door.User("maker", "orders", "made"), target.MySQL))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	enterRaw(t, c, "bob", "orders")
	send(t, c, mysql.ChangeUser, changeUser("maker", "orders"))
	if b := readPacket(t, c); b[0] != mysql.HeadErr {
		t.Fatalf("%q: the connection is %s", b, ask(t, c, "select current_user()"))
	}
}

// TestA9CutAfterChangeUser: the end of trust cuts the connection to the server that is there by then.
func TestA9CutAfterChangeUser(t *testing.T) {
	w, _ := world(t)
	for i := range 5 {
		name := fmt.Sprint("passing", i)
		passing := door.Role(name, []string{"alice", "bob"}, []string{"orders"})
		w.Put(&passing)
		c := raw(t, w.Listen(door.User("alice", name), target.MySQL))
		send(t, c, mysql.ChangeUser, changeUser("bob", "orders"))
		if b := readPacket(t, c); b[0] != mysql.HeadOK {
			t.Fatalf("%q", b)
		}
		w.Drop("role", name)
		if rest, err := io.ReadAll(c); err != nil || !bytes.Contains(rest, []byte("70100")) {
			t.Fatalf("%q %v", rest, err)
		}
	}
}

// TestStatementReset: what was sent ahead of a reset is no parameter of what runs behind it.
func TestStatementReset(t *testing.T) {
	w, _ := world(t)
	c := raw(t, w.Listen(door.User("alice", "orders"), target.MySQL))
	send(t, c, mysql.StmtPrepare, "select concat(?, '')")
	id := string(readPacket(t, c)[1:5])
	for range 2 { // a parameter, a column
		readPacket(t, c)
	}
	send(t, c, mysql.StmtLongData, id+"\x00\x00innocent")
	send(t, c, mysql.StmtReset, id)
	readPacket(t, c)
	send(t, c, mysql.StmtExecute, id+"\x00\x01\x00\x00\x00\x00\x01\xfd\x00\x06guilty")
	for i := 0; ; i++ {
		b := readPacket(t, c)
		if b[0] == mysql.HeadErr {
			t.Fatalf("%q", b)
		}
		if bytes.Contains(b, []byte("guilty")) {
			break
		}
	}
	has(t, w.Queries(), `["guilty"]`)
}

// TestOnDemandUnseen: an admin user who does not see others' sessions makes and disables nobody, for it would disable those who live.
func TestOnDemandUnseen(t *testing.T) {
	w, s := world(t)
	w.AdminUser = "maker"
	s.Exec(t, "create user maker@'%' require subject '/CN=maker'; grant create user, reload on *.* to maker@'%' with grant option; grant all on mysql.* to maker@'%' with grant option")
	made := door.Role("made", nil, []string{"orders"})
	made.Options.CreateDBUserMode = "keep"
	w.Put(&made)
	addr := w.Listen(door.User("dora", "made"), target.MySQL)
	if out, err := cli(t, addr, "dora", "", "select 1"); err == nil || !strings.Contains(out, "PROCESS") {
		t.Fatal(out, err)
	}
	if left, err := w.Sweep(t.Context(), target.MySQL, server.Maker{}); err == nil || !strings.Contains(fault.Of(err).Cause, "PROCESS") || len(left) > 0 {
		t.Fatal(left, err)
	}
	for _, how := range []string{"grant process on *.* to maker@'%'", "revoke process on *.* from maker@'%'; create role seers; grant process on *.* to seers; grant seers to maker@'%'; set default role seers for maker@'%'"} {
		s.Exec(t, how)
		if left, err := w.Sweep(t.Context(), target.MySQL, server.Maker{}); err != nil {
			t.Fatal(how, left, err)
		}
	}
}

// TestIdleElsewhere: who works in the second database of a connection is not idle in the first, nor the other way round.
func TestIdleElsewhere(t *testing.T) {
	w, s := world(t)
	s.Exec(t, "create database if not exists mysqlslap; grant all on mysqlslap.* to alice@'%'")
	idle := door.Role("orders", []string{"alice"}, []string{"orders", "mysqlslap"})
	idle.Options.ClientIdleTimeout = role.Duration(2 * time.Second)
	w.Put(&idle)
	c := raw(t, w.Listen(door.User("alice", "orders"), target.MySQL))
	send(t, c, mysql.Query, "use mysqlslap")
	if b := readPacket(t, c); b[0] != mysql.HeadOK {
		t.Fatalf("%q", b)
	}
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); {
		if got := ask(t, c, "select sleep(0.2)"); got != "0" {
			t.Fatal(got)
		}
	}
	if b := readPacket(t, c); b[0] != mysql.HeadErr || !strings.Contains(string(b), "idle") {
		t.Fatalf("%q", b)
	}
}
