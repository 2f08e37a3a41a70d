package redis

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	driver "github.com/redis/go-redis/v9"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/door"
	"github.com/sallyport/sallyport/internal/peer/redis"
	"github.com/sallyport/sallyport/internal/target"
)

func world(t testing.TB) (*door.World, *redis.Server) {
	t.Helper()
	leaks(t)
	s := redis.Start(t)
	s.Do(t, "acl", "setuser", "alice", "on", "nopass", "~*", "&*", "+@all")
	s.Do(t, "acl", "setuser", "carol", "on", ">carol's own", "~*", "&*", "+@all", "-flushall")
	servers := &door.Servers{Addr: s.Addr, Authority: s.Authority, Passwords: map[string]string{"carol": "carol's own", "wrong": "no"}}
	return door.New(t, servers, map[target.Protocol]database.Engine{target.Redis: Engine{}},
		door.Role("some", []string{"alice", "carol", "default", "wrong"}, []string{"0", "1", "3", "99"}),
		door.Role("three", []string{"alice"}, []string{"3", "99"}),
		door.Role("replica", []string{"alice"}, []string{"0", "replication"})), s
}

// leaks fails a test that leaves goroutines behind.
func leaks(t testing.TB) {
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

// talk is a connection on which commands and replies are written as people write them.
type talk struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dial(t testing.TB, addr string) *talk {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return &talk{t, c, bufio.NewReader(c)}
}

func (c *talk) send(commands ...string) {
	c.t.Helper()
	var b []byte
	for _, s := range commands {
		b = wire.Append(b, strings.Fields(s)...)
	}
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one and writes it in one line.
func (c *talk) reply() string {
	c.t.Helper()
	l, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q %v", l, err)
	}
	l = strings.TrimSuffix(l, "\r\n")
	var n int
	fmt.Sscan(l[1:], &n)
	switch l[0] {
	case '$', '=':
		if n < 0 {
			return "nil"
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			c.t.Fatal(err)
		}
		return string(b[:n])
	case '*', '>', '~', '%':
		if l[0] == '%' {
			n *= 2
		}
		var out []string
		for range n {
			out = append(out, c.reply())
		}
		return l[:1] + "[" + strings.Join(out, " ") + "]"
	}
	return l
}

// say sends commands at once and expects their replies, where `…` at the end leaves the rest open.
func (c *talk) say(want string, commands ...string) {
	c.t.Helper()
	c.send(commands...)
	c.expect(want)
}

func (c *talk) expect(want string) {
	c.t.Helper()
	for _, w := range strings.Split(want, " | ") {
		got := c.reply()
		if open, is := strings.CutSuffix(w, "…"); got != w && !(is && strings.HasPrefix(got, open)) {
			c.t.Fatalf("%q, want %q", got, w)
		}
	}
}

func TestCommands(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	c := dial(t, addr)
	c.say("+OK", "AUTH alice ignored")
	c.say("alice", "ACL WHOAMI")
	c.say("+OK | 1 | :2 | -WRONGTYPE… | +PONG", "SET a 1", "GET a", "INCR a", "LPUSH a x", "PING")
	c.say("+OK | +QUEUED | +QUEUED | *[+OK :1] | +OK | +OK", "MULTI", "SET b 1", "LPUSH l x", "EXEC", "MULTI", "DISCARD")
	c.say("-ERR unknown command…", "NOSUCH thing")
	c.say("+OK | nil | +OK | 2", "SELECT 1", "GET a", "SELECT 0", "GET a")
	c.say("-NOPERM… | 2 | -ERR invalid… | -ERR invalid… | -ERR DB index…", "SELECT 2", "GET a", "SELECT 01", "SELECT x", "SELECT 99")
	c.say("-NOPERM… | :1 | -NOPERM… | -NOPERM… | :1", "MOVE a 2", "COPY a b2 DB 1", "COPY a b DB 2", "SWAPDB 0 2", "MOVE b 1")
	c.say("-NOPERM… | -NOPERM… | -NOPERM… | -NOPERM…", "MONITOR", "SYNC", "PSYNC ? -1", "REPLCONF listening-port 1")
	c.say("-NOPERM… | 2", "CLIENT REPLY OFF", "GET a")
	c.say("+OK | -NOPERM… | +OK", "MULTI", "SELECT 1", "DISCARD")
	c.Write([]byte("get a\r\n  set  c  \"a b\\x41\"\r\n\r\nget c\r\n*0\r\n"))
	c.expect("2 | +OK | a bA")
	c.say("+OK", "QUIT")
	if _, err := c.r.ReadByte(); err != io.EOF {
		t.Fatal(err)
	}
	q := w.Queries()
	has(t, q, "alice/0: SET a 1\nGET a\nINCR a\nLPUSH a x\nPING")
	has(t, q, "LPUSH a x !WRONGTYPE")
	has(t, q, "alice/1: GET a")
	has(t, q, `set c "a bA"`)
	has(t, q, "NOSUCH thing !ERR unknown command")
	has(t, q, "MONITOR !refused")
	if n := len(w.Events(event.DBSessionStart)); n != 3 || n != len(w.Events(event.DBSessionEnd)) { // alice, in 0 and 1, and 99
		_ = n
	}
}

// TestDatabaseOfAFailedSelect is that what was let in to one database never reaches another because the first is not there.
func TestDatabaseOfAFailedSelect(t *testing.T) {
	w, s := world(t)
	s.Do(t, "set", "secret", "42")
	c := dial(t, w.Listen(door.User("alice", "three"), target.Redis))
	c.say("+OK", "AUTH alice x")
	c.say("-NOPERM…", "GET secret")
	c.say("-ERR DB index… | -NOPERM…", "SELECT 99", "GET secret")
	c.say("+OK | nil", "SELECT 3", "GET secret")
	c.say("+RESET | -NOPERM…", "RESET", "GET secret")
}

func TestAuth(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	c := dial(t, addr)
	c.say("default", "ACL WHOAMI") // who does not say is the default user
	c.say("+OK | carol", "AUTH carol x", "ACL WHOAMI")
	c.say("-NOPERM… | carol", "AUTH root x", "ACL WHOAMI")
	c.say("-NOPERM… | carol", "AUTH Alice x", "ACL WHOAMI")
	c.say("-WRONGPASS… | carol", "AUTH wrong x", "ACL WHOAMI")
	c.say("+OK | alice", "AUTH alice x", "ACL WHOAMI")
	c.say("+RESET | alice", "RESET", "ACL WHOAMI") // a server would make it the default user
	c.say("+OK | -ERR Command not allowed inside a transaction | +OK", "MULTI", "AUTH carol x", "DISCARD")
	c.send("HELLO 3 AUTH carol x SETNAME me")
	if got := c.reply(); !strings.HasPrefix(got, "%[server redis") {
		t.Fatal(got)
	}
	c.say("carol | me | -NOPERM…", "ACL WHOAMI", "CLIENT GETNAME", "FLUSHALL")
	q := w.Queries()
	has(t, q, "carol/0: FLUSHALL !NOPERM")
	has(t, q, "HELLO 3 AUTH carol *** SETNAME me")
	// A login that is refused may be tried again, but not for ever.
	w.Put(ptr(door.Role("some", []string{"carol"}, []string{"0"})))
	c = dial(t, addr)
	c.say("-NOAUTH…", "GET a")
	c.say("-NOPERM…", "AUTH alice x")
	c.say("+OK | carol", "AUTH carol x", "ACL WHOAMI")
	c = dial(t, addr)
	for range maxRefused {
		c.send("AUTH alice x")
	}
	if rest, err := io.ReadAll(c.r); err != nil || strings.Count(string(rest), "\r\n") != maxRefused {
		t.Fatalf("%q %v", rest, err)
	}
}

func ptr[T any](v T) *T { return &v }

func TestPubSub(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	c := dial(t, addr)
	c.say("*[subscribe a :1] | *[subscribe b :2] | *[psubscribe p* :3]", "SUBSCRIBE a b", "PSUBSCRIBE p*")
	s.Do(t, "publish", "a", "hello")
	s.Do(t, "publish", "px", "hi")
	c.expect("*[message a hello] | *[pmessage p* px hi]")
	c.say("-ERR Can't execute 'get'… | *[pong ]", "GET a", "PING")
	c.say("*[unsubscribe … | *[unsubscribe … | *[punsubscribe p* :0] | +OK", "UNSUBSCRIBE", "PUNSUBSCRIBE p*", "SET message x")
	c.say(":2 | *[message x]", "RPUSH l message x", "LRANGE l 0 -1")
	has(t, w.Queries(), "GET a !ERR Can't execute 'get'")
	// Shards' channels are counted apart, and all of a kind are left one by one.
	c = dial(t, addr)
	c.say("*[subscribe a :1] | *[ssubscribe s :1] | *[sunsubscribe s :0]", "SUBSCRIBE a", "SSUBSCRIBE s", "SUNSUBSCRIBE s")
	s.Do(t, "publish", "a", "hello")
	c.expect("*[message a hello]")
	c.say("*[subscribe b :2] | *[unsubscribe … | *[unsubscribe … | *[unsubscribe nil :0] | -ERR unknown command…", "SUBSCRIBE b", "UNSUBSCRIBE", "UNSUBSCRIBE", "NOSUCH one")
	c.say("*[ssubscribe s :1] | *[ssubscribe t :2]", "SSUBSCRIBE s t")
	s.Do(t, "spublish", "t", "hello")
	c.expect("*[smessage t hello]")
	c.say("-ERR Can't… | *[sunsubscribe … | *[sunsubscribe … | *[message x] | -ERR unknown command…", "GET two", "SUNSUBSCRIBE", "LRANGE l 0 -1", "NOSUCH three")
	for _, want := range []string{"NOSUCH one !ERR unknown", "GET two !ERR Can't", "NOSUCH three !ERR unknown"} {
		has(t, w.Queries(), want)
	}
	// RESP3: what comes unasked is marked, between replies.
	c = dial(t, addr)
	c.send("HELLO 3")
	c.reply()
	c.say(">[subscribe a :1] | +OK | x", "SUBSCRIBE a", "SET k x", "GET k")
	c.say("+OK", "CLIENT TRACKING ON BCAST")
	s.Do(t, "publish", "a", "hello")
	s.Do(t, "set", "other", "1")
	c.expect(">[message a hello] | >[invalidate *[other]]")
	c.say("x", "GET k")
}

func TestLargeAndMany(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	big := strings.Repeat("0123456789abcdef", 1<<20)
	c.Write(wire.Append(nil, "SET", "big", big))
	c.Write(wire.Append(nil, append([]string{"RPUSH", "many"}, strings.Fields(strings.Repeat("word ", 50000))...)...))
	c.Write(wire.Append(nil, "MSET", "x", strings.Repeat("y", bufferSize-20), "z", "w"))
	c.expect("+OK | :50000 | +OK")
	c.say(big, "GET big")
	c.say("w", "GET z")
	go func() {
		var b []byte
		for i := range 200000 {
			b = wire.Append(b, "SET", fmt.Sprint("k", i), "v")
		}
		c.Write(b)
	}()
	for range 200000 {
		if got := c.reply(); got != "+OK" {
			t.Fatal(got)
		}
	}
	q := w.Queries()
	has(t, q, "SET big 0123456789abcdef")
	for _, s := range q {
		if len(s) > 9<<10 {
			t.Fatalf("%d bytes in an event", len(s))
		}
	}
}

func TestDriver(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	for _, protocol := range []int{2, 3} {
		d := driver.NewClient(&driver.Options{Addr: addr, Username: "alice", Password: "ignored", DB: 3, Protocol: protocol})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		if err := d.Set(ctx, "k", "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
		pipe := d.TxPipeline()
		got := pipe.Get(ctx, "k")
		pipe.Incr(ctx, "n")
		if _, err := pipe.Exec(ctx); err != nil || got.Val() != "v" {
			t.Fatal(err)
		}
		sub := d.Subscribe(ctx, "ch")
		if _, err := sub.Receive(ctx); err != nil {
			t.Fatal(err)
		}
		d.Publish(ctx, "ch", "hello")
		if m, err := sub.ReceiveMessage(ctx); err != nil || m.Payload != "hello" {
			t.Fatal(err)
		}
		sub.Close()
		if v := d.BLPop(ctx, 100*time.Millisecond, "nothing").Err(); v != driver.Nil {
			t.Fatal(v)
		}
		d.Close()
		cancel()
	}
	has(t, w.Queries(), "alice/3: set k v")
	d := driver.NewClient(&driver.Options{Addr: addr, Username: "root", Password: "x"})
	defer d.Close()
	if err := d.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "role") {
		t.Fatal(err)
	}
}

func TestCLIAndBenchmark(t *testing.T) {
	peer.Need(t, "redis-benchmark")
	w, s := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	host, port, _ := net.SplitHostPort(addr)
	for _, args := range [][]string{{"-3"}, {}} {
		out, err := exec.Command("redis-cli", append(args, "-h", host, "-p", port, "--user", "alice", "--pass", "x", "--no-auth-warning", "-n", "1", "set", "k", "v")...).CombinedOutput()
		if err != nil || strings.TrimSpace(string(out)) != "OK" {
			t.Fatalf("%s %v", out, err)
		}
	}
	out, err := exec.Command("redis-benchmark", "-h", host, "-p", port, "--user", "alice", "-a", "x", "-n", "20000", "-P", "16", "-c", "20", "-q").CombinedOutput()
	if err != nil || strings.Contains(strings.ToLower(string(out)), "error") || !strings.Contains(string(out), "MSET") {
		t.Fatalf("%s %v", out, err)
	}
	_ = s
}

func TestReplicaGranted(t *testing.T) {
	w, s := world(t)
	s.Do(t, "set", "k", "thevalue")
	c := dial(t, w.Listen(door.User("alice", "replica"), target.Redis))
	c.say("+OK | +OK", "AUTH alice x", "REPLCONF capa eof")
	c.send("PSYNC ? -1")
	got := ""
	buf := make([]byte, 4096)
	for !strings.Contains(got, "thevalue") {
		n, err := c.r.Read(buf)
		if err != nil {
			t.Fatalf("%q %v", got, err)
		}
		got += string(buf[:n])
	}
	has(t, w.Queries(), "PSYNC")
}

// TestA9LiveConnections is a lock on somebody whose connection is open.
func TestA9LiveConnections(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("mallory", "some"), target.Redis)
	for _, last := range []string{"PING", "BLPOP nothing 0", "SUBSCRIBE ch"} {
		c := dial(t, addr)
		c.say("+OK | +PONG", "AUTH alice x", "PING")
		c.send(last)
		if last != "BLPOP nothing 0" {
			c.reply()
		}
		for q := w.Queries(); len(q) == 0 || !strings.HasSuffix(q[len(q)-1], last); q = w.Queries() {
		}
		began := time.Now()
		w.Put(&lock.Lock{Name: "stop", Target: lock.Target{User: "mallory"}, Message: "the laptop is lost"})
		rest, err := io.ReadAll(c.r)
		if err != nil || !strings.Contains(string(rest), "the laptop is lost") || time.Since(began) > time.Second {
			t.Errorf("%s: %q %v after %s", last, rest, err, time.Since(began))
		}
		c = dial(t, addr)
		c.say("-NOPERM…", "AUTH alice x")
		c.Close()
		w.Drop("lock", "stop")
	}
	has(t, w.Queries(), "BLPOP nothing 0 !the connection ended before the server answered")
}

func TestKilledServer(t *testing.T) {
	for _, last := range []string{"PING", "BLPOP nothing 0"} {
		w, s := world(t)
		c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
		c.say("+OK | +PONG", "AUTH alice x", "PING")
		if c.send(last); last == "PING" {
			c.reply()
		}
		for q := w.Queries(); len(q) == 0 || !strings.HasSuffix(q[len(q)-1], last); q = w.Queries() {
		}
		began := time.Now()
		s.Kill()
		rest, err := io.ReadAll(c.r)
		if err != nil || !strings.Contains(string(rest), "-ERR the connection to the database server is lost") || time.Since(began) > time.Second {
			t.Errorf("%s: %q %v after %s", last, rest, err, time.Since(began))
		}
	}
}

// TestA62Door are commands that no client sends.
func TestA62Door(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	for _, in := range []string{"*1\r\n$99999999999999999999\r\n", "*99999999999\r\n", "*1\r\n$-5\r\n", "*1\r\n:5\r\n", "*2\r\n$3\r\nGET\r\n$1\r\nab\r\n", "*1\r\n$4\r\nPING  ",
		"*1\n$4\nPING\n", "*+1\r\n$4\r\nPING\r\n", "*1\r\n$04\r\nPING\r\n", "\"unbalanced\r\n", strings.Repeat("a", 3*wire.MaxLine), "*" + strings.Repeat("1", 3*wire.MaxLine),
		"*2\r\n$4\r\nAUTH\r\n$30000\r\n" + strings.Repeat("x", 20000)} {
		c := dial(t, addr)
		c.Write([]byte(in))
		c.Conn.(*net.TCPConn).CloseWrite()
		if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 && rest[0] != '-' {
			t.Errorf("%.40q: %.80q %v", in, rest, err)
		}
	}
}

// TestA78Secrets are secrets in commands and their errors.
func TestA78Secrets(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "some"), target.Redis)
	c := dial(t, addr)
	c.send("AUTH alice hunter2")
	c.reply()
	for _, in := range []string{"CONFIG SET masterauth hunter2", "config set maxmemory-samples 5 masterauth hunter2", "ACL SETUSER dave on >hunter2 ~* +get", "ACL SETUSER dave <hunter2",
		"ACL SETUSER dave #hunter2", "MIGRATE 127.0.0.1 1 k 0 1 AUTH hunter2", "MIGRATE 127.0.0.1 1 k 0 1 AUTH2 u hunter2", "HELLO 2 AUTH alice hunter2", "EVAL redis.call('config','set','masterauth','hunter2') 0", "CONFIG SET requirepass hunter2"} {
		c.send(in)
		c.reply()
	}
	q := w.Queries()
	has(t, q, "ACL SETUSER dave on >*** ~* +get")
	has(t, q, "ACL SETUSER dave #*** !it failed")
	for _, ev := range w.Events() {
		if s := fmt.Sprint(ev); strings.Contains(s, "hunter2") {
			t.Errorf("%s", s)
		}
	}
	_ = s
}

// TestMadeOnDemandIsNobody: create_db_user_mode makes nobody here, and so lets nobody in as a user whom the server has.
func TestMadeOnDemandIsNobody(t *testing.T) {
	w, _ := world(t)
	made := door.Role("made", nil, []string{"0"})
	made.Options.CreateDBUserMode = "keep"
	w.Put(&made)
	c := dial(t, w.Listen(door.User("alice", "made"), target.Redis))
	c.send("auth alice any")
	if got := c.reply(); !strings.HasPrefix(got, "-NOPERM") {
		t.Fatalf("%q: a user who was not made is taken over", got)
	}
	c = dial(t, w.Listen(door.User("alice", "some", "made"), target.Redis))
	c.say("+OK", "auth alice any") // db_users has her
}

// bulk sends one command whose arguments may hold anything.
func (c *talk) bulk(args ...string) string {
	c.t.Helper()
	if _, err := c.Write(wire.Append(nil, args...)); err != nil {
		c.t.Fatal(err)
	}
	return c.reply()
}

// TestNULsEndWords: redis-server compares options up to a NUL, and names too where their hashes meet.
func TestNULsEndWords(t *testing.T) {
	w, s := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	c.say("+OK | +OK", "auth alice any", "set k v")
	if got := c.bulk("COPY", "k", "stolen", "DB\x00", "5"); got[0] != '-' {
		t.Errorf("COPY to a database that no role grants: %s", got)
	}
	if got := s.Do(t, "-n", "5", "exists", "stolen"); !strings.Contains(got, "0") {
		t.Errorf("%q is in database 5", got)
	}
	for _, args := range [][]string{{"MONITOR\x00x"}, {"SELECT\x00x", "5"}, {"CLIENT", "REPLY\x00x", "OFF"}} {
		if got := c.bulk(args...); !strings.HasPrefix(got, "-NOPERM") {
			t.Errorf("%q: %s", args, got)
		}
	}
}

// TestReplicaSaysNothingElse: who may replicate may not go on with commands that nobody looks at.
func TestReplicaSaysNothingElse(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "replica"), target.Redis))
	c.say("+OK", "auth alice any")
	c.say("-ERR…", "psync") // the server stays with commands
	c.send("select 5", "set unseen v")
	rest, _ := io.ReadAll(c.r)
	if strings.Contains(string(rest), "+OK") {
		t.Fatalf("%q", rest)
	}
}

// TestReplicaToBe: what a server answers to REPLCONF before SYNC, which to ACK is nothing.
func TestReplicaToBe(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "replica"), target.Redis))
	c.say("+OK", "auth alice any")
	c.say("+PONG | +PONG | -ERR… | +OK | nil", "replconf ack 5", "ping", "replconf GETACK *", "replconf ack 5 capa eof", "ping", "replconf ack", "replconf capa eof", "get nosuch")
	c.say("-NOPERM… | nil", "replconf capa eof ack 5", "get nosuch")
	c.say("+OK | -NOPERM… | -NOPERM… | *[]", "multi", "replconf ack 5", "psync ? -1", "exec")
	if got := c.bulk("replconf", "ACK\x00x", "5", "x"); !strings.HasPrefix(got, "-ERR") {
		t.Fatal(got)
	}
	c.Write(wire.Append(nil, "replconf", "ACK\x00x", "5"))
	c.say("-ERR unknown command…", "nosuch")
	q := w.Queries()
	has(t, q, "nosuch !ERR unknown command")
	has(t, q, "replconf ack 5")
	hasNot(t, q, "ping !")
}

// TestQueuedIsNotDone: a transaction that a wrong EXEC did not end keeps the database.
func TestQueuedIsNotDone(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "three"), target.Redis))
	c.say("+OK | +OK | +OK | -ERR… | +QUEUED | -EXECABORT… | +OK", "auth alice any", "select 3", "multi", "discard x", "select 99", "exec", "set where v")
	has(t, w.Queries(), "alice/3: exec\nset where v")
}

// TestRefusalsWait: answers of the door's own that wait behind a command that blocks are bounded.
func TestRefusalsWait(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	c.say("+OK", "auth alice any")
	c.send("blpop nothing 0")
	b := bytes.Repeat([]byte("AUTH\r\n"), 1<<16)
	c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	for sent := 0; ; {
		n, err := c.Write(b)
		if sent += n; err != nil {
			return // it waits
		}
		if sent > 16<<20 {
			t.Fatalf("%d bytes of refused commands are taken while none is answered", sent)
		}
	}
}

// TestDataAreNoMessages: with RESP3 messages have a kind of their own, and data that look like one are data.
func TestDataAreNoMessages(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	c.send("hello 3 auth alice any")
	c.reply()
	c.send("subscribe ch")
	c.reply()
	c.say(":2 | *[message x] | -ERR…", "rpush l message x", "lrange l 0 -1", "nosuch")
	c.say("+OK", "select 1")
	has(t, w.Queries(), "nosuch !ERR")
}
