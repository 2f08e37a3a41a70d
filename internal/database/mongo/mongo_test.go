package mongo

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	driver "go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/mongo"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/door"
	"github.com/sallyport/sallyport/internal/peer/mongo"
	"github.com/sallyport/sallyport/internal/target"
)

func world(t *testing.T) (*door.World, *mongo.Server) {
	t.Helper()
	leaks(t)
	passwords := map[string]string{"carol": "carol's, own=", "wrong": "right"}
	s := mongo.Start(t, passwords)
	servers := &door.Servers{Addr: s.Addr, Authority: s.Authority, Passwords: map[string]string{"carol": "carol's, own=", "wrong": "no"}}
	return door.New(t, servers, map[target.Protocol]database.Engine{target.MongoDB: New()},
		door.Role("orders", []string{"alice", "carol", "wrong"}, []string{"orders", "more"})), s
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

func has(t *testing.T, all []string, want string) {
	t.Helper()
	if !slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, want) }) {
		for i, s := range all {
			all[i] = s[:min(len(s), 300)]
		}
		t.Fatalf("%q is not there:\n%s", want, strings.Join(all, "\n"))
	}
}

func hasNot(t *testing.T, all []string, bad string) {
	t.Helper()
	if slices.ContainsFunc(all, func(s string) bool { return strings.Contains(s, bad) }) {
		t.Fatalf("%q is there:\n%s", bad, strings.Join(all, "\n"))
	}
}

func client(t *testing.T, addr string, auth *options.Credential) *driver.Client {
	t.Helper()
	o := options.Client().ApplyURI("mongodb://" + addr + "/?compressors=zlib,snappy&serverSelectionTimeoutMS=5000&timeoutMS=15000")
	if auth != nil {
		o.SetAuth(*auth)
	}
	c, err := driver.Connect(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		c.Disconnect(ctx)
	})
	return c
}

func bytesOf(n int) string { return strings.Repeat("x", n) }

// TestDriver is the real driver, by each way to say who one is.
func TestDriver(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MongoDB)
	for name, c := range map[string]struct {
		auth *options.Credential
		user string
	}{
		"x509":                      {&options.Credential{AuthMechanism: "MONGODB-X509", AuthSource: "$external", Username: "CN=alice"}, "alice"},
		"x509 without a name":       {&options.Credential{AuthMechanism: "MONGODB-X509", AuthSource: "$external"}, "alice"},
		"scram":                     {&options.Credential{Username: "alice", Password: Password}, "alice"},
		"scram, a password at last": {&options.Credential{Username: "carol", Password: Password, AuthMechanism: "SCRAM-SHA-256"}, "carol"},
		"plain":                     {&options.Credential{Username: "carol", Password: "anything", AuthMechanism: "PLAIN", AuthSource: "$external", PasswordSet: true}, "carol"},
		"nothing":                   {nil, "alice"},
	} {
		t.Run(name, func(t *testing.T) {
			db := client(t, addr, c.auth).Database("orders")
			ctx := t.Context()
			coll := db.Collection("c" + strings.ReplaceAll(name, " ", ""))
			var who bson.M
			if err := db.RunCommand(ctx, bson.D{{Key: "connectionStatus", Value: 1}}).Decode(&who); err != nil || who["user"] != c.user {
				t.Fatal(who, err)
			}
			docs := make([]any, 500)
			for i := range docs {
				docs[i] = bson.D{{Key: "i", Value: i}, {Key: "x", Value: bytesOf(100)}}
			}
			if _, err := coll.InsertMany(ctx, docs); err != nil {
				t.Fatal(err)
			}
			cur, err := coll.Find(ctx, bson.D{{Key: "i", Value: bson.D{{Key: "$gte", Value: 0}}}}, options.Find().SetBatchSize(100))
			if err != nil {
				t.Fatal(err)
			}
			var all []bson.M
			if err := cur.All(ctx, &all); err != nil || len(all) != 500 {
				t.Fatal(len(all), err)
			}
			cur, err = coll.Find(ctx, bson.D{}, options.Find().SetBatchSize(10))
			if err != nil {
				t.Fatal(err)
			}
			cur.Next(ctx)
			if err := cur.Close(ctx); err != nil { // killCursors
				t.Fatal(err)
			}
			has(t, s.Seen(), c.user+"/orders.getMore")
			has(t, s.Seen(), c.user+"/orders.killCursors")
			has(t, w.Queries(), `{"find":"`+coll.Name()+`","batchSize":100,"filter":{"i":{"$gte":0}}`)
		})
	}
	has(t, w.Queries(), `"documents":[{"_id":{"$oid":"`)
	for _, q := range w.Queries() {
		if len(q) > wire.MaxText+200 {
			t.Fatalf("%d bytes of a command on record", len(q))
		}
	}
}

func TestOutcomes(t *testing.T) {
	w, s := world(t)
	c := client(t, w.Listen(door.User("alice", "orders"), target.MongoDB), nil)
	ctx := t.Context()
	orders := c.Database("orders")
	if err := orders.RunCommand(ctx, bson.D{{Key: "nosuch", Value: 1}}).Err(); err == nil || !strings.Contains(err.Error(), "no such command") {
		t.Fatal(err)
	}
	if _, err := orders.Collection("c").InsertOne(ctx, bson.D{{Key: "bad", Value: true}}); err == nil || !strings.Contains(err.Error(), "failed validation") {
		t.Fatal(err)
	}
	big := bytesOf(15 << 20)
	for range 3 {
		if _, err := orders.Collection("big").InsertOne(ctx, bson.D{{Key: "x", Value: big}}); err != nil {
			t.Fatal(err)
		}
	}
	var got []bson.M
	cur, err := orders.Collection("big").Find(ctx, bson.D{}, options.Find().SetBatchSize(2))
	if err != nil {
		t.Fatal(err)
	}
	if err := cur.All(ctx, &got); err != nil || len(got) != 3 || got[2]["x"] != big {
		t.Fatal(len(got), err)
	}
	loose := c.Database("orders", options.Database().SetWriteConcern(writeconcern.Unacknowledged()))
	if _, err := loose.Collection("loose").InsertOne(ctx, bson.D{{Key: "a", Value: 1}}); err != nil {
		t.Fatal(err)
	}
	if err := orders.RunCommand(ctx, bson.D{{Key: "ping", Value: 1}}).Err(); err != nil {
		t.Fatal(err)
	}
	q := w.Queries()
	has(t, q, `alice/orders: {"nosuch":1`)
	has(t, q, `!no such command: 'nosuch' (59)`)
	has(t, q, `!Document failed validation (121)`)
	has(t, q, `{"insert":"loose"`)
	// Other databases: another's, in each way that a command can name one.
	for _, d := range []bson.D{
		{{Key: "aggregate", Value: "c"}, {Key: "pipeline", Value: bson.A{bson.D{{Key: "$out", Value: bson.D{{Key: "db", Value: "secrets"}, {Key: "coll", Value: "x"}}}}}}, {Key: "cursor", Value: bson.D{}}},
		{{Key: "aggregate", Value: "c"}, {Key: "pipeline", Value: bson.A{bson.D{{Key: "$merge", Value: bson.D{{Key: "into", Value: bson.D{{Key: "db", Value: "secrets"}, {Key: "coll", Value: "x"}}}}}}}}, {Key: "cursor", Value: bson.D{}}},
		{{Key: "aggregate", Value: "c"}, {Key: "pipeline", Value: bson.A{bson.D{{Key: "$facet", Value: bson.D{{Key: "a", Value: bson.A{bson.D{{Key: "$lookup", Value: bson.D{{Key: "from", Value: bson.D{{Key: "db", Value: "secrets"}, {Key: "coll", Value: "x"}}}}}}}}}}}}}, {Key: "cursor", Value: bson.D{}}},
		{{Key: "renameCollection", Value: "orders.c"}, {Key: "to", Value: "secrets.c"}},
		{{Key: "bulkWrite", Value: 1}, {Key: "nsInfo", Value: bson.A{bson.D{{Key: "ns", Value: "secrets.c"}}}}},
		{{Key: "explain", Value: bson.D{{Key: "find", Value: "c"}, {Key: "$db", Value: "secrets"}}}},
	} {
		if err := orders.RunCommand(ctx, d).Err(); err == nil || !strings.Contains(err.Error(), "(Unauthorized)") {
			t.Errorf("%v: %v", d, err)
		}
	}
	for _, name := range []string{"secrets", "Orders", "admin"} {
		if err := c.Database(name).RunCommand(ctx, bson.D{{Key: "find", Value: "t"}}).Err(); err == nil || !strings.Contains(err.Error(), "(Unauthorized)") {
			t.Errorf("%s: %v", name, err)
		}
		hasNot(t, s.Seen(), "/"+name+".find")
	}
	has(t, w.Queries(), `alice/secrets: {"find":"t"`)
}

func TestRefused(t *testing.T) {
	w, _ := world(t)
	addr := w.Listen(door.User("mallory", "orders"), target.MongoDB)
	for name, c := range map[string]struct {
		auth *options.Credential
		want string
	}{
		"another user":         {&options.Credential{Username: "root", Password: Password}, "AuthenticationFailed"},
		"in other case":        {&options.Credential{AuthMechanism: "MONGODB-X509", AuthSource: "$external", Username: "Alice"}, "AuthenticationFailed"},
		"a password":           {&options.Credential{Username: "alice", Password: "secret"}, "the password here is"},
		"nobody":               {nil, "AuthenticationFailed"},
		"the agent's is wrong": {&options.Credential{Username: "wrong", Password: Password}, "Authentication failed"},
		"a mechanism":          {&options.Credential{Username: "alice", Password: "x", AuthMechanism: "SCRAM-SHA-1"}, "MechanismUnavailable"},
	} {
		err := client(t, addr, c.auth).Database("orders").RunCommand(t.Context(), bson.D{{Key: "find", Value: "c"}}).Err()
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, ev := range w.Events(event.Auth) {
		if ev["reason"] != "not_granted" || ev["user"] != "mallory" {
			t.Errorf("%v", ev)
		}
	}
	if len(w.Queries()) != 0 {
		t.Errorf("%v", w.Queries())
	}
}

// raw is a connection without a driver, on which nothing has been said.
func raw(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func command(db string, name string) []byte {
	return wire.AppendCommand(nil, 5, wire.Build(wire.Field{Name: name, Value: 1}, wire.Field{Name: "$db", Value: db}))
}

func TestA9LiveConnections(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MongoDB)
	for _, last := range []string{"ping", "sleep"} {
		c := raw(t, addr)
		c.Write(command("orders", "ping"))
		head := make([]byte, 38)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if last == "sleep" {
			c.Write(command("orders", last))
			for !slices.Contains(s.Seen(), "alice/orders.sleep") {
			}
		}
		began := time.Now()
		w.Put(&lock.Lock{Name: "stop", Target: lock.Target{User: "alice"}, Message: "the laptop is lost"})
		rest, err := io.ReadAll(c)
		if err != nil || time.Since(began) > time.Second || strings.Contains(string(rest), "the laptop is lost") != (last == "sleep") {
			t.Errorf("%s: %q %v after %s", last, rest, err, time.Since(began))
		}
		err = client(t, addr, nil).Database("orders").RunCommand(t.Context(), bson.D{{Key: "ping", Value: 1}}).Err()
		if err == nil || !strings.Contains(err.Error(), "the laptop is lost") {
			t.Errorf("a new connection: %v", err)
		}
		w.Drop("lock", "stop")
	}
	has(t, w.Queries(), `{"sleep":1} !the connection ended before the server answered`)
}

func TestKilledServer(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MongoDB)
	idle, waits := raw(t, addr), raw(t, addr)
	idle.Write(command("orders", "ping"))
	if _, err := io.ReadFull(idle, make([]byte, 38)); err != nil {
		t.Fatal(err)
	}
	waits.Write(command("orders", "sleep"))
	for !slices.Contains(s.Seen(), "alice/orders.sleep") {
	}
	began := time.Now()
	go s.Kill()
	if rest, err := io.ReadAll(waits); err != nil || !strings.Contains(string(rest), "the connection to the database server is lost") {
		t.Errorf("%q %v", rest, err)
	}
	if rest, err := io.ReadAll(idle); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
	if d := time.Since(began); d > time.Second {
		t.Errorf("after %s", d)
	}
}

// TestA62Door are messages that no client sends.
func TestA62Door(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MongoDB)
	good := command("secrets", "find")
	patch := func(at int, v uint32) []byte {
		b := slices.Clone(good)
		binary.LittleEndian.PutUint32(b[at:], v)
		return b
	}
	twice := wire.AppendCommand(nil, 5, wire.Build(wire.Field{Name: "find", Value: "t"}, wire.Field{Name: "$db", Value: "orders"}, wire.Field{Name: "$db", Value: "secrets"}))
	two := append(slices.Clone(good), good[20:]...)
	binary.LittleEndian.PutUint32(two, uint32(len(two)))
	for name, b := range map[string][]byte{
		"a length that is negative":     patch(0, 1<<31),
		"a length over the limit":       patch(0, wire.MaxMessage+1),
		"a length under the header's":   patch(0, 4),
		"compressed":                    patch(12, wire.OpCompressed),
		"an opcode of old":              patch(12, 2001),
		"a flag that is not known":      patch(16, 1<<5),
		"a checksum that is not there":  patch(16, wire.FlagChecksum),
		"a document longer than itself": patch(21, 1<<30),
		"two documents":                 two,
		"two databases":                 twice,
		"no database":                   wire.AppendCommand(nil, 5, wire.Build(wire.Field{Name: "find", Value: "t"})),
	} {
		c := raw(t, addr)
		c.Write(b)
		c.(*net.TCPConn).CloseWrite()
		rest, err := io.ReadAll(c)
		if err != nil && !strings.Contains(err.Error(), "reset") || len(rest) > 0 && !strings.Contains(string(rest), "FailedToParse") {
			t.Errorf("%s: %q %v", name, rest, err)
		}
	}
	hasNot(t, s.Seen(), "find")
}

// TestA62BeforeAdmission: of who was not let in nothing long is held, whoever it says it is, and the answer is the protocol's.
func TestA62BeforeAdmission(t *testing.T) {
	w, s := world(t)
	addr := w.Listen(door.User("mallory", "orders"), target.MongoDB)
	const size = 40 << 20
	for _, name := range []string{"saslStart", "hello", "insert", "ping"} {
		b := wire.AppendCommand(nil, 77, wire.Build(wire.Field{Name: name, Value: "t"}, wire.Field{Name: "x", Value: make([]byte, size)}, wire.Field{Name: "$db", Value: "orders"}))
		c := raw(t, addr)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		for range 2 { // it may be tried again
			if _, err := c.Write(b); err != nil {
				t.Fatal(err)
			}
			head := make([]byte, wire.HeaderLen)
			if _, err := io.ReadFull(c, head); err != nil {
				t.Fatal(err)
			}
			h, err := wire.ParseHeader(head)
			if err != nil || h.To != 77 || h.Opcode != wire.OpMsg {
				t.Fatalf("%+v %v", h, err)
			}
			rest := make([]byte, h.Length-wire.HeaderLen)
			if _, err := io.ReadFull(c, rest); err != nil || !strings.Contains(string(rest), "AuthenticationFailed") {
				t.Fatalf("%q %v", rest, err)
			}
		}
		if runtime.ReadMemStats(&after); after.TotalAlloc-before.TotalAlloc > 1<<20 {
			t.Errorf("%s: %d bytes were allocated", name, after.TotalAlloc-before.TotalAlloc)
		}
		c.Close()
	}
	old := wire.AppendCommand(nil, 77, wire.Build(wire.Field{Name: "isMaster", Value: make([]byte, 1<<20)}))
	binary.LittleEndian.PutUint32(old[12:], wire.OpQuery)
	c := raw(t, addr)
	c.Write(old)
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("%q", rest)
	}
	if n := len(s.Seen()); n != 0 {
		t.Errorf("%d commands came to the server", n)
	}
	// Who may be let in may begin with a long one, for drivers need not authenticate.
	addr = w.Listen(door.User("alice", "orders"), target.MongoDB)
	for _, n := range []int{maxUnknown, 15 << 20} {
		b := wire.AppendCommand(nil, 78, wire.Build(wire.Field{Name: "insert", Value: "t"}, wire.Field{Name: "documents", Value: wire.Build(wire.Field{Name: "x", Value: make([]byte, n)})},
			wire.Field{Name: "$db", Value: "orders"}))
		c = raw(t, addr)
		c.Write(b)
		head := make([]byte, wire.HeaderLen)
		if _, err := io.ReadFull(c, head); err != nil {
			t.Fatal(err)
		}
		if h, err := wire.ParseHeader(head); err != nil || h.To != 78 {
			t.Fatalf("%+v %v", h, err)
		}
	}
	has(t, s.Seen(), "alice/orders.insert")
}

// TestA78Secrets are passwords in commands.
func TestA78Secrets(t *testing.T) {
	w, _ := world(t)
	c := client(t, w.Listen(door.User("alice", "orders"), target.MongoDB), &options.Credential{AuthMechanism: "PLAIN", Username: "alice", Password: "hunter2", AuthSource: "$external", PasswordSet: true})
	for _, name := range []string{"createUser", "updateUser"} {
		c.Database("orders").RunCommand(t.Context(), bson.D{{Key: name, Value: "dave"}, {Key: "pwd", Value: "hunter2"}, {Key: "roles", Value: bson.A{"read"}}})
	}
	c.Database("orders").RunCommand(t.Context(), bson.D{{Key: "setParameter", Value: 1}, {Key: "ldapQueryPassword", Value: "hunter2"}})
	c.Database("admin").RunCommand(t.Context(), bson.D{{Key: "setParameter", Value: 1}, {Key: "ldapQueryPassword", Value: "hunter2"}})
	has(t, w.Queries(), `{"setParameter":1,"ldapQueryPassword":"***"`)
	has(t, w.Queries(), `{"createUser":"dave","pwd":"***","roles":["read"]`)
	has(t, w.Queries(), `{"updateUser":"dave","pwd":"***"`)
	for _, ev := range w.Events() {
		b, _ := bson.MarshalExtJSON(bson.M(ev), false, false)
		if strings.Contains(string(b), "hunter2") {
			t.Errorf("%s", b)
		}
	}
}

// TestShell is mongosh, which scripts/peers.sh installs from npm.
func TestShell(t *testing.T) {
	path := peer.Any(t, "../../../test/clients/node_modules/.bin/mongosh")
	w, _ := world(t)
	addr := w.Listen(door.User("alice", "orders"), target.MongoDB)
	for _, uri := range []string{"mongodb://" + addr + "/orders", "mongodb://alice:" + Password + "@" + addr + "/orders?authSource=admin", "mongodb://CN%3Dalice@" + addr + "/orders?authMechanism=MONGODB-X509"} {
		cmd := exec.Command(path, "--quiet", "--norc", uri, "--eval", "db.t.insertOne({a: 1}); print('found', db.t.find().toArray().length > 0); try { db.getSiblingDB('secrets').t.findOne() } catch (e) { print(e.codeName) }")
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "found true") || !strings.Contains(string(out), "Unauthorized") {
			t.Errorf("%s: %v\n%s", uri, err, out)
		}
	}
}
