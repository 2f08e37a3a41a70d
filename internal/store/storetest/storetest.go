// Package storetest is the suite that every backend of store passes.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/store"
)

// Clock is the clock that a backend under test is opened with.
type Clock struct{ ns atomic.Int64 }

// Now is the clock's time.
func (c *Clock) Now() time.Time { return time.Unix(0, c.ns.Load()).UTC() }

// Advance moves it.
func (c *Clock) Advance(d time.Duration) { c.ns.Add(int64(d)) }

// Run runs the suite; open returns an empty store that goes by the clock, keeps the changes of at most 1000 records
// and closes itself at the test's end.
func Run(t *testing.T, open func(t *testing.T, now func() time.Time) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, store.Store, *Clock)
	}{
		{"get and put", testGetPut}, {"conditions", testConditions}, {"all or nothing", testAtomic},
		{"limits", testLimits}, {"list", testList}, {"expiry", testExpiry}, {"watch", testWatch},
		{"watch compacted", testCompacted}, {"watch ends", testWatchEnds}, {"race", testRace},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := &Clock{}
			clock.Advance(time.Duration(1_800_000_000) * time.Second)
			c.test(t, open(t, clock.Now), clock)
		})
	}
}

func must(t *testing.T, s store.Store, ops ...store.Op) uint64 {
	t.Helper()
	r, err := s.Txn(t.Context(), ops)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got %v, want %v", err, target)
	}
}

func testGetPut(t *testing.T, s store.Store, _ *Clock) {
	_, err := s.Get(t.Context(), "role/a")
	want(t, err, store.ErrNotFound)
	value := []byte("one")
	r1 := must(t, s, store.Put("role/a", value))
	value[0] = 'X'
	r2 := must(t, s, store.Put("role/b", nil))
	if r2 != r1+1 {
		t.Errorf("revisions %d, %d are not consecutive", r1, r2)
	}
	got, err := s.Get(t.Context(), "role/a")
	if err != nil || string(got.Value) != "one" || got.Revision != r1 || got.Key != "role/a" || !got.Expires.IsZero() {
		t.Errorf("got %+v, %v", got, err)
	}
	must(t, s, store.Delete("role/a"), store.Delete("role/none"))
	_, err = s.Get(t.Context(), "role/a")
	want(t, err, store.ErrNotFound)
}

func testConditions(t *testing.T, s store.Store, _ *Clock) {
	r := must(t, s, store.Create("role/a", []byte("1")))
	for _, c := range []struct {
		name string
		op   store.Op
		ok   bool
	}{
		{"create what exists", store.Create("role/a", nil), false},
		{"check right revision", store.CheckRevision("role/a", r), true},
		{"check another revision", store.CheckRevision("role/a", r+1), false},
		{"check absence of what exists", store.CheckRevision("role/a", 0), false},
		{"check absence of what is absent", store.CheckRevision("role/z", 0), true},
		{"check presence of what is absent", store.CheckRevision("role/z", r), false},
	} {
		before := must(t, s, store.CheckRevision("role/a", r))
		got, err := s.Txn(t.Context(), []store.Op{c.op})
		if c.ok && (err != nil || got != before) {
			t.Errorf("%s: revision %d, %v; a check alone keeps revision %d", c.name, got, err, before)
		}
		var conflict *store.ConflictError
		if !c.ok && (!errors.Is(err, store.ErrConflict) || !errors.As(err, &conflict) || conflict.Key != c.op.Key) {
			t.Errorf("%s: %v names no key", c.name, err)
		}
	}
	must(t, s, store.Put("role/a", []byte("2")), store.CheckRevision("role/a", r)) // judged on the state before
}

func testAtomic(t *testing.T, s store.Store, _ *Clock) {
	r := must(t, s, store.Put("a/1", []byte("old")))
	_, err := s.Txn(t.Context(), []store.Op{store.Put("a/1", []byte("new")), store.Put("a/2", nil), store.Delete("a/1x"),
		store.CheckRevision("a/3", 7)})
	want(t, err, store.ErrConflict)
	got, err := s.Get(t.Context(), "a/1")
	if err != nil || string(got.Value) != "old" || got.Revision != r {
		t.Errorf("a refused transaction wrote %+v, %v", got, err)
	}
	r2 := must(t, s, store.Put("a/1", []byte("new")), store.Put("a/2", []byte("x")))
	for _, k := range []string{"a/1", "a/2"} {
		if got, err := s.Get(t.Context(), k); err != nil || got.Revision != r2 {
			t.Errorf("%s: %+v, %v; want revision %d", k, got, err, r2)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Txn(ctx, []store.Op{store.Put("a/9", nil)})
	want(t, err, context.Canceled)
}

func testLimits(t *testing.T, s store.Store, _ *Clock) {
	many := make([]store.Op, store.MaxOps+1)
	for i := range many {
		many[i] = store.Put(fmt.Sprintf("k/%d", i), nil)
	}
	big := make([]byte, store.MaxValue)
	for _, c := range []struct {
		name string
		ops  []store.Op
		too  bool
	}{
		{"no operation", nil, true},
		{"101 operations", many, true},
		{"value over 1 MiB", []store.Op{store.Put("k", append(big, 0))}, true},
		{"transaction over its limit", []store.Op{store.Put("k", big), store.Put("l", big)}, true},
		{"long key", []store.Op{store.Put(strings.Repeat("k", store.MaxKey+1), nil)}, true},
		{"a key written twice", []store.Op{store.Put("k", nil), store.Delete("k")}, false},
		{"no kind", []store.Op{{Key: "k"}}, false},
		{"empty key", []store.Op{store.Put("", nil)}, false},
		{"space in key", []store.Op{store.Put("a b", nil)}, false},
		{"NUL in key", []store.Op{store.Put("a\x00b", nil)}, false},
		{"no ASCII", []store.Op{store.Put("ä", nil)}, false},
		{"slash at the end", []store.Op{store.Put("a/", nil)}, false},
	} {
		if _, err := s.Txn(t.Context(), c.ops); err == nil || errors.Is(err, store.ErrTooLarge) != c.too {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	must(t, s, many[:store.MaxOps]...)
	must(t, s, store.Put("k/big", big))
	if r, err := s.Get(t.Context(), "k/big"); err != nil || len(r.Value) != len(big) {
		t.Errorf("big value: %d bytes, %v", len(r.Value), err)
	}
}

func testList(t *testing.T, s store.Store, _ *Clock) {
	for _, k := range []string{"n/b", "n/a", "n/c", "n/a/x", "m/z", "n", "na/1", "n/~", "n/A"} {
		must(t, s, store.Put(k, []byte(k)))
	}
	for _, c := range []struct {
		r    store.Range
		want string
		more bool
	}{
		{store.Range{Prefix: "n/"}, "n/A n/a n/a/x n/b n/c n/~", false},
		{store.Range{Prefix: "n/", Limit: 2}, "n/A n/a", true},
		{store.Range{Prefix: "n/", Limit: 2, After: "n/a"}, "n/a/x n/b", true},
		{store.Range{Prefix: "n/", Limit: 2, After: "n/b"}, "n/c n/~", false},
		{store.Range{Prefix: "n/", After: "m"}, "n/A n/a n/a/x n/b n/c n/~", false},
		{store.Range{Prefix: "n/", After: "o"}, "", false},
		{store.Range{Prefix: "n/", Descending: true, Limit: 3}, "n/~ n/c n/b", true},
		{store.Range{Prefix: "n/", Descending: true, After: "n/b", Limit: 9}, "n/a/x n/a n/A", false},
		{store.Range{Prefix: "n/", Descending: true, After: "z"}, "n/~ n/c n/b n/a/x n/a n/A", false},
		{store.Range{Prefix: "n/", Descending: true, After: "a"}, "", false},
		{store.Range{Limit: 1}, "m/z", true},
	} {
		p, err := s.List(t.Context(), c.r)
		var keys []string
		for _, r := range p.Records {
			keys = append(keys, r.Key)
		}
		if got := strings.Join(keys, " "); err != nil || got != c.want || p.More != c.more || p.Revision != 9 {
			t.Errorf("%+v: %q more=%t revision=%d, %v", c.r, got, p.More, p.Revision, err)
		}
	}
}

func testExpiry(t *testing.T, s store.Store, clock *Clock) {
	at := clock.Now().Add(time.Minute)
	r := must(t, s, store.Put("t/1", []byte("x")).Until(at), store.Create("t/2", nil).Until(at), store.Put("t/3", nil))
	if got, err := s.Get(t.Context(), "t/1"); err != nil || !got.Expires.Equal(at) {
		t.Fatalf("before its time: %+v, %v", got, err)
	}
	clock.Advance(time.Minute)
	_, err := s.Get(t.Context(), "t/1")
	want(t, err, store.ErrNotFound)
	if p, err := s.List(t.Context(), store.Range{Prefix: "t/"}); err != nil || len(p.Records) != 1 {
		t.Errorf("listed %+v, %v", p.Records, err)
	}
	_, err = s.Txn(t.Context(), []store.Op{store.CheckRevision("t/1", r)})
	want(t, err, store.ErrConflict)
	must(t, s, store.Create("t/1", []byte("new"))) // swept or not, it is not there

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for c, err := range s.Watch(ctx, "t/2", r) {
		if err != nil {
			t.Fatalf("no deletion was seen: %v", err)
		}
		if !c.Events[0].Deleted || c.Events[0].Key != "t/2" {
			t.Errorf("event %+v", c.Events[0])
		}
		break
	}
	if got, err := s.Get(t.Context(), "t/1"); err != nil || string(got.Value) != "new" {
		t.Errorf("the sweep took what was written anew: %+v, %v", got, err)
	}
}

func testWatch(t *testing.T, s store.Store, _ *Clock) {
	p, err := s.List(t.Context(), store.Range{Prefix: "w/"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	go func() {
		for i := range 50 {
			_, _ = s.Txn(ctx, []store.Op{store.Put("w/a", []byte{byte(i)}), store.Put("x/a", nil), store.Put("w/b", nil)})
			_, _ = s.Txn(ctx, []store.Op{store.Put("x/b", nil)})
		}
		_, _ = s.Txn(ctx, []store.Op{store.Delete("w/a")})
	}()
	seen, last := 0, p.Revision
	for seen < 51 { // leaves and resumes at every tenth change
		for c, err := range s.Watch(ctx, "w/", last) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Revision <= last {
				t.Fatalf("revision %d after %d", c.Revision, last)
			}
			last = c.Revision
			if seen < 50 && (len(c.Events) != 2 || c.Events[0].Value[0] != byte(seen) || c.Events[0].Revision != last) {
				t.Fatalf("change %d is %+v", seen, c)
			}
			if seen == 50 && (len(c.Events) != 1 || !c.Events[0].Deleted) {
				t.Fatalf("deletion is %+v", c)
			}
			if seen++; seen%10 == 0 || seen == 51 {
				break
			}
		}
	}
}

func testCompacted(t *testing.T, s store.Store, _ *Clock) {
	first := must(t, s, store.Put("c/x", nil))
	var last uint64
	for i := range 30 {
		ops := make([]store.Op, store.MaxOps)
		for j := range ops {
			ops[j] = store.Put(fmt.Sprintf("c/%d", j), []byte{byte(i)})
		}
		last = must(t, s, ops...)
	}
	for _, after := range []uint64{first, last + 100} {
		for c, err := range s.Watch(t.Context(), "c/", after) {
			if !errors.Is(err, store.ErrCompacted) {
				t.Errorf("watch after %d: %+v, %v", after, c.Revision, err)
			}
			break
		}
	}
	for c, err := range s.Watch(t.Context(), "c/", last-1) {
		if err != nil || c.Revision != last || len(c.Events) != store.MaxOps {
			t.Errorf("watch from what is kept: %d, %v", c.Revision, err)
		}
		break
	}
}

func testWatchEnds(t *testing.T, s store.Store, _ *Clock) {
	r := must(t, s, store.Put("e/1", nil))
	watch := func(ctx context.Context) error {
		for _, err := range s.Watch(ctx, "e/", r) {
			return err
		}
		return nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	want(t, watch(ctx), context.Canceled)
	ended := make(chan error)
	go func() { ended <- watch(t.Context()) }()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, <-ended, store.ErrClosed)
	_, err := s.Txn(t.Context(), []store.Op{store.Put("e/2", nil)})
	want(t, err, store.ErrClosed)
	_, err = s.Get(t.Context(), "e/1")
	want(t, err, store.ErrClosed)
}

// testRace lets many count up one record: no increment is lost.
func testRace(t *testing.T, s store.Store, _ *Clock) {
	must(t, s, store.Put("r/n", []byte{0}))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for done := 0; done < 10; {
				r, err := s.Get(t.Context(), "r/n")
				if err != nil {
					t.Error(err)
					return
				}
				_, err = s.Txn(t.Context(), []store.Op{store.CheckRevision("r/n", r.Revision), store.Put("r/n", []byte{r.Value[0] + 1})})
				if err == nil {
					done++
				} else if !errors.Is(err, store.ErrConflict) {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	if r, err := s.Get(t.Context(), "r/n"); err != nil || r.Value[0] != 80 {
		t.Errorf("80 increments gave %v, %v", r.Value, err)
	}
}
