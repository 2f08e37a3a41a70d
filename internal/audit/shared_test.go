package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/store"
)

// devices are events of one change, each with two operations.
func devices(n int) ([]event.Event, []store.Op) {
	var evs []event.Event
	var ops []store.Op
	for i := range n {
		tag := fmt.Sprintf("T%02d", i)
		evs = append(evs, event.Event{Kind: event.DeviceCreate, User: "admin", Success: true, Device: &event.Device{ID: "id-" + tag, AssetTag: tag}})
		ops = append(ops, store.Create("device/id-"+tag, []byte("x")), store.Create("devicetag/"+tag, []byte("y")))
	}
	return evs, ops
}

// lines counts the index of times.
func lines(t *testing.T, f fixture) (keys []string) {
	t.Helper()
	if err := f.scan(t.Context(), timePrefix, func(r store.Record) error { keys = append(keys, r.Key); return nil }); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestSharedLines: thirty devices with tag and event fit one transaction; their events share a line of the index, and
// each is listed by itself.
func TestSharedLines(t *testing.T) {
	f := newLog(t, t.TempDir())
	record(t, f.Log, roleCreated("before"))
	evs, ops := devices(30)
	if _, err := f.RecordAll(t.Context(), evs, ops...); err != nil {
		t.Fatal(err)
	}
	record(t, f.Log, roleCreated("behind"))
	mixed, _ := devices(2)
	mixed = append(mixed, roleCreated("mixed")) // another kind: lines of their own
	if _, err := f.RecordAll(t.Context(), mixed, store.Put("x", nil)); err != nil {
		t.Fatal(err)
	}
	if n := len(lines(t, f)); n != 3+3 {
		t.Errorf("%d lines in the index", n)
	}
	list := func(filter Filter) (names []string) {
		t.Helper()
		for range 100 {
			page, next, err := f.List(t.Context(), filter)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range page {
				ev, err := event.Parse(s.Event)
				if err != nil {
					t.Fatal(err)
				}
				if ev.Device != nil {
					names = append(names, ev.Device.AssetTag)
				} else {
					names = append(names, ev.ResourceName)
				}
			}
			if filter.After = next; next == "" {
				return names
			}
		}
		t.Fatal("pages without end")
		return nil
	}
	all := list(Filter{})
	if len(all) != 35 || all[0] != "before" || all[1] != "T00" || all[30] != "T29" || all[31] != "behind" {
		t.Errorf("%q", all)
	}
	back := list(Filter{NewestFirst: true})
	slices.Reverse(back)
	if !slices.Equal(all, back) {
		t.Errorf("newest first: %q", back)
	}
	if small := list(Filter{Limit: 2}); !slices.Equal(all, small) {
		t.Errorf("in pages of two: %q", small)
	}
	if got := list(Filter{Device: "T07"}); !slices.Equal(got, []string{"T07"}) {
		t.Errorf("one device: %q", got)
	}
	if got := list(Filter{Device: "id-T01"}); !slices.Equal(got, []string{"T01", "T01"}) {
		t.Errorf("one device: %q", got)
	}
	if r := verify(t, f.Log, nil); len(r.Problems) != 0 || r.Entries != 35 {
		t.Errorf("%+v", r)
	}
	if evs, ops := devices(33); true {
		if _, err := f.RecordAll(t.Context(), evs, ops...); err == nil {
			t.Error("a change over the bound was taken")
		}
	}
}

// TestA77_SharedLines: an entry cannot be hidden behind another's line, nor a line be made to tell of less.
func TestA77_SharedLines(t *testing.T) {
	for name, damage := range map[string]func(fixture, *testing.T) []store.Op{
		"a line that tells of less": func(f fixture, t *testing.T) []store.Op {
			k := lines(t, f)[1]
			return []store.Op{store.Put(k, bytes.Replace(f.value(t, k), []byte(`"n":4`), []byte(`"n":3`), 1))}
		},
		"a line that names less": func(f fixture, t *testing.T) []store.Op {
			k := lines(t, f)[1]
			return []store.Op{store.Put(k, bytes.Replace(f.value(t, k), []byte(`"T03"`), []byte(`"T3"`), 1))}
		},
		"a line removed": func(f fixture, t *testing.T) []store.Op { return []store.Op{store.Delete(lines(t, f)[1])} },
		"an entry that says it has another's line": func(f fixture, t *testing.T) []store.Op {
			var s event.Stored
			if err := json.Unmarshal(f.value(t, entryKey(authID, 7)), &s); err != nil {
				t.Fatal(err)
			}
			s.Line = 2
			b, _ := json.Marshal(s)
			return []store.Op{store.Put(entryKey(authID, 7), b), store.Delete(lines(t, f)[2])}
		},
	} {
		f := newLog(t, t.TempDir())
		record(t, f.Log, roleCreated("first"))
		evs, ops := devices(5)
		if _, err := f.RecordAll(t.Context(), evs, ops...); err != nil {
			t.Fatal(err)
		}
		record(t, f.Log, roleCreated("last"))
		if r := verify(t, f.Log, nil); len(r.Problems) != 0 {
			t.Fatalf("before: %+v", r)
		}
		f.tamper(t, damage(f, t)...)
		if r := verify(t, f.Log, nil); len(r.Problems) == 0 {
			t.Errorf("%s: not found", name)
		}
	}
}
