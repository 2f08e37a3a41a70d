package event

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

var (
	testTime = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
	testKey  = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	testPub  = testKey.Public().(ed25519.PublicKey)
)

const testWriter = "11111111-2222-4333-8444-555555555555"

func testEvent() Event {
	exit := 0
	return Event{Kind: Exec, Time: testTime, UID: "aaaaaaaa-0000-4000-8000-000000000001", Cluster: "example.com",
		User: "myuser", Success: true, Device: &Device{ID: "d1", OSType: "linux", AssetTag: "T1", CredentialID: "c1"},
		Session: &Session{SessionID: "s1", Login: "root", ServerID: testWriter}, Action: &Action{Command: "a <b> & c", ExitCode: &exit}}
}

func mustMarshal(t testing.TB, e Event) []byte {
	t.Helper()
	if err := e.Normalize(); err != nil {
		t.Fatal(err)
	}
	b, err := e.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testSign(msg []byte) ([]byte, error) { return ed25519.Sign(testKey, msg), nil }

func TestEventRoundTrip(t *testing.T) {
	e := testEvent()
	b := mustMarshal(t, e)
	got, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	e.Code = "T3002I"
	if !reflect.DeepEqual(got, e) {
		t.Errorf("got %+v, want %+v", got, e)
	}
	var flat map[string]any
	if err := json.Unmarshal(b, &flat); err != nil || flat["command"] != "a <b> & c" || flat["login"] != "root" || flat["sid"] != "s1" {
		t.Errorf("not flat: %s", b)
	}
}

// TestInterfaceTable holds the kinds and codes that people were promised.
func TestInterfaceTable(t *testing.T) {
	for kind, codes := range map[Kind]string{
		DeviceCreate: "TV001I TV001I", DeviceDelete: "TV002I TV002I", DeviceTokenCreate: "TV003I TV003I",
		DeviceTokenSpent: "TV004I TV004I", DeviceEnroll: "TV005I TV005I", DeviceAuthenticate: "TV006I TV006I",
		DeviceUpdate: "TV007I TV007I", UserLogin: "T1000I T1000W", UserCreate: "T1002I T1002I", RoleCreated: "T9000I T9000I",
		LockCreated: "TLK00I TLK00I", CertCreate: "TC000I -", SessionStart: "T2000I -", SessionEnd: "T2004I T2004I",
		Exec: "T3002I T3002I", SCP: "T3004I T3004I", Port: "T3003I T3003I", Auth: "- T3007W", DBSessionStart: "TDB00I TDB00W",
		DBSessionQuery: "TDB02I TDB02I", DBSessionEnd: "TDB01I TDB01I", KubeRequest: "T3009I T3009I", AppSessionStart: "T2007I -",
	} {
		got := ""
		for _, success := range []bool{true, false} {
			code, err := kind.Code(success)
			if err != nil {
				code = "-"
			}
			got += " " + code
		}
		if got[1:] != codes {
			t.Errorf("%s has codes%s, want %s", kind, got, codes)
		}
	}
}

func TestCodesAreUnique(t *testing.T) {
	seen := make(map[string]Kind)
	for _, k := range Kinds() {
		for _, success := range []bool{true, false} {
			code, err := k.Code(success)
			if other, dup := seen[code]; err == nil && dup && other != k {
				t.Errorf("%s and %s share code %s", k, other, code)
			}
			seen[code] = k
		}
	}
}

func TestWrittenBy(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		roles []Role
		want  bool
	}{
		{UserLogin, []Role{RoleAuth}, true}, {UserLogin, []Role{RoleNode, RoleDB, RoleKube, RoleApp, RoleProxy}, false},
		{DeviceEnroll, []Role{RoleNode}, false}, {Exec, []Role{RoleNode}, true}, {Exec, []Role{RoleDB}, false},
		{Exec, []Role{RoleDB, RoleNode}, true}, {DBSessionQuery, []Role{RoleNode}, false}, {Auth, []Role{RoleProxy}, true},
		{AuditAlarm, []Role{RoleNode}, false}, {"unheard.of", []Role{RoleAuth}, false}, {Exec, nil, false}, {Exec, []Role{"owner"}, false},
	} {
		if got := c.kind.WrittenBy(c.roles...); got != c.want {
			t.Errorf("%s by %v: %t", c.kind, c.roles, got)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(mustMarshal(t, testEvent()))
	for name, bad := range map[string]string{
		"empty": "", "a list": "[]", "two values": good + good, "white space": " " + good, "newline": good + "\n",
		"unescaped <":   strings.Replace(good, `\u003c`, "<", 1),
		"unknown kind":  strings.Replace(good, `"event":"exec"`, `"event":"exce"`, 1),
		"another code":  strings.Replace(good, "T3002I", "T3004I", 1),
		"no uid":        strings.Replace(good, "aaaaaaaa-0000-4000-8000-000000000001", "", 1),
		"no time":       strings.Replace(good, `"time":"2026-01-02T03:04:05.678901Z",`, "", 1),
		"invalid UTF-8": strings.Replace(good, "myuser", "my\xffuser", 1),
		"too large":     strings.Replace(good, "myuser", strings.Repeat("u", MaxEvent), 1),
	} {
		if bad == good {
			t.Fatalf("%s: nothing was changed", name)
		}
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := Parse([]byte(strings.Replace(good, `{`, `{"later_field":1,`, 1))); err != nil {
		t.Errorf("a field of a later version: %v", err)
	}
}

func TestLongTextsAreCut(t *testing.T) {
	e := testEvent()
	e.Action = &Action{Command: strings.Repeat("ä", 1<<20)}
	b := mustMarshal(t, e)
	got, err := Parse(b)
	if err != nil || len(got.Command) > MaxText+40 || !strings.HasSuffix(got.Command, "bytes more)") || strings.ContainsRune(got.Command, '\ufffd') {
		t.Errorf("%d bytes, %v", len(got.Command), err)
	}
}

func testChain(t testing.TB, n int) []Entry {
	t.Helper()
	h := Head{Writer: testWriter}
	var entries []Entry
	for i := range n {
		ev := testEvent()
		ev.Time = ev.Time.Add(time.Duration(i) * time.Second)
		e := h.Next(mustMarshal(t, ev))
		entries, h = append(entries, e), e.Head()
	}
	return entries
}

func TestFollows(t *testing.T) {
	c := testChain(t, 3)
	if err := c[1].Follows(c[0].Head()); err != nil {
		t.Fatal(err)
	}
	fork := c[0].Head()
	fork.Hash[0] ^= 1
	for name, err := range map[string]error{
		"another predecessor": c[1].Follows(fork), "a number left out": c[2].Follows(c[0].Head()), "itself": c[1].Follows(c[1].Head()),
		"another writer": c[1].Follows(Head{Writer: "w", Seq: 1, Hash: c[0].Hash}), "no predecessor": c[1].Follows(Head{Writer: testWriter}),
	} {
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func testHeads(t testing.TB, heads ...Head) SignedHeads {
	t.Helper()
	s, err := SignHeads(7, testTime, heads, testSign)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestVectors compares with docs/protocol/audit.md.
func TestVectors(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	c := testChain(t, 2)
	s := testHeads(t, c[1].Head())
	bin, err := s.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"event": string(c[0].Event), "hash of entry 1": c[0].Hash.String(), "hash of entry 2": c[1].Hash.String(),
		"public key": hex.EncodeToString(testPub), "signature": hex.EncodeToString(s.Signature), "list": hex.EncodeToString(bin),
	} {
		if !bytes.Contains(doc, []byte(want)) {
			t.Errorf("%s is not in the document: %s", name, want)
		}
	}
}

func TestSignedHeads(t *testing.T) {
	a, b := Head{Writer: "a", Seq: 1}, Head{Writer: "b", Seq: 2, Hash: Hash{1}}
	s := testHeads(t, b, a)
	if err := s.Verify(testPub); err != nil || s.Heads[0] != a {
		t.Fatal(err)
	}
	if h, ok := s.Find("b"); !ok || h != b {
		t.Errorf("found %v", h)
	}
	if _, ok := s.Find("c"); ok {
		t.Error("found what is not there")
	}
	bin, _ := s.MarshalBinary()
	var again SignedHeads
	if err := again.UnmarshalBinary(bin); err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("%+v, %v", again, err)
	}
	js, _ := json.Marshal(s)
	if again, err := ParseHeads(js); err != nil || !reflect.DeepEqual(s, again) {
		t.Errorf("%+v, %v", again, err)
	}
	for name, change := range map[string]func(*SignedHeads){
		"number": func(s *SignedHeads) { s.Number++ }, "time": func(s *SignedHeads) { s.Time = s.Time.Add(time.Second) },
		"a hash": func(s *SignedHeads) { s.Heads[1].Hash[0]++ }, "a number": func(s *SignedHeads) { s.Heads[1].Seq++ },
		"one left out": func(s *SignedHeads) { s.Heads = s.Heads[:1] }, "order": func(s *SignedHeads) { s.Heads = []Head{b, a} },
		"signature": func(s *SignedHeads) { s.Signature[3]++ }, "no signature": func(s *SignedHeads) { s.Signature = nil },
		"twice": func(s *SignedHeads) { s.Heads = []Head{a, a, b} },
	} {
		s := testHeads(t, a, b)
		change(&s)
		if s.Verify(testPub) == nil {
			t.Errorf("%s changed: verified", name)
		}
	}
	if s.Verify(nil) == nil || s.Verify(make([]byte, 32)) == nil {
		t.Error("verified with another key")
	}
	for n := range bin {
		if new(SignedHeads).UnmarshalBinary(bin[:n]) == nil {
			t.Errorf("%d bytes of %d were taken", n, len(bin))
		}
	}
}

func export(t testing.TB, heads *SignedHeads, entries []Entry) string {
	var b strings.Builder
	if heads != nil {
		line, err := HeadsLine(*heads)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	for _, e := range entries {
		line, err := json.Marshal(Stored{Entry: e, Arrival: testTime})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(append(line, '\n'))
	}
	return b.String()
}

func TestA77_ExportDamage(t *testing.T) {
	c := testChain(t, 5)
	inside, elsewhere := testHeads(t, c[4].Head()), testHeads(t, c[3].Head())
	forged := append([]Entry(nil), c[:2]...)
	for h := forged[1].Head(); len(forged) < 5; h = forged[len(forged)-1].Head() {
		ev := testEvent()
		ev.User = "somebody"
		forged = append(forged, h.Next(mustMarshal(t, ev)))
	}
	changed := append([]Entry(nil), c...)
	changed[2].Event = bytes.Replace(changed[2].Event, []byte("myuser"), []byte("nobody"), 1)
	for _, d := range []struct {
		name    string
		heads   *SignedHeads
		entries []Entry
		seq     uint64
		text    string
	}{
		{"intact", &inside, c, 0, ""},
		{"one changed", &inside, changed, 3, "was changed"},
		{"one left out", &inside, append(append([]Entry(nil), c[:2]...), c[3:]...), 4, "entry 4 after entry 2"},
		{"two swapped", &inside, []Entry{c[0], c[2], c[1], c[3], c[4]}, 3, "entry 3 after entry 1"},
		{"beginning cut", &inside, c[2:], 3, "entry 3 after entry 0"},
		{"end cut", &inside, c[:4], 4, "cut"},
		{"end cut, heads removed with it", nil, c[:3], 3, "cut"},
		{"all gone", nil, nil, 0, "cut"},
		{"rewritten from entry 3 on", nil, forged, 4, "not the one in a signed list"},
	} {
		r, err := VerifyJSONL(strings.NewReader(export(t, d.heads, d.entries)), testPub, elsewhere)
		if err != nil {
			t.Errorf("%s: %v", d.name, err)
			continue
		}
		if d.text == "" {
			if !r.Intact() || r.Entries != 5 || len(r.Heads) != 1 {
				t.Errorf("%s: %+v", d.name, r)
			}
			continue
		}
		if r.Intact() || r.Problems[0].Seq != d.seq || !strings.Contains(r.Problems[0].Text, d.text) {
			t.Errorf("%s: %+v", d.name, r.Problems)
		}
	}
	other := inside
	other.Signature = make([]byte, 64)
	if _, err := VerifyJSONL(strings.NewReader(export(t, &other, c)), testPub); err == nil {
		t.Error("heads with a false signature were believed")
	}
	if _, err := VerifyJSONL(strings.NewReader(export(t, nil, c)), testPub, other); err == nil {
		t.Error("heads from elsewhere with a false signature were believed")
	}
	if _, err := VerifyJSONL(strings.NewReader("{\n"), testPub); err == nil {
		t.Error("a torn line was passed over")
	}
}

func TestA77_ClockSetBackIsNoted(t *testing.T) {
	h, v := Head{Writer: testWriter}, NewVerifier()
	for _, at := range []time.Duration{0, time.Hour, time.Hour - time.Second, time.Minute} {
		ev := testEvent()
		ev.Time = ev.Time.Add(at)
		e := h.Next(mustMarshal(t, ev))
		h = e.Head()
		v.Add(e)
	}
	if r := v.Report(); !r.Intact() || len(r.Notes) != 1 || r.Notes[0].Seq != 4 {
		t.Errorf("%+v", r)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(mustMarshal(f, testEvent()))
	f.Add([]byte(`{"event":"auth","code":"T3007W","time":"2026-01-02T03:04:05Z","uid":"u","cluster_name":"c"}`))
	f.Add([]byte(`{"event":{"a":1},"Event":"exec"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		entry := Head{Writer: testWriter}.Next(b)
		line, err := json.Marshal(entry)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseEntry(line); err != nil || !bytes.Equal(again.Event, b) {
			t.Fatalf("event bytes did not survive: %v", err)
		}
		if _, err := e.Kind.Code(e.Success); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseEntry(f *testing.F) {
	for _, e := range testChain(f, 2) {
		line, _ := json.Marshal(e)
		f.Add(line)
	}
	f.Add([]byte(`{"writer":"a","seq":1,"entry":{}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err != nil {
			return
		}
		line, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := ParseEntry(line); err != nil || !reflect.DeepEqual(e, again) {
			t.Fatalf("%v: %s", err, line)
		}
	})
}

func FuzzSignedHeads(f *testing.F) {
	bin, _ := testHeads(f, Head{Writer: "a", Seq: 1}, Head{Writer: "b", Seq: 2}).MarshalBinary()
	f.Add(bin)
	f.Add(bin[:40])
	f.Fuzz(func(t *testing.T, b []byte) {
		var s SignedHeads
		if s.UnmarshalBinary(b) != nil {
			return
		}
		again, err := s.MarshalBinary()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("one list has two forms: %v", err)
		}
	})
}

// TestEscapesDoNotKeepOut has texts that JSON makes six times as long.
func TestEscapesDoNotKeepOut(t *testing.T) {
	e := testEvent()
	long := strings.Repeat("\x01<", 1<<20)
	e.Message, e.Action = long, &Action{Query: long, DBUser: long, DBName: long, Parameters: []string{long, long, long, "x"}}
	e.Session.Addr = long
	b := mustMarshal(t, e)
	got, err := Parse(b)
	if err != nil || len(b) < 4000 || len(got.Parameters) == 0 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestParametersAreCut(t *testing.T) {
	e := testEvent()
	e.Action = &Action{Query: "q", Parameters: []string{strings.Repeat("x", 5000), "b"}}
	for range 5000 {
		e.Parameters = append(e.Parameters, strings.Repeat("y", 90))
	}
	got, err := Parse(mustMarshal(t, e))
	if err != nil || len(got.Parameters) > 40 || got.Parameters[1] != "b" || len(got.Parameters[0]) > MaxParameter+30 ||
		!strings.HasSuffix(got.Parameters[len(got.Parameters)-1], "parameters more)") {
		t.Errorf("%q, %v", got.Parameters, err)
	}
}

func TestAppendJSON(t *testing.T) {
	for _, e := range testChain(t, 3) {
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if got := e.AppendJSON(nil); !bytes.Equal(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
		for i, s := range []Stored{{Entry: e, Arrival: e0, Line: 7}, {Entry: e, Arrival: e0.Add(123456789), Sender: []Role{"node"}}, {Entry: e, Sender: []Role{"db", "kube", "auth"}, Line: 1 << 63}} {
			want, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.AppendJSON(nil); !bytes.Equal(got, want) {
				t.Errorf("%d: got %s, want %s", i, got, want)
			}
		}
		spaced := bytes.Replace(want, []byte(`,"seq":`), []byte(`, "seq" : `), 1)
		for _, line := range [][]byte{want, spaced} {
			if got, err := DecodeEntry(line); err != nil || !reflect.DeepEqual(got, e) {
				t.Errorf("%s is %+v, %v", line, got, err)
			}
		}
	}
	late := Entry{Writer: "w", Seq: 1234567890123456789, Event: []byte(`{}`)}
	if e, err := DecodeEntry(late.AppendJSON(nil)); err != nil || !reflect.DeepEqual(e, late) {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := DecodeEntry([]byte(`{"writer":"w","seq":1,"prev":"00"}`)); err == nil {
		t.Errorf("%+v", e)
	}
}

// e0 is a time of day that needs no fraction.
var e0 = time.Date(2026, 11, 22, 1, 2, 3, 0, time.UTC)

// TestEncodingIsJSON compares what is written fast with what encoding/json writes, for random events.
func TestEncodingIsJSON(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	texts := []string{"", "plain", "a <b> & c", "quo\"te\\", "nul\x00\x1f\x7f", "ä €", "\u2028\u2029", "bad \xff utf-8", "\ufffd", "new\nline\ttab"}
	fill := func(v any) {
		for f := range reflect.ValueOf(v).Elem().NumField() {
			switch p := reflect.ValueOf(v).Elem().Field(f).Addr().Interface().(type) {
			case *string:
				*p = texts[r.IntN(len(texts))]
			case *[]string:
				for range r.IntN(3) {
					*p = append(*p, texts[r.IntN(len(texts))])
				}
			case **int:
				if n := r.IntN(3) - 1; n != 0 {
					*p = &n
				}
			case *int:
				*p = r.IntN(3) * 100
			case *int64:
				*p = r.Int64N(3) * 1e12
			case **Traffic:
				if r.IntN(2) == 0 {
					*p = &Traffic{Sent: r.Int64N(3), Received: r.Int64N(1 << 60), Millis: r.Int64N(2)}
				}
			}
		}
	}
	for range 5000 {
		e := Event{Kind: Kind(texts[r.IntN(len(texts))]), Time: time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC(), Success: r.IntN(2) == 0}
		fill(&e)
		if r.IntN(2) == 0 {
			e.Device = &Device{}
			fill(e.Device)
		}
		if r.IntN(3) > 0 {
			e.Session = &Session{}
			fill(e.Session)
		}
		if r.IntN(3) > 0 {
			e.Action = &Action{}
			fill(e.Action)
		}
		if r.IntN(4) == 0 {
			e.Resource = &Resource{ResourceKind: "role"}
		}
		want, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.appendJSON(nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("got  %s\nwant %s, %v", got, want, err)
		}
	}
	if _, err := (&Event{Time: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)}).appendJSON(nil); err == nil {
		t.Error("a year of five digits is written")
	}
}

func TestReadEntry(t *testing.T) {
	for _, e := range testChain(t, 3) {
		line := e.AppendJSON(nil)
		got, err := ReadEntry(line)
		if err != nil || !reflect.DeepEqual(got, e) {
			t.Fatalf("%+v, %v", got, err)
		}
		for i := range line {
			bad := bytes.Clone(line)
			bad[i] ^= 1
			if got, err := ReadEntry(bad); err == nil {
				t.Fatalf("changed at %d: %s is read as %+v", i, bad, got)
			}
			if got, err := ReadEntry(line[:i]); err == nil {
				t.Fatalf("cut at %d: %+v", i, got)
			}
		}
	}
}
