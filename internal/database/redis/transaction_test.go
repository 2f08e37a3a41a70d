package redis

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/peer/door"
	"github.com/sallyport/sallyport/internal/target"
)

// queue begins a transaction of commands.
func (c *talk) queue(commands ...string) {
	c.t.Helper()
	c.say("+OK"+strings.Repeat(" | +QUEUED", len(commands)), append([]string{"MULTI"}, commands...)...)
}

// TestTransactionsOnRecord: what EXEC says of each command is on record as that command's, in both protocols.
func TestTransactionsOnRecord(t *testing.T) {
	for _, version := range []string{"2", "3"} {
		w, s := world(t)
		c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
		c.send("HELLO " + version + " AUTH alice x")
		c.reply()
		c.say("+OK", "SET s x")
		c.queue("LPUSH s first", "SET k 1", "EVAL return{1,redis.error_reply('deep')} 0", "GET nosuch", "LPUSH s last")
		c.say("*[-WRONGTYPE… | 1", "EXEC", "GET k")
		q := w.Queries()
		has(t, q, "LPUSH s first !WRONGTYPE Operation against")
		has(t, q, "LPUSH s last !WRONGTYPE Operation against")
		has(t, q, "EVAL return{1,redis.error_reply('deep')} 0 !within its reply: ")
		hasNot(t, q, "SET k 1 !")
		hasNot(t, q, "GET nosuch !")

		// Nothing of it ran: a watched key, a command that was not taken, DISCARD.
		c.say("+OK", "WATCH k")
		s.Do(t, "set", "k", "2")
		c.queue("SET k 3", "LPUSH s x")
		c.say(map[string]string{"2": "*[]", "3": "_"}[version], "EXEC")
		c.queue("SET k 4")
		c.say("-ERR unknown command… | -EXECABORT…", "NOSUCH", "EXEC")
		c.queue("SET k 5")
		c.say("+OK", "DISCARD")
		c.queue("SET k 6")
		c.say("+RESET | 2", "RESET", "GET k")
		c.send("HELLO " + version)
		c.reply()
		q = w.Queries()
		has(t, q, "SET k 3\nLPUSH s x !not run: a key that was watched had changed")
		has(t, q, "SET k 4 !not run: the transaction was discarded")
		has(t, q, "EXEC !EXECABORT")
		has(t, q, "SET k 5 !not run: DISCARD")
		has(t, q, "SET k 6 !not run: ")

		// The connection ends: before EXEC nothing ran.
		c.queue("SET k 7")
		c.Close()
		for end := time.Now().Add(10 * time.Second); !slices.ContainsFunc(w.Queries(), func(s string) bool { return strings.Contains(s, "SET k 7 !not run") }); {
			if time.Now().After(end) {
				t.Fatalf("%q", w.Queries())
			}
		}
	}
}

// TestExecOnRecordFirst: the error of a command in a long EXEC is on record when the client reads it, and what is before it
// has not waited for it.
func TestExecOnRecordFirst(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	c.say("+OK | +OK", "AUTH alice x", "SET s x")
	big := strings.Repeat("0123456789abcdef", 1<<18)
	c.Write(wire.Append(nil, "SET", "big", big))
	c.expect("+OK")
	c.queue("GET big", "LPUSH s one", "GET big", "LPUSH s two")
	c.send("EXEC")
	if l, err := c.r.ReadString('\n'); err != nil || l != "*4\r\n" {
		t.Fatal(l, err)
	}
	for _, name := range []string{"one", "two"} {
		if got := c.reply(); got != big {
			t.Fatalf("%.40q", got)
		}
		if got := c.reply(); !strings.HasPrefix(got, "-WRONGTYPE") {
			t.Fatalf("%.40q", got)
		}
		has(t, w.Queries(), "LPUSH s "+name+" !WRONGTYPE")
	}
}

// watched is a client's connection that shows what is written to it.
type watched struct {
	net.Conn
	wrote func([]byte)
}

func (w watched) Write(b []byte) (int, error) {
	w.wrote(b)
	return len(b), nil
}

// TestRecordedBeforeWritten: nothing of an error goes to the client before it is recorded, wherever the pieces end.
func TestRecordedBeforeWritten(t *testing.T) {
	const all = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$3\r\nabc\r\n-ERR one\r\n-ERR two\r\n"
	for step := 1; step <= len(all); step++ {
		var sent, recorded string
		r := newReplies(watched{wrote: func(b []byte) {
			sent += string(b)
			for _, word := range []string{"one", "two"} {
				if strings.Contains(sent, "-ERR "+word) && !strings.Contains(recorded, word) {
					t.Fatalf("in steps of %d: %q went out before it was on record", step, word)
				}
			}
		}})
		r.ledger.Sent(wire.Entry{Text: "MULTI", Role: wire.RoleOf([]byte("MULTI"))}, wire.Entry{Text: "a"}, wire.Entry{Text: "b"},
			wire.Entry{Text: "EXEC", Role: wire.RoleOf([]byte("EXEC"))}, wire.Entry{Text: "c"})
		var reply wire.Reply
		var buf []byte
		for at := 0; at < len(all); at += step {
			buf = append(buf, all[at:min(at+step, len(all))]...)
			taken, err := r.take(buf, &reply, func(f wire.Failure) error {
				recorded += f.Text + ": " + f.Message + "\n"
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			buf = buf[taken:]
		}
		if sent != all || recorded != "b: ERR one\nc: ERR two\n" {
			t.Errorf("in steps of %d: %q, recorded %q", step, sent, recorded)
		}
	}
	// Where it cannot be recorded nothing of it goes out.
	r := newReplies(watched{wrote: func(b []byte) { t.Errorf("%q went out", b) }})
	r.ledger.Sent(wire.Entry{Text: "a"})
	if _, err := r.take([]byte("-ERR one\r\n"), new(wire.Reply), func(wire.Failure) error { return io.ErrShortWrite }); err == nil {
		t.Error("a record that failed is passed over")
	}
}

// TestA78TransactionSecrets: errors of queued commands that may cite a secret.
func TestA78TransactionSecrets(t *testing.T) {
	w, _ := world(t)
	c := dial(t, w.Listen(door.User("alice", "some"), target.Redis))
	c.say("+OK", "AUTH alice x")
	c.queue("ACL SETUSER dave #hunter2", "CONFIG SET nosuch 1 masterauth hunter2")
	c.send("EXEC")
	c.reply()
	has(t, w.Queries(), "ACL SETUSER dave #***\nCONFIG SET nosuch 1 masterauth *** !"+wire.LeftOut)
	for _, ev := range w.Queries() {
		if strings.Contains(ev, "hunter2") {
			t.Errorf("%s", ev)
		}
	}
}

// BenchmarkPipeline is what redis-benchmark -P 16 does, on one connection.
func BenchmarkPipeline(b *testing.B) {
	w, _ := world(b)
	c := dial(b, w.Listen(door.User("alice", "some"), target.Redis))
	c.say("+OK", "AUTH alice x")
	commands := []byte{}
	for range 16 {
		commands = wire.Append(commands, "SET", "key:000000000042", "xxx")
	}
	replies := make([]byte, 16*len("+OK\r\n"))
	for b.Loop() {
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(commands); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(c.r, replies); err != nil {
			b.Fatal(err)
		}
	}
}
