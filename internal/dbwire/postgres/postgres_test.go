package postgres

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/dbwire/postgres/sql"
)

// client and server say messages to a ledger and keep what it records.
type play struct {
	t *testing.T
	Ledger
	out []string
}

func (p *play) record(o Outcome) {
	s := o.Query
	if len(o.Parameters) > 0 {
		s += " " + strings.Join(o.Parameters, "|")
	}
	if o.Failed {
		s += " => " + o.Message
	}
	p.out = append(p.out, s)
}

func (p *play) sends(kind byte, body ...string) {
	p.t.Helper()
	if _, err := p.Sent(kind, []byte(strings.Join(body, "")), func(byte, *sql.Text) *Refusal { return nil }); err != nil {
		p.t.Fatal(err)
	}
}

func (p *play) prepares(name, text string) { p.sends('P', name, "\x00", text, "\x00\x00\x00") }

func (p *play) runs(name string, values ...string) {
	b := "\x00\x00" + string(binary.BigEndian.AppendUint16(nil, uint16(len(values))))
	for _, v := range values {
		b += string(binary.BigEndian.AppendUint32(nil, uint32(len(v)))) + v
	}
	p.sends('B', "\x00", name, "\x00", b, "\x00\x00")
	p.sends('E', "\x00\x00\x00\x00\x00")
}

// answers says kinds; E comes with a message.
func (p *play) answers(kinds string) {
	p.t.Helper()
	for _, k := range kinds {
		body := ""
		switch k {
		case 'E':
			body = "C42601\x00Mno\x00\x00"
		case 'Z':
			body = "I"
		}
		if _, err := p.Answer(byte(k), []byte(body), p.record); err != nil {
			p.t.Fatalf("%c: %v", k, err)
		}
	}
}

// completes says CommandComplete with its tag.
func (p *play) completes(tag string) {
	p.t.Helper()
	if _, err := p.Answer('C', []byte(tag+"\x00"), p.record); err != nil {
		p.t.Fatalf("%s: %v", tag, err)
	}
}

func (p *play) wants(want ...string) {
	p.t.Helper()
	if fmt.Sprintf("%q", p.out) != fmt.Sprintf("%q", want) {
		p.t.Errorf("recorded %q\nwant     %q", p.out, want)
	}
	p.out = nil
}

func TestLedger(t *testing.T) {
	p := &play{t: t}
	p.sends('Q', "SELECT 1\x00")
	p.answers("TDC")
	p.wants()
	p.Begun(p.record)
	p.wants("SELECT 1")
	p.answers("Z")
	p.wants()

	p.sends('Q', "SELECT 1; SELECT 1/0\x00")
	p.answers("TDC")
	p.Begun(p.record)
	p.answers("EZ")
	p.wants("SELECT 1; SELECT 1/0", "SELECT 1; SELECT 1/0 => 42601 no")

	p.prepares("a", "SELECT $1")
	p.runs("a", "x")
	p.runs("a", "y")
	p.sends('S')
	p.answers("12DC2DCZ")
	p.wants("SELECT $1 x", "SELECT $1 y")

	// After an error what follows is skipped, and names nothing: a statement keeps the text that the server has.
	p.sends('P', "\x00nonsense\x00\x00\x00")
	p.sends('C', "Sa\x00")
	p.prepares("a", "SELECT 'innocent'")
	p.runs("a")
	p.runs("a", "1")
	p.sends('S')
	p.answers("EZ")
	p.wants("nonsense => 42601 no", "SELECT 'innocent' 1 => not run: an earlier message failed")
	p.runs("a", "z")
	p.sends('S')
	p.answers("2CZ")
	p.wants("SELECT $1 z")

	// Messages that come while the server skips.
	p.runs("a", "1")
	p.answers("E")
	p.runs("a", "2")
	p.sends('S')
	p.answers("Z")
	p.wants("SELECT $1 1 => 42601 no", "SELECT $1 2 => not run: an earlier message failed")
	p.runs("nobody")
	p.sends('S')
	p.answers("EZ")
	p.wants(`(statement "nobody", text not known) => 42601 no`)

	p.sends('Q', "PREPARE b AS DELETE FROM t\x00")
	p.completes("PREPARE")
	p.answers("Z")
	p.runs("b")
	p.sends('S')
	p.answers("2CZ")
	p.wants("PREPARE b AS DELETE FROM t", "PREPARE b AS DELETE FROM t")

	p.sends('F', "\x00\x00\x03\xb8\x00\x00\x00\x01\x00\x00\x00\x011\x00\x00")
	p.answers("VZ")
	p.wants("function call 952 1")
	p.prepares("", "UPDATE u SET password = $1")
	p.runs("", "s3cret")
	p.sends('S')
	p.answers("12CZ")
	p.wants("UPDATE u SET password = $1 ***")
	p.prepares("", "UPDATE u SET password = 's3cret'")
	p.runs("")
	p.sends('S')
	p.answers("12E")
	p.wants("UPDATE u SET password = '***' => 42601 (the server's message is not kept: the statement holds a secret)")
	p.answers("Z")
	if !p.Idle() {
		t.Error("something is pending")
	}
	p.sends('Q', "SELECT pg_sleep(9)\x00")
	p.prepares("", "SELECT 2")
	p.runs("")
	p.Abandon("gone", p.record)
	p.wants("SELECT pg_sleep(9) => gone", "SELECT 2 => gone")
}

func TestLedgerCopy(t *testing.T) {
	p := &play{t: t}
	// libpq sends Sync behind Execute at once, which the server passes over in COPY.
	p.prepares("", "COPY t FROM STDIN")
	p.runs("")
	p.sends('S')
	p.answers("12G")
	p.Begun(p.record)
	p.sends('c')
	p.sends('S')
	p.answers("CZ")
	p.sends('Q', "SELECT 1\x00")
	p.answers("CZ")
	p.wants("COPY t FROM STDIN", "SELECT 1")
	// It fails, and whether the first Sync was passed over nobody can tell.
	for _, syncs := range []string{"Z", "ZZ"} {
		p.prepares("", "COPY t FROM STDIN")
		p.runs("")
		p.sends('S')
		p.answers("12G")
		p.sends('c')
		p.sends('S')
		p.answers("E" + syncs)
		p.prepares("", "SELECT 2")
		p.runs("")
		p.sends('S')
		p.answers("12CZ")
		p.wants("COPY t FROM STDIN => 42601 no", "SELECT 2")
		if !p.Idle() {
			t.Error("something is pending")
		}
	}
	p.sends('Q', "COPY t FROM STDIN; COPY t FROM STDIN\x00")
	p.answers("G")
	p.sends('c')
	p.answers("CG")
	p.sends('c')
	p.answers("CZ")
	p.wants("COPY t FROM STDIN; COPY t FROM STDIN")
	if !p.Idle() {
		t.Error("something is pending")
	}
}

// TestA62_AnswersToNothing: a server that answers what was not asked is not followed.
func TestA62_AnswersToNothing(t *testing.T) {
	for _, kinds := range []string{"C", "Z", "1", "D", "d", "V", "?", "s"} {
		p := &play{t: t}
		if _, err := p.Answer(kinds[0], nil, p.record); err == nil {
			t.Errorf("%s was taken", kinds)
		}
	}
	p := &play{t: t}
	for range MaxPending + 10 {
		p.sends('S')
	}
	if !p.Full() {
		t.Error("an endless pipeline is taken")
	}
	for range 600 {
		p.prepares(fmt.Sprint(p.held), strings.Repeat("x", 8000))
		p.answers(strings.Repeat("Z", len(p.pending)-p.head-1) + "1")
	}
	if !p.Crowded() {
		t.Error("endlessly many statements are held")
	}
	p = &play{t: t}
	for n := 0; !p.Crowded(); n++ { // a name costs too
		if n > MaxHeld/100 {
			t.Fatal("endlessly many short statements are held")
		}
		p.prepares(fmt.Sprint(n), "x")
		p.answers("1")
	}
	p = &play{t: t}
	p.sends('Q', "BEGIN\x00")
	p.answers("Z")
	for n := range 40000 {
		p.sends('Q', fmt.Sprintf("PREPARE a%d AS SELECT 1; DECLARE c%d CURSOR FOR SELECT 1\x00", n, n))
		p.completes("PREPARE")
		p.completes("DECLARE CURSOR")
		if _, err := p.Answer('Z', []byte("T"), func(Outcome) {}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.statements) + len(p.portals); n > MaxHeld/100 || p.held > MaxHeld+10000 {
		t.Errorf("%d names are held", n)
	}
}

// TestNoNameHidesAText: what is run by a name that cannot be followed is on record when it gets that name.
func TestNoNameHidesAText(t *testing.T) {
	p := &play{t: t}
	p.prepares("é", "DELETE FROM t WHERE password = $1")
	p.runs("é", "s3cret")
	p.sends('S')
	p.answers("12CZ")
	p.wants(`(prepared as statement "é") DELETE FROM t WHERE password = $1`, `(statement "é", text not known) ***`)
	p.prepares("b", "SELECT $1")
	p.sends('Q', "DO $$ BEGIN EXECUTE 'x'; END $$\x00")
	p.answers("1")
	p.completes("DO")
	p.answers("Z")
	p.runs("b", "s3cret")
	p.sends('S')
	p.answers("2CZ")
	p.wants("DO $$ BEGIN EXECUTE 'x'; END $$", `(statement "b", text not known; prepared as: SELECT $1) ***`)
	p.prepares("a", "DELETE FROM t WHERE password = $1")
	p.sends('B', "p\xe9\x00a\x00\x00\x00\x00\x01\x00\x00\x00\x06s3cret\x00\x00")
	p.sends('E', "p\xe9\x00\x00\x00\x00\x00")
	p.sends('S')
	p.answers("12CZ")
	p.wants(`(bound as portal "p\xe9") DELETE FROM t WHERE password = $1 ***`, `(portal "p\xe9", text not known)`)
}

// TestNamesKeepNoText: a name does not keep the statement in memory that it stood in.
func TestNamesKeepNoText(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	p := &play{t: t}
	for n := range 50 {
		p.sends('Q', fmt.Sprintf("PREPARE a%d AS SELECT '%s'\x00", n, strings.Repeat("x", 1<<20)))
		p.completes("PREPARE")
		p.answers("Z")
	}
	runtime.GC()
	if runtime.ReadMemStats(&after); after.HeapAlloc > before.HeapAlloc+10<<20 {
		t.Errorf("%d bytes are held for 50 names", after.HeapAlloc-before.HeapAlloc)
	}
	runtime.KeepAlive(p)
}

// TestA62_Lengths that overflow, and packets without an end.
func TestA62_Lengths(t *testing.T) {
	for _, b := range [][]byte{{'Q', 0, 0, 0, 3}, {'Q', 0xff, 0xff, 0xff, 0xff}, {'Q', 0x80, 0, 0, 0}, {'Q', 0x40, 0, 0, 1}} {
		if _, _, _, err := Head(b); err == nil {
			t.Errorf("%x was taken", b)
		}
	}
	for name, b := range map[string]string{
		"short":          "\x00\x00\x00\x07\x00\x03\x00\x00",
		"long":           "\x00\x00\x27\x11\x00\x03\x00\x00",
		"endless":        "\xff\xff\xff\xff\x00\x03\x00\x00",
		"no end":         "\x00\x00\x00\x0c\x00\x03\x00\x00user",
		"no value":       "\x00\x00\x00\x0d\x00\x03\x00\x00user\x00",
		"behind the end": "\x00\x00\x00\x0a\x00\x03\x00\x00\x00x",
		"twice":          "\x00\x00\x00\x17\x00\x03\x00\x00user\x00a\x00user\x00b\x00\x00",
		"version 2":      "\x00\x00\x00\x08\x00\x02\x00\x00",
		"cut":            "\x00\x00\x00\x20\x00\x03\x00\x00user",
		"cancel, no key": "\x00\x00\x00\x08\x04\xd2\x16\x2e",
		"ssl, and more":  "\x00\x00\x00\x09\x04\xd2\x16\x2fx",
	} {
		if s, err := ReadStartup(strings.NewReader(b)); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
	p := &play{t: t}
	for _, b := range []string{"\x00\x00\xff\xff", "\x00\x00\x00\x00\x00\x01\x80\x00\x00\x00", "\x00"} {
		if _, err := p.Sent('B', []byte(b), nil); err == nil {
			t.Errorf("Bind %x was taken", b)
		}
	}
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x08\x04\xd2\x16\x2f"))
	f.Add([]byte("\x00\x00\x00\x10\x04\xd2\x16\x2e12345678"))
	f.Add([]byte("\x00\x00\x00\x20\x00\x03\x00\x00user\x00alice\x00database\x00db\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ReadStartup(bytes.NewReader(b))
		if err == nil && !s.Encryption && s.Cancel == nil && s.Parameters == nil {
			t.Fatal("a startup packet that says nothing")
		}
	})
}

// FuzzLedger gives both sides' messages in any order: nothing panics, and what is held goes when it is over.
func FuzzLedger(f *testing.F) {
	f.Add([]byte("QZ"), []byte("SELECT 1\x00"))
	f.Add([]byte("PBDES12TDCZ"), []byte("\x00SELECT $1\x00\x00\x00"))
	f.Add([]byte("PBESGcSCZ"), []byte("\x00\x00\x00\x00\x00\x01\x00\x00\x00\x01x\x00\x00"))
	f.Fuzz(func(t *testing.T, kinds, body []byte) {
		var l Ledger
		record := func(o Outcome) {
			if len(o.Query) > 2*sql.MaxText+200 {
				t.Fatalf("%d bytes of text", len(o.Query))
			}
		}
		for i, k := range kinds {
			b := body[min(i, len(body)):]
			if i%2 == 0 {
				_, _ = l.Sent(k, b, func(byte, *sql.Text) *Refusal { return nil })
			} else if _, err := l.Answer(k, b, record); err != nil {
				break
			}
			l.Begun(record)
		}
		l.Abandon("over", record)
		if !l.Idle() || l.waiting != 0 {
			t.Fatalf("%d bytes wait for nothing", l.waiting)
		}
	})
}

func BenchmarkLedger(b *testing.B) {
	var l Ledger
	query := []byte("SELECT abalance FROM pgbench_accounts WHERE aid = 4711;\x00")
	n := 0
	for b.Loop() {
		_, _ = l.Sent('Q', query, func(byte, *sql.Text) *Refusal { return nil })
		for _, k := range []byte("TDCZ") {
			_, _ = l.Answer(k, []byte("I"), func(Outcome) { n++ })
		}
	}
}
