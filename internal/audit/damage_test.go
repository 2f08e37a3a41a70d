package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// tamper changes one record behind the log's back.
func (f fixture) tamper(t *testing.T, ops ...store.Op) {
	t.Helper()
	if _, err := f.store.Txn(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) value(t *testing.T, key string) []byte {
	t.Helper()
	r, err := f.store.Get(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return r.Value
}

func (f fixture) headAt(t *testing.T, seq uint64) []byte {
	t.Helper()
	var s event.Stored
	if err := json.Unmarshal(f.value(t, entryKey(authID, seq)), &s); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(s.Head())
	return b
}

// cutTo removes what a cut leaves behind: entries, their lines in the index, and the head.
func cutTo(f fixture, t *testing.T, seq uint64) []store.Op {
	ops := []store.Op{store.Put(headPrefix+authID, f.headAt(t, seq))}
	for s := seq + 1; s <= 10; s++ {
		ops = append(ops, store.Delete(entryKey(authID, s)))
	}
	_ = f.scan(t.Context(), timePrefix, func(r store.Record) error {
		if _, s, _ := splitTimeKey(r.Key); s > seq {
			ops = append(ops, store.Delete(r.Key))
		}
		return nil
	})
	return ops
}

var damages = []struct {
	name   string
	damage func(fixture, *testing.T) []store.Op
	seq    uint64
	text   string
}{
	{"nothing", func(fixture, *testing.T) []store.Op { return []store.Op{store.Put("role/x", nil)} }, 0, ""},
	{"an entry changed", func(f fixture, t *testing.T) []store.Op {
		return []store.Op{store.Put(entryKey(authID, 4), bytes.Replace(f.value(t, entryKey(authID, 4)), []byte(`"admin"`), []byte(`"other"`), 1))}
	}, 4, "was changed"},
	{"an entry removed", func(fixture, *testing.T) []store.Op { return []store.Op{store.Delete(entryKey(authID, 4))} }, 5, "entry 5 after entry 3"},
	{"two entries swapped", func(f fixture, t *testing.T) []store.Op {
		return []store.Op{store.Put(entryKey(authID, 4), f.value(t, entryKey(authID, 5))),
			store.Put(entryKey(authID, 5), f.value(t, entryKey(authID, 4)))}
	}, 5, "entry 5 after entry 3"},
	{"the end cut, heads of the chain with it", func(f fixture, t *testing.T) []store.Op { return cutTo(f, t, 7) }, 7, "cut"},
	{"the end cut, signed lists with it", func(f fixture, t *testing.T) []store.Op {
		return append(cutTo(f, t, 7), store.Delete(headsKey(1)))
	}, 7, "cut"},
	{"an entry hidden from listings", func(f fixture, t *testing.T) []store.Op {
		p, _ := f.store.List(t.Context(), store.Range{Prefix: timePrefix, Limit: 1})
		return []store.Op{store.Delete(p.Records[0].Key)}
	}, 0, "index of times"},
	{"an entry attributed to another in listings", func(f fixture, t *testing.T) []store.Op {
		p, _ := f.store.List(t.Context(), store.Range{Prefix: timePrefix, Limit: 1})
		return []store.Op{store.Put(p.Records[0].Key, []byte(`{"k":"exec"}`))}
	}, 0, "index of times"},
	{"a signed list changed", func(f fixture, t *testing.T) []store.Op {
		b := bytes.Clone(f.value(t, headsKey(1)))
		b[len(b)-80] ^= 1
		return []store.Op{store.Put(headsKey(1), b)}
	}, 0, "not signed"},
	{"an entry that is no JSON", func(fixture, *testing.T) []store.Op {
		return []store.Op{store.Put(entryKey(authID, 10), []byte("x"))}
	}, 9, "cut"},
}

func TestA77_DamageIsFound(t *testing.T) {
	for _, c := range damages {
		f := newLog(t, t.TempDir())
		for i := range 10 {
			record(t, f.Log, roleCreated(fmt.Sprint(i)))
		}
		elsewhere, err := f.SignHeads(t.Context(), f.clock.Now())
		if err != nil {
			t.Fatal(err)
		}
		f.tamper(t, c.damage(f, t)...)
		r := verify(t, f.Log, &elsewhere)
		if c.text == "" {
			if !r.Intact() || r.Entries != 10 {
				t.Errorf("%s: %+v", c.name, r)
			}
			continue
		}
		if r.Intact() || r.Problems[0].Seq != c.seq || !strings.Contains(fmt.Sprint(r.Problems), c.text) {
			t.Errorf("%s: %+v", c.name, r.Problems)
		}
		if strings.HasPrefix(c.name, "the end cut") {
			if _, err := f.SignHeads(t.Context(), f.clock.Now()); !fault.Because(err, "audit_damaged") {
				t.Errorf("%s: the shorter chain was signed: %v", c.name, err)
			}
			if _, err := f.Record(t.Context(), roleCreated("after")); !fault.Because(err, "audit_damaged") {
				t.Errorf("%s: the chain was written on: %v", c.name, err)
			}
		}
	}
}

func TestA77_ClockSetBack(t *testing.T) {
	f := newLog(t, t.TempDir())
	record(t, f.Log, roleCreated("a"))
	one, err := f.SignHeads(t.Context(), f.clock.Now())
	if err != nil {
		t.Fatal(err)
	}
	f.clock.Advance(-48 * time.Hour)
	record(t, f.Log, roleCreated("b"))
	two, err := f.SignHeads(t.Context(), f.clock.Now())
	if err != nil || two.Number != one.Number+1 || !two.Time.Before(one.Time) {
		t.Fatalf("%+v, %v", two, err)
	}
	if latest, err := f.LatestHeads(t.Context()); err != nil || latest.Number != two.Number {
		t.Errorf("the latest list is %d, %v", latest.Number, err)
	}
	r := verify(t, f.Log, &one)
	if !r.Intact() || r.Entries != 2 || len(r.Notes) != 1 || r.Notes[0].Seq != 2 {
		t.Errorf("%+v", r)
	}
	if got, _, err := f.List(t.Context(), Filter{}); err != nil || len(got) != 2 || got[0].Seq != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}

type failing struct{ store.Store }

func (failing) Txn(context.Context, []store.Op) (uint64, error) {
	return 0, errors.New("connection lost")
}

func TestA77_StoreFails(t *testing.T) {
	f := newLog(t, t.TempDir())
	l := open(t, failing{f.store}, f.clock)
	if _, err := l.Record(t.Context(), roleCreated("x")); !fault.Because(err, "audit_unavailable") {
		t.Errorf("got %v", err)
	}
	if acked, err := l.Ingest(t.Context(), node, nodeChain(t, nodeID, 1, f.clock.Now())); acked != 0 || err == nil {
		t.Errorf("%d, %v", acked, err)
	}
}
