package redis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// play gives a ledger commands and replies as they are on the wire, and keeps what it tells of failures.
type play struct {
	t *testing.T
	Ledger
	reply Reply
	step  int // bytes that come at once; 0: all
	out   []string
}

func (p *play) note(f Failure) {
	p.out = append(p.out, strings.ReplaceAll(f.Text, "\n", ";")+" => "+f.Message)
}

func (p *play) sends(commands ...string) {
	for _, s := range commands {
		words := strings.Fields(s)
		p.Sent(Entry{Text: s, Role: RoleOf([]byte(words[0])), Args: len(words) - 1, Secret: strings.Contains(s, "secret")})
	}
}

// answers says replies, a line each without its end.
func (p *play) answers(lines ...string) {
	p.t.Helper()
	if err := p.try(lines...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) try(lines ...string) error {
	b := []byte(strings.Join(lines, "\r\n") + "\r\n")
	step := p.step
	if step == 0 {
		step = len(b)
	}
	for at, have := 0, 0; at < len(b); {
		have = min(have+step, len(b))
		for at < have {
			n, done, err := p.reply.Next(b[at:have])
			if at += n; err != nil {
				return err
			}
			if err := p.Answer(&p.reply, done, p.note); err != nil {
				return err
			}
			if !done {
				break
			}
			p.reply.Reset()
		}
	}
	return nil
}

func (p *play) wants(want ...string) {
	p.t.Helper()
	if fmt.Sprintf("%q", p.out) != fmt.Sprintf("%q", want) {
		p.t.Errorf("in steps of %d:\ntold %q\nwant %q", p.step, p.out, want)
	}
	p.out = nil
}

// TestTransactions are the replies of redis-server 7.0 to EXEC: each error among them is its command's.
func TestTransactions(t *testing.T) {
	for _, c := range []struct {
		name     string
		commands string
		replies  []string
		want     []string
	}{
		{"all well", "multi;set a 1;incr a;exec", []string{"+OK", "+QUEUED", "+QUEUED", "*2", "+OK", ":2"}, nil},
		{"one fails", "multi;set a 1;lpush a x;get a;exec;get a", []string{"+OK", "+QUEUED", "+QUEUED", "+QUEUED", "*3", "+OK", "-WRONGTYPE no", "$1", "1", "$1", "1"},
			[]string{"lpush a x => WRONGTYPE no"}},
		{"the first and the last", "multi;a;b;c;exec", []string{"+OK", "+QUEUED", "+QUEUED", "+QUEUED", "*3", "-ERR 1", "*2", ":1", "*1", ":2", "-ERR 3"}, []string{"a => ERR 1", "c => ERR 3"}},
		{"deep in an element, once", "multi;eval x;eval y;exec", []string{"+OK", "+QUEUED", "+QUEUED", "*2", "*3", ":1", "*1", "-ERR deep", "-ERR too", "-ERR flat"},
			[]string{"eval x => within its reply: ERR deep", "eval y => ERR flat"}},
		{"behind strings of any length", "multi;get big;bad;exec", []string{"+OK", "+QUEUED", "+QUEUED", "*2", "$5000", strings.Repeat("-ERR x\r\n", 625), "-ERR y"}, []string{"bad => ERR y"}},
		{"an error of any length", "multi;a;b;exec", []string{"+OK", "+QUEUED", "+QUEUED", "*2", "!5000", "SYNTAX " + strings.Repeat("x", 4993), "!4", "ERR2"},
			[]string{"a => SYNTAX " + strings.Repeat("x", maxText-7), "b => ERR2"}},
		{"RESP3, with what comes unasked and attributes", "multi;a;b;c;exec", []string{"+OK", ">2", "+invalidate", "*1", "$1", "a", "+QUEUED", "+QUEUED", "+QUEUED", "|1", "+k", "-ERR none", "*3",
			"%1", "+k", "|1", "+k", "-ERR none", "+v", "|1", "+x", "-ERR none", "~1", "-ERR b", "_"}, []string{"b => within its reply: ERR b"}},
		{"a watched key", "multi;set a 1;set b 2;exec;get a", []string{"+OK", "+QUEUED", "+QUEUED", "*-1", "$-1"}, []string{"set a 1;set b 2 => not run: a key that was watched had changed"}},
		{"a watched key, RESP3", "multi;set a 1;exec", []string{"+OK", "+QUEUED", "_"}, []string{"set a 1 => not run: a key that was watched had changed"}},
		{"no commands", "multi;exec", []string{"+OK", "*0"}, nil},
		{"one that is not taken", "multi;nosuch;set a 1;exec", []string{"+OK", "-ERR unknown", "+QUEUED", "-EXECABORT Transaction discarded because of previous errors."},
			[]string{"nosuch => ERR unknown", "set a 1 => not run: the transaction was discarded", "exec => EXECABORT Transaction discarded because of previous errors."}},
		{"discarded", "multi;set a 1;discard;exec", []string{"+OK", "+QUEUED", "+OK", "-ERR EXEC without MULTI"}, []string{"set a 1 => not run: DISCARD", "exec => ERR EXEC without MULTI"}},
		{"a wrong discard", "multi;set a 1;discard x;get a;exec", []string{"+OK", "+QUEUED", "-ERR wrong number", "+QUEUED", "-EXECABORT x"},
			[]string{"discard x => ERR wrong number", "set a 1;get a => not run: the transaction was discarded", "exec => EXECABORT x"}},
		{"nested", "multi;multi;set a 1;watch a;exec", []string{"+OK", "-ERR nested", "+QUEUED", "-ERR WATCH inside", "*1", "-ERR x"}, []string{"multi => ERR nested", "watch a => ERR WATCH inside", "set a 1 => ERR x"}},
		{"two", "multi;a;exec;multi;b;exec", []string{"+OK", "+QUEUED", "*1", ":1", "+OK", "+QUEUED", "*1", "-ERR b"}, []string{"b => ERR b"}},
		{"secrets", "multi;secret a;b;exec;secret c", []string{"+OK", "+QUEUED", "+QUEUED", "*2", "-ERR hunter2", "-ERR b", "-ERR hunter2"},
			[]string{"secret a => " + LeftOut, "b => ERR b", "secret c => " + LeftOut}},
		{"without MULTI, within", "eval x;get a", []string{"*3", ":1", "-ERR one", "-ERR two", "-ERR three"}, []string{"eval x => within its reply: ERR one", "get a => ERR three"}},
		{"an error that is a string", "get a", []string{"!5", "ERR x"}, []string{"get a => ERR x"}},
		{"the word of a script", "eval x;get a", []string{"+QUEUED", "-ERR"}, []string{"get a => ERR"}},
		{"the server leaves it", "multi;set a 1;get a", []string{"+OK", "+QUEUED", "$1", "x"}, []string{"set a 1 => the server left the transaction without saying what became of it"}},
	} {
		for _, step := range []int{0, 1, 7} {
			p := &play{t: t, step: step}
			p.sends(strings.Split(c.commands, ";")...)
			p.answers(c.replies...)
			p.wants(c.want...)
			if !p.Idle() || p.open.begun || p.open.count > 0 || p.text != 0 {
				t.Errorf("%s, in steps of %d: something is left: %+v", c.name, step, p.Ledger)
			}
		}
	}
}

// TestToldBeforeTheRest: an element's error is told when it comes, not when all of EXEC's reply is there.
func TestToldBeforeTheRest(t *testing.T) {
	p := &play{t: t}
	p.sends("multi", "a", "b", "c", "exec")
	p.answers("+OK", "+QUEUED", "+QUEUED", "+QUEUED", "*3", "-ERR a", "$1000000", "begin")
	p.wants("a => ERR a")
	p.Abandon(p.note)
	p.wants("b;c => the connection ended before the server answered", "exec => the connection ended before the server answered")
}

func TestAbandoned(t *testing.T) {
	for want, c := range map[string]struct {
		commands string
		replies  []string
	}{
		"set a 1 => not run: the connection ended before EXEC":                                                                     {"multi;set a 1", []string{"+OK", "+QUEUED"}},
		"set a 1 => not run: the connection ended before EXEC|set b 2 => the connection ended before the server answered":          {"multi;set a 1;set b 2", []string{"+OK", "+QUEUED"}},
		"set a 1 => not run: the connection ended before EXEC|discard;exec => the connection ended before the server answered":     {"multi;set a 1;discard;exec", []string{"+OK", "+QUEUED"}},
		"set a 1 => the connection ended before the server answered|get b;exec => the connection ended before the server answered": {"multi;set a 1;get b;exec", []string{"+OK", "+QUEUED"}},
		"multi;set a 1;exec => the connection ended before the server answered":                                                    {"multi;set a 1;exec", nil},
		"": {"get a", []string{"-1"}},
	} {
		p := &play{t: t}
		p.sends(strings.Split(c.commands, ";")...)
		if c.replies != nil && want != "" {
			p.answers(c.replies...)
		} else if want == "" {
			p.answers("+OK")
		}
		p.Abandon(p.note)
		if got := strings.Join(p.out, "|"); got != want {
			t.Errorf("%s: %q, want %q", c.commands, got, want)
		}
	}
	p := &play{t: t}
	p.sends("multi", "set a 1")
	p.answers("+OK", "+QUEUED")
	p.Renew(p.note)
	p.wants("set a 1 => not run: the transaction ended with its connection to the server")
	p.sends("get a")
	p.answers("+QUEUED")
	p.wants()
}

// TestSubscriptions are acknowledgements, as many as redis-server 7.0 gives, in either protocol.
func TestSubscriptions(t *testing.T) {
	ack := func(kind, word, channel string, n int) string {
		if channel == "" {
			return fmt.Sprintf("%s3\r\n$%d\r\n%s\r\n$-1\r\n:%d", kind, len(word), word, n)
		}
		return fmt.Sprintf("%s3\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n:%d", kind, len(word), word, len(channel), channel, n)
	}
	const data = "*2\r\n$7\r\nmessage\r\n$1\r\nx"
	for _, kind := range []string{"*", ">"} {
		a := func(word, channel string, n int) string { return ack(kind, word, channel, n) }
		message := kind + "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx"
		for name, c := range map[string]struct {
			commands string
			replies  []string
			want     []string
		}{
			"from all, twice": {"subscribe a b;unsubscribe;unsubscribe;bad", []string{a("subscribe", "a", 1), message, a("subscribe", "b", 2), a("unsubscribe", "a", 1), message,
				a("unsubscribe", "b", 0), a("unsubscribe", "", 0), "-ERR bad"}, []string{"bad => ERR bad"}},
			"shards are counted apart": {"subscribe a;ssubscribe s;sunsubscribe s;bad;unsubscribe;lrange l;bad2", []string{a("subscribe", "a", 1), a("ssubscribe", "s", 1), a("sunsubscribe", "s", 0), message,
				"-ERR bad", message, a("unsubscribe", "a", 0), data, "-ERR bad2"}, []string{"bad => ERR bad", "bad2 => ERR bad2"}},
			"shards stay": {"ssubscribe s t;subscribe a;unsubscribe;bad;sunsubscribe;lrange l;bad2", []string{a("ssubscribe", "s", 1), a("ssubscribe", "t", 2), a("subscribe", "a", 1), a("unsubscribe", "a", 0),
				kind + "3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx", "-ERR bad", a("sunsubscribe", "t", 1), a("sunsubscribe", "s", 0), data, "-ERR bad2"}, []string{"bad => ERR bad", "bad2 => ERR bad2"}},
			"patterns": {"psubscribe p* q*;subscribe a b;punsubscribe;unsubscribe;punsubscribe;lrange l;bad", []string{a("psubscribe", "p*", 1), a("psubscribe", "q*", 2), a("subscribe", "a", 3), a("subscribe", "b", 4),
				a("punsubscribe", "p*", 3), a("punsubscribe", "q*", 2), a("unsubscribe", "a", 1), a("unsubscribe", "b", 0), a("punsubscribe", "", 0), data, "-ERR bad"}, []string{"bad => ERR bad"}},
			"the same again": {"subscribe a a b;unsubscribe z a;bad;unsubscribe;lrange l;bad2", []string{a("subscribe", "a", 1), a("subscribe", "a", 1), a("subscribe", "b", 2), a("unsubscribe", "z", 2), a("unsubscribe", "a", 1),
				"-ERR bad", a("unsubscribe", "b", 0), data, "-ERR bad2"}, []string{"bad => ERR bad", "bad2 => ERR bad2"}},
			"refused": {"subscribe;bad", []string{"-ERR wrong number", "-ERR bad"}, []string{"subscribe => ERR wrong number", "bad => ERR bad"}},
			"a slot goes": {"ssubscribe s;bad;lrange l;bad2", []string{a("ssubscribe", "s", 1), a("sunsubscribe", "s", 0), "-ERR bad", data, "-ERR bad2"},
				[]string{"bad => ERR bad", "bad2 => ERR bad2"}},
		} {
			for _, step := range []int{0, 1} {
				p := &play{t: t, step: step}
				p.Speaks(kind == ">")
				p.sends(strings.Split(c.commands, ";")...)
				if err := p.try(c.replies...); err != nil {
					t.Errorf("%s %s: %v", kind, name, err)
					continue
				}
				p.wants(c.want...)
				if !p.Idle() || p.subs != (subscriptions{}) {
					t.Errorf("%s %s: something is left: %+v", kind, name, p.Ledger)
				}
			}
		}
	}
}

// TestHelloChangesAtOnce: what was published right behind HELLO's reply is in the protocol that it has changed to.
func TestHelloChangesAtOnce(t *testing.T) {
	const message = "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx"
	p := &play{t: t}
	p.Speaks(true)
	p.sends("subscribe a")
	p.answers(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1", ">"+message)
	p.Sent(Entry{Text: "hello 2", Speaks: '2'}, Entry{Text: "hello 4", Speaks: '3'})
	p.answers("*2\r\n+proto\r\n:2", "*"+message, "-NOPROTO", "*"+message)
	p.wants("hello 4 => NOPROTO")
	p.Sent(Entry{Text: "hello 3", Speaks: '3'}, Entry{Text: "lrange l"})
	p.answers("%1\r\n+proto\r\n:3", ">"+message, "*1\r\n$7\r\nmessage")
	if !p.Idle() {
		t.Error("something is left")
	}
}

// TestA62_Transactions that never end, and replies to nothing.
func TestA62_Transactions(t *testing.T) {
	p := &play{t: t}
	p.sends("multi")
	p.answers("+OK")
	long := strings.Repeat("x", 1000)
	for range 20000 {
		p.sends(long)
		p.answers("+QUEUED")
	}
	if len(p.open.text) > maxQueueText || len(p.open.queued) > maxQueued || p.open.count != 20000 {
		t.Fatalf("%d bytes of %d commands are held", len(p.open.text), len(p.open.queued))
	}
	p.sends("exec")
	p.answers("*20000", strings.Repeat(":1\r\n", 19999)+"-ERR hunter2")
	p.wants("(command 20000 of a transaction, whose text is not held) => " + LeftOut)
	if cap(p.open.text) > MaxFailure {
		t.Errorf("%d bytes are kept for nothing", cap(p.open.text))
	}
	p.sends("multi")
	p.answers("+OK")
	for range maxQueued + 10 {
		p.sends("a")
		p.answers("+QUEUED")
	}
	p.sends("discard")
	p.answers("+OK")
	all := 0
	for _, s := range p.out {
		if all += strings.Count(s, ";") + 1; len(s) > MaxFailure+200 {
			t.Errorf("%d bytes in a failure", len(s))
		}
	}
	if last := p.out[len(p.out)-1]; !strings.Contains(last, "(10 commands of a transaction, whose text is not held)") || all != maxQueued+1 {
		t.Errorf("%d commands, and %s", all, last)
	}
	for _, reply := range []string{"+OK", "-ERR x", ":1", "*1\r\n-ERR x"} {
		p := &play{t: t}
		if err := p.try(reply); err == nil {
			t.Errorf("%q to nothing was taken", reply)
		}
	}
	p = &play{t: t}
	for range MaxOpen + 1 {
		p.sends("a")
	}
	if !p.Full() {
		t.Error("endlessly many commands are taken")
	}
}

// FuzzLedger gives replies to commands in any order: nothing panics, what is held is bounded, and goes when it is over.
func FuzzLedger(f *testing.F) {
	f.Add([]byte("1ab2"), []byte("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n-ERR x\r\n*1\r\n!3\r\nabc\r\n"), uint8(3))
	f.Add([]byte("4a7b"), []byte("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n:1\r\n*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n"), uint8(0))
	f.Add([]byte("1a3"), []byte("+OK\r\n+QUEUED\r\n_\r\n"), uint8(1))
	f.Fuzz(func(t *testing.T, commands, b []byte, step uint8) {
		var l Ledger
		var r Reply
		note := func(f Failure) {
			if len(f.Text) > MaxFailure+MaxCommand || len(f.Message) > 3*maxText+64 {
				t.Fatalf("%d bytes of text, %d of message", len(f.Text), len(f.Message))
			}
		}
		for _, c := range commands {
			l.Sent(Entry{Text: fmt.Sprint("command ", c), Role: Role(c % 10), Args: int(c>>4) % 3})
		}
		for at, have := 0, 0; at < len(b); {
			if have = min(have+int(step)+1, len(b)); bytes.IndexByte(b[at:have], '\n') < 0 && have < len(b) {
				continue
			}
			n, done, err := r.Next(b[at:have])
			if err == nil {
				err = l.Answer(&r, done, note)
			}
			if at += n; err != nil || !done && have == len(b) {
				break
			}
			if done {
				r.Reset()
			}
		}
		l.Renew(note)
		l.Abandon(note)
		if !l.Idle() || l.open.count > 0 || l.text != 0 {
			t.Fatalf("something is left: %+v", l)
		}
	})
}

// BenchmarkAnswer is a pipeline without transactions, as redis-benchmark sends it.
func BenchmarkAnswer(b *testing.B) {
	var l Ledger
	var r Reply
	entries := make([]Entry, 16)
	for i := range entries {
		entries[i] = Entry{Text: "GET key", Args: 1}
	}
	replies := bytes.Repeat([]byte("$3\r\nabc\r\n"), len(entries))
	for b.Loop() {
		l.Sent(entries...)
		for at := 0; at < len(replies); {
			n, done, err := r.Next(replies[at:])
			if err == nil {
				err = l.Answer(&r, done, func(Failure) {})
			}
			if at += n; err != nil || !done {
				b.Fatal(err)
			}
			r.Reset()
		}
	}
}
