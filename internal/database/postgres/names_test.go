//go:build linux

package postgres

import (
	"io"
	"slices"
	"strings"
	"testing"

	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
)

// message reads one message.
func (r *raw) message() (byte, []byte) {
	r.t.Helper()
	head := make([]byte, wire.HeadSize)
	if _, err := io.ReadFull(r, head); err != nil {
		r.t.Fatal(err)
	}
	kind, n, _, err := wire.Head(head)
	if err != nil {
		r.t.Fatal(err)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		r.t.Fatal(err)
	}
	return kind, body
}

// run says one step and gives the first value of its last result, or its error's code with a ! before it.
func (r *raw) run(step string) string {
	r.t.Helper()
	var b []byte
	what, rest, _ := strings.Cut(step, " ")
	switch what {
	case "Q":
		b = wire.AppendMessage(nil, 'Q', rest, "\x00")
	case "P":
		name, text, _ := strings.Cut(rest, "|")
		b = wire.AppendMessage(nil, 'P', name, "\x00", text, "\x00\x00\x00")
	case "C":
		b = wire.AppendMessage(nil, 'C', "S", rest, "\x00")
	case "B": // name, or name|portal
		name, portal, _ := strings.Cut(rest, "|")
		b = wire.AppendMessage(nil, 'B', portal, "\x00", name, "\x00\x00\x00\x00\x00\x00\x00")
		b = wire.AppendMessage(b, 'E', portal, "\x00\x00\x00\x00\x00")
	case "E":
		b = wire.AppendMessage(nil, 'E', rest, "\x00\x00\x00\x00\x00")
	}
	if what != "Q" {
		b = wire.AppendMessage(b, 'S')
	}
	r.says(b)
	value := ""
	for {
		kind, body := r.message()
		switch kind {
		case 'E':
			value = "!" + wire.ParseError(body).Code
		case 'D':
			value = string(body[6:])
		case 'Z':
			return value
		}
	}
}

// TestNamesMeanWhatTheServerHas runs statements by names that were made, changed and taken by every way that there is: each
// result is of a statement that tells itself, which the record has, or says that it does not know.
func TestNamesMeanWhatTheServerHas(t *testing.T) {
	long, wide := strings.Repeat("x", 63), strings.Repeat("é", 32)
	kelvin := "\u212a"
	for name, c := range map[string]struct {
		encoding string
		steps    []string // and what comes of it behind =>; ? before it: the record does not know the text
	}{
		"a PREPARE that fails changes nothing": {"", []string{"P a|SELECT 'one'", "Q PREPARE a AS SELECT 'two' => !42P05", "B a => one", "Q EXECUTE a => one"}},
		"SQL's and the protocol's are the same": {"", []string{"P a|SELECT 'one'", "Q DEALLOCATE a", "Q PREPARE a AS SELECT 'two'", "B a => two", "C a", "P a|SELECT 'three'", "Q EXECUTE a => three",
			"Q EXPLAIN ANALYZE EXECUTE a", "Q DEALLOCATE PREPARE a", "B a => ?!26000", "Q EXECUTE a => ?!26000"}},
		"several in one": {"", []string{"P a|SELECT 'one'", "Q DEALLOCATE a; PREPARE a AS SELECT 'two'; PREPARE b AS SELECT 'three'", "B a => two", "B b => three",
			"Q PREPARE c AS SELECT 'four'; EXECUTE c; DEALLOCATE c; PREPARE c AS SELECT 'five' => four", "B c => five", "Q EXECUTE b; DEALLOCATE b => three", "B b => ?!26000"}},
		"what failed in its midst": {"", []string{"P a|SELECT 'one'", "P b|SELECT 'bee'", "Q DEALLOCATE a; PREPARE a AS SELECT 'two'; SELECT 1/0; DEALLOCATE b => !22012", "B a => two", "B b => ?bee",
			"Q PREPARE b AS SELECT 'no'; DEALLOCATE b => !42P05", "Q DEALLOCATE b; SELEC => !42601", "B b => ?bee"}},
		"no transaction takes it back": {"", []string{"P a|SELECT 'one'", "Q BEGIN", "Q DEALLOCATE a", "Q PREPARE a AS SELECT 'two'", "Q ROLLBACK", "B a => two", "Q BEGIN; DEALLOCATE a; ROLLBACK; BEGIN; PREPARE a AS SELECT 'three'; ROLLBACK", "B a => three"}},
		"by the extended protocol":     {"", []string{"P a|SELECT 'one'", "P d|DEALLOCATE a", "P p|PREPARE a AS SELECT 'two'", "B d", "B p", "B a => two", "B a => two", "P all|DEALLOCATE ALL", "B all", "B a => ?!26000", "P a|SELECT 'three'", "B a => three"}},
		"all of them": {"", []string{"P a|SELECT 'one'", "Q DEALLOCATE ALL", "B a => ?!26000", "Q PREPARE a AS SELECT 'two'", "B a => two", "Q DISCARD PLANS", "B a => two", "Q DISCARD ALL", "Q PREPARE a AS SELECT 'three'", "B a => three",
			`Q PREPARE "all" AS SELECT 'four'`, `Q DEALLOCATE "all"`, "B all => ?!26000", "B a => three", "Q PREPARE prepare AS SELECT 'five'", "B prepare => five", "Q DEALLOCATE prepare", "B prepare => ?!26000", "Q DEALLOCATE PREPARE ALL", "B a => ?!26000"}},
		"the one of no name": {"", []string{"P |SELECT 'one'", "B  => one", "Q SELECT 1", "B  => ?!26000", "P |SELECT 'two'", "P |SELEC => !42601", "B  => ?!26000", "P |SELECT 'three'", "P all|DEALLOCATE ALL", "B all", "B  => three",
			"P |SELECT 'five'", "P |SELECT '\xff' => !22021", "B  => ?five", "P |SELECT 'six'", "Q SELECT '\xff' => !22021", "B  => ?six", "P |SELECT 'four'", "B  => four"}},
		"names are cut": {"", []string{"P " + long + "yz|SELECT 'one'", "B " + long + " => one", "B " + long + "else => one", "Q EXECUTE " + long + "more => one", "Q DEALLOCATE " + long + "z", "Q PREPARE " + long + "a AS SELECT 'two'", "B " + long + "yz => two"}},
		"names in quotes": {"", []string{`Q PREPARE "A""b" AS SELECT 'one'`, `B A"b => one`, "Q PREPARE AB AS SELECT 'two'", "B ab => two", "B AB => ?!26000", `P a|SELECT 'three'`, `Q PREPARE U&"\0062" AS SELECT 'four'`, "B b => ?four", "B a => three",
			`Q DEALLOCATE U&"\0061"`, `Q PREPARE U&"\0061" AS SELECT 'five'`, "B a => ?five", "C a", "P a|SELECT 'six'", "B a => six"}},
		"not ASCII": {"", []string{"P né|SELECT 'one'", "B né => ?one", "P k|SELECT 'two'", "Q PREPARE " + kelvin + " AS SELECT 'three'", "B k => two", "Q DEALLOCATE " + kelvin, "B k => two", "Q PREPARE " + wide + " AS SELECT 'four'", "B " + wide[:62] + " => ?four"}},
		"another encoding": {"LATIN1", []string{"P n\xe9|SELECT 'one'", "B n\xe9 => ?one", "Q SET client_encoding TO utf8", "B né => ?one", "C né", "P né|SELECT 'two'", "Q SET client_encoding TO latin1", "B n\xe9 => ?two",
			"Q PREPARE \xe9 AS SELECT 'three'", "Q EXECUTE \xe9 => ?three", "P " + strings.Repeat("\xe9", 40) + "|SELECT 'four'", "B " + strings.Repeat("\xe9", 41) + " => ?four", "P plain|SELECT 'five'", "B plain => five"}},
		"an encoding that has ASCII twice": {"SHIFT_JIS_2004", []string{`P a\|SELECT 'one'`, `B a\ => ?one`, "C a\x81\x5f", "P a\x81\x5f|SELECT 'two'", `B a\ => ?two`}},
		"code that does not show what it does": {"", []string{"P a|SELECT 'one'", "Q DO $$ BEGIN EXECUTE 'DEAL'||'LOCATE a'; EXECUTE 'PREP'||'ARE a AS SELECT ''two'''; END $$", "B a => ?two", "C a", "P a|SELECT 'three'",
			"B a => three", "P do|DO 'BEGIN EXECUTE ''DEALLOCATE a''; END'", "B do", "Q PREPARE a AS SELECT 'four'", "B a => four", "Q DO $$ BEGIN PERFORM 1; END $$", "B a => four",
			"Q DO $$ BEGIN EXECUTE 'DEALLOCATE a'; PERFORM 1/0; END $$ => !22012", "B a => ?!26000"}},
		"cursors are portals": {"", []string{"P a|SELECT 'one'", "P b|SELECT 'two' FROM generate_series(1, 3)", "Q BEGIN", "B a|c => one", "Q CLOSE c", "Q DECLARE c CURSOR FOR SELECT 'three'", "E c => three", "Q CLOSE ALL", "E c => ?!34000", "Q ROLLBACK",
			"Q BEGIN", "Q DECLARE c CURSOR FOR SELECT 'four'", "Q COMMIT; BEGIN; DECLARE c CURSOR FOR SELECT 'five'", "E c => five", "Q ROLLBACK", `Q BEGIN; DECLARE "U" CURSOR FOR SELECT 'six'`, "E U => six", "Q COMMIT"}},
		"a backslash": {"", []string{"P a|SELECT 'one'", `Q SELECT 'a\'; DEALLOCATE a; PREPARE a AS SELECT 'two'; SELECT 'x'`, "B a => ?two"}},
		"comments, and what only looks so": {"", []string{"P a|SELECT 'one'", "Q /* x */ DEALLOCATE -- y\n a; /* */ PREPARE /* b AS */ a(int) AS SELECT 'two' || $1", "Q EXECUTE a(1) => two1", "C a", "P a|SELECT 'three'",
			"Q SELECT 'PREPARE a AS SELECT 1', 'DEALLOCATE a' AS execute", "B a => three", "Q BEGIN; PREPARE TRANSACTION 'x' => !55000", "Q PREPARE transaction AS SELECT 'four'", "B transaction => four", "B a => three"}},
		"more than is kept": {"", []string{"P a|SELECT 'one'", "Q " + strings.Repeat("PREPARE z AS SELECT 1; DEALLOCATE z;", 40) + "DEALLOCATE a; PREPARE a AS SELECT 'two'", "B a => ?two"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			r := w.raw()
			begin := []string{"user", "boss", "database", "orders"}
			if c.encoding != "" {
				begin = append(begin, "client_encoding", c.encoding)
			}
			r.says(startup(begin...))
			if _, err := r.hears('Z'); err != nil {
				t.Fatal(err)
			}
			for _, s := range c.steps {
				step, want, _ := strings.Cut(s, " => ")
				got := r.run(step)
				want, unknown := strings.CutPrefix(want, "?")
				if want == "" {
					if strings.HasPrefix(got, "!") {
						t.Fatalf("%s: %s", step, got)
					}
					continue
				}
				if got != want {
					t.Fatalf("%s: %q at the server, not %q", step, got, want)
				}
				q := w.queries()
				last := q[len(q)-1]
				if text := "'" + strings.TrimSuffix(got, "1") + "'"; got[0] != '!' && !slices.ContainsFunc(q, func(s string) bool { return strings.Contains(s, text) }) {
					t.Errorf("%s, which is %s, is nowhere on record: %q", step, got, q)
				}
				shown := strings.Contains(last, "'"+strings.TrimSuffix(got, "1")+"'")
				if not := strings.Contains(last, "text not known"); not != unknown || !shown && !not && got[0] != '!' {
					t.Errorf("%s, which is %s, is on record as %s", step, got, last)
				}
			}
		})
	}
}
