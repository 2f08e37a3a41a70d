package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
	"github.com/sallyport/sallyport/internal/store/storetest"
)

const (
	authID = "aaaaaaaa-0000-4000-8000-00000000000a"
	nodeID = "bbbbbbbb-0000-4000-8000-00000000000b"
	evilID = "eeeeeeee-0000-4000-8000-00000000000e"
)

var node = Sender{Writer: nodeID, Roles: []event.Role{event.RoleNode}}

type fixture struct {
	*Log
	store store.Store
	clock *storetest.Clock
}

func newLog(t testing.TB, dir string) fixture {
	t.Helper()
	clock := &storetest.Clock{}
	clock.Advance(time.Duration(1_800_000_000) * time.Second)
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: dir, Now: clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return fixture{Log: open(t, s, clock), store: s, clock: clock}
}

func open(t testing.TB, s store.Store, clock *storetest.Clock) *Log {
	t.Helper()
	l, err := New(Config{Store: s, Writer: authID, Cluster: "example.com", Now: clock.Now,
		HeadsKey: ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func roleCreated(name string) event.Event {
	return event.Event{Kind: event.RoleCreated, User: "admin", Success: true,
		Resource: &event.Resource{ResourceKind: "role", ResourceName: name}}
}

func record(t testing.TB, l *Log, ev event.Event, ops ...store.Op) uint64 {
	t.Helper()
	r, err := l.Record(t.Context(), ev, ops...)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// nodeChain makes n entries of a node, as its spool would.
func nodeChain(t testing.TB, writer string, n int, at time.Time) []event.Entry {
	t.Helper()
	h := event.Head{Writer: writer}
	var entries []event.Entry
	for i := range n {
		ev := event.Event{Kind: event.Exec, User: "myuser", Success: true, Time: at.Add(time.Duration(i) * time.Millisecond),
			Session: &event.Session{ServerID: writer}, Action: &event.Action{Command: fmt.Sprint(i)}}
		entries = append(entries, h.Next(canonical(t, ev)))
		h = entries[i].Head()
	}
	return entries
}

func canonical(t testing.TB, ev event.Event) []byte {
	t.Helper()
	if err := ev.Complete("example.com", time.Now); err != nil {
		t.Fatal(err)
	}
	b, err := ev.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func verify(t testing.TB, l *Log, elsewhere *event.SignedHeads) event.Report {
	t.Helper()
	r, err := l.Verify(t.Context(), elsewhere)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRecordIsOneTransactionWithItsChange(t *testing.T) {
	f := newLog(t, t.TempDir())
	r := record(t, f.Log, roleCreated("a"), store.Create("role/a", []byte("A")))
	if got, err := f.store.Get(t.Context(), "role/a"); err != nil || got.Revision != r {
		t.Errorf("%+v, %v", got, err)
	}
	_, err := f.Record(t.Context(), roleCreated("a"), store.Put("role/b", nil), store.Create("role/a", nil))
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || conflict.Key != "role/a" {
		t.Errorf("got %v", err)
	}
	if _, err := f.store.Get(t.Context(), "role/b"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("half a change: %v", err)
	}
	got, next, err := f.List(t.Context(), Filter{})
	if err != nil || len(got) != 1 || next != "" || got[0].Writer != authID || got[0].Seq != 1 {
		t.Fatalf("%+v %q %v", got, next, err)
	}
	for name, ops := range map[string][]store.Op{
		"into the log": {store.Put("audit/x", nil)}, "bad key": {store.Put("a b", nil)},
		"too many": manyOps(MaxOps + 1), "too large": {store.Put("k", make([]byte, store.MaxValue)), store.Put("l", make([]byte, 200<<10))},
	} {
		if _, err := f.Record(t.Context(), roleCreated("a"), ops...); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	if _, err := f.Record(t.Context(), event.Event{Kind: "unheard.of"}); err == nil {
		t.Error("an unknown kind was taken")
	}
	record(t, f.Log, roleCreated("many"), manyOps(MaxOps)...)
	if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != 2 {
		t.Errorf("%+v", r)
	}
}

func manyOps(n int) []store.Op {
	ops := make([]store.Op, n)
	for i := range ops {
		ops[i] = store.Put(fmt.Sprintf("many/%d", i), nil)
	}
	return ops
}

// TestRecordMany has conflicts and overlapping keys among changes that share transactions.
func TestRecordMany(t *testing.T) {
	f := newLog(t, t.TempDir())
	var wins, conflicts atomic.Int64
	var all sync.WaitGroup
	for i := range 200 {
		all.Go(func() {
			_, err := f.Record(t.Context(), roleCreated("x"), store.Create(fmt.Sprintf("role/%d", i%10), nil))
			switch {
			case err == nil:
				wins.Add(1)
			case errors.Is(err, store.ErrConflict):
				conflicts.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if wins.Load() != 10 || conflicts.Load() != 190 {
		t.Errorf("%d changes, %d conflicts", wins.Load(), conflicts.Load())
	}
	if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != 10 {
		t.Errorf("%+v", r)
	}
}

// TestTwoProcessesShareAChain lets another Log with the same writer write in between, as after a failover.
func TestTwoProcessesShareAChain(t *testing.T) {
	f := newLog(t, t.TempDir())
	other := open(t, f.store, f.clock)
	for range 3 {
		record(t, f.Log, roleCreated("a"))
		record(t, other, roleCreated("b"))
	}
	if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != 6 {
		t.Errorf("%+v", r)
	}
}

func TestIngest(t *testing.T) {
	f := newLog(t, t.TempDir())
	c := nodeChain(t, nodeID, 300, f.clock.Now())
	for _, step := range []struct {
		name     string
		from, to int
		acked    uint64
		reason   string
	}{
		{"a gap at the beginning", 5, 6, 0, "audit_gap"},
		{"the first", 0, 10, 10, ""},
		{"the same again", 0, 10, 10, ""},
		{"old ones and new ones", 5, 20, 20, ""},
		{"a gap", 30, 40, 20, "audit_gap"},
		{"many", 20, 300, 300, ""},
		{"none", 0, 0, 300, ""},
	} {
		acked, err := f.Ingest(t.Context(), node, c[step.from:step.to])
		if acked != step.acked || (step.reason == "") != (err == nil) || err != nil && !fault.Because(err, step.reason) {
			t.Errorf("%s: %d, %v", step.name, acked, err)
		}
	}
	if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != 300 {
		t.Errorf("%+v", r)
	}
	second := open(t, f.store, f.clock) // another auth server takes over
	if acked, err := second.Ingest(t.Context(), node, c[290:]); acked != 300 || err != nil {
		t.Errorf("%d, %v", acked, err)
	}
	got, _, err := f.List(t.Context(), Filter{Limit: 1})
	if err != nil || got[0].Sender[0] != event.RoleNode || !got[0].Arrival.Equal(f.clock.Now()) {
		t.Errorf("stamps are missing: %+v, %v", got, err)
	}
}

func alarmsIn(t *testing.T, l *Log) []string {
	t.Helper()
	got, _, err := l.List(t.Context(), Filter{Event: event.AuditAlarm})
	if err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, s := range got {
		ev, err := event.Parse(s.Event)
		if err != nil {
			t.Fatal(err)
		}
		reasons = append(reasons, ev.Reason+" "+ev.ServerID)
	}
	return reasons
}

func TestA13_WriterSendsAnothersEvents(t *testing.T) {
	auth, evil := Sender{authID, []event.Role{event.RoleNode}}, Sender{evilID, []event.Role{event.RoleNode}}
	forge := func(ev event.Event) []event.Entry {
		return []event.Entry{event.Head{Writer: evilID}.Next(canonical(t, ev))}
	}
	broken := nodeChain(t, evilID, 1, time.Now())
	broken[0].Event = bytes.Replace(broken[0].Event, []byte("myuser"), []byte("nobody"), 1)
	for _, c := range []struct {
		name    string
		from    Sender
		entries []event.Entry
		reason  string
	}{
		{"another node's chain", evil, nodeChain(t, nodeID, 3, time.Now()), "audit_other_writer"},
		{"auth's own chain", auth, nodeChain(t, authID, 3, time.Now()), "audit_own_chain"},
		{"a login, which auth writes", evil, forge(event.Event{Kind: event.UserLogin, Success: true}), "audit_foreign_kind"},
		{"an enrollment", evil, forge(event.Event{Kind: event.DeviceEnroll, Success: true}), "audit_foreign_kind"},
		{"a query, which a database agent writes", evil, forge(event.Event{Kind: event.DBSessionQuery}), "audit_foreign_kind"},
		{"an alarm", evil, forge(event.Event{Kind: event.AuditAlarm}), "audit_foreign_kind"},
		{"a session on another node", evil, forge(event.Event{Kind: event.SessionStart, Success: true,
			Session: &event.Session{ServerID: nodeID}}), "audit_other_server"},
		{"another cluster", evil, forge(event.Event{Kind: event.Exec, Cluster: "other"}), "audit_other_cluster"},
		{"a changed entry", evil, broken, "audit_fork"},
		{"no event", evil, []event.Entry{event.Head{Writer: evilID}.Next(json.RawMessage(`{}`))}, "audit_bad_event"},
	} {
		f := newLog(t, t.TempDir())
		acked, err := f.Ingest(t.Context(), c.from, c.entries)
		if acked != 0 || !fault.Because(err, c.reason) || !fault.Is(err, fault.Denied) {
			t.Errorf("%s: acknowledged %d, %v", c.name, acked, err)
		}
		want := []string{c.reason + " " + c.from.Writer}
		if c.from.Writer == authID {
			want = nil
		}
		if got := alarmsIn(t, f.Log); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: alarms %q, want %q", c.name, got, want)
		}
		if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != uint64(len(want)) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
}

func TestA77_ForkIsRefusedWithAnAlarm(t *testing.T) {
	f := newLog(t, t.TempDir())
	one, two := nodeChain(t, nodeID, 5, f.clock.Now()), nodeChain(t, nodeID, 5, f.clock.Now().Add(time.Second))
	if acked, err := f.Ingest(t.Context(), node, one); acked != 5 || err != nil {
		t.Fatal(acked, err)
	}
	mixed := append(append([]event.Entry(nil), one...), two[4].Head().Next(canonical(t, event.Event{Kind: event.Exec})))
	for _, entries := range [][]event.Entry{two, mixed} {
		if acked, err := f.Ingest(t.Context(), node, entries); acked != 5 && acked != 0 || !fault.Because(err, "audit_fork") {
			t.Errorf("%d, %v", acked, err)
		}
	}
	if got := alarmsIn(t, f.Log); len(got) != 1 {
		t.Errorf("alarms %q, want one a minute", got)
	}
	f.clock.Advance(2 * time.Minute)
	_, _ = f.Ingest(t.Context(), node, two)
	if got := alarmsIn(t, f.Log); len(got) != 2 {
		t.Errorf("alarms %q", got)
	}
}

func TestListFilters(t *testing.T) {
	f := newLog(t, t.TempDir())
	start := f.clock.Now()
	for i := range 20 {
		ev := roleCreated(fmt.Sprint(i))
		if i%2 == 1 {
			ev = event.Event{Kind: event.UserLogin, User: "u", Success: true, Device: &event.Device{ID: "dev-1", AssetTag: "TAG"}}
		}
		record(t, f.Log, ev)
		f.clock.Advance(time.Second)
	}
	if _, err := f.Ingest(t.Context(), node, nodeChain(t, nodeID, 1, start.Add(100*time.Hour))); err != nil {
		t.Fatal(err) // its clock runs ahead; it is listed where it arrived
	}
	f.clock.Advance(time.Second)
	record(t, f.Log, roleCreated("last"))
	for _, c := range []struct {
		name   string
		filter Filter
		want   int
	}{
		{"all", Filter{}, 22}, {"kind", Filter{Event: event.RoleCreated}, 11}, {"user", Filter{User: "u"}, 10},
		{"device id", Filter{Device: "dev-1"}, 10}, {"asset tag", Filter{Device: "TAG"}, 10}, {"nobody", Filter{User: "x"}, 0},
		{"from", Filter{From: start.Add(18 * time.Second)}, 4}, {"to", Filter{To: start.Add(2 * time.Second)}, 2},
		{"between", Filter{From: start.Add(5 * time.Second), To: start.Add(10 * time.Second), User: "u"}, 3},
	} {
		for _, newest := range []bool{false, true} {
			for _, limit := range []int{0, 1, 3} {
				filter := c.filter
				filter.NewestFirst, filter.Limit = newest, limit
				var got []event.Stored
				for {
					page, next, err := f.List(t.Context(), filter)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, page...)
					if filter.After = next; next == "" {
						break
					}
				}
				if len(got) != c.want {
					t.Errorf("%s, newest first %t, pages of %d: %d entries, want %d", c.name, newest, limit, len(got), c.want)
				}
				if c.name == "all" && (got[0].Seq == 1) == newest {
					t.Errorf("newest first %t begins with entry %d of %s", newest, got[0].Seq, got[0].Writer)
				}
			}
		}
	}
	if _, _, err := f.List(t.Context(), Filter{After: "nonsense"}); !fault.Because(err, "bad_cursor") {
		t.Errorf("got %v", err)
	}
}

func TestHeadsAreBoundedAndExported(t *testing.T) {
	f := newLog(t, t.TempDir())
	if _, err := f.LatestHeads(t.Context()); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Ingest(t.Context(), node, nodeChain(t, nodeID, 3, f.clock.Now())); err != nil {
		t.Fatal(err)
	}
	for range keepHeads + 5 {
		record(t, f.Log, roleCreated("x"))
		if _, err := f.SignHeads(t.Context(), f.clock.Now()); err != nil {
			t.Fatal(err)
		}
	}
	if p, err := f.store.List(t.Context(), store.Range{Prefix: headsPrefix}); err != nil || len(p.Records) != keepHeads {
		t.Errorf("%d lists are kept, %v", len(p.Records), err)
	}
	var out bytes.Buffer
	if err := f.Export(t.Context(), &out); err != nil {
		t.Fatal(err)
	}
	r, err := event.VerifyJSONL(&out, f.PublicKey())
	if err != nil || !r.Intact() || r.Entries != keepHeads+8 || len(r.Heads) != 2 {
		t.Errorf("%+v, %v", r, err)
	}
}

func BenchmarkRecord(b *testing.B) {
	for _, callers := range []int{1, 50} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			f := newLog(b, b.TempDir())
			var all sync.WaitGroup
			for w := range callers {
				all.Go(func() {
					for i := w; i < b.N; i += callers {
						if _, err := f.Record(b.Context(), roleCreated("x"), store.Put(fmt.Sprintf("role/%d", i), []byte("x"))); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
}

func BenchmarkIngest(b *testing.B) {
	f := newLog(b, b.TempDir())
	c := nodeChain(b, nodeID, b.N, f.clock.Now())
	b.ResetTimer()
	for i := 0; i < len(c); i += 256 {
		if _, err := f.Ingest(b.Context(), node, c[i:min(i+256, len(c))]); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}
