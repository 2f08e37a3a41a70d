package archive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

const (
	nodeA = "0b9ad8a2-0d0f-4f7e-8d55-0b3f4a3c2d11"
	nodeB = "0b9ad8a2-0d0f-4f7e-8d55-0b3f4a3c2d22"
)

// place is an archive with two nodes and a few people.
type place struct {
	*Service
	t      *testing.T
	mirror *snapshot.Mirror
	now    time.Time

	mu     sync.Mutex
	events []event.Event // guarded by mu
	fails  error         // guarded by mu
}

// Record is of Audit.
func (p *place) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails != nil {
		return 0, p.fails
	}
	if err := ev.Complete("example.com", p.Now); err != nil {
		p.t.Errorf("%+v: %v", ev, err)
	}
	p.events = append(p.events, ev)
	if len(ops) == 0 {
		return 0, nil
	}
	return p.Store.Txn(ctx, ops)
}

func (p *place) of(k event.Kind) []event.Event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(p.events), func(e event.Event) bool { return e.Kind != k })
}

func newPlace(t *testing.T) *place {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	key, err := recording.NewIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &place{t: t, now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	p.mirror = snapshot.NewMirror(func() time.Duration { return 0 })
	settings := cluster.Default()
	put := []*manifest.Resource{{Kind: manifest.Cap, Spec: &settings}}
	for name, where := range map[string]string{"auditor": "", "own": "resource.user == user.name", "prod": `resource.hostname.startsWith("prod")`} {
		put = append(put, &manifest.Resource{Kind: manifest.Role, Spec: &role.Role{Name: name, Allow: role.Conditions{
			Rules: []role.Rule{{Resources: []string{Kind}, Verbs: []string{"list", "read"}, Where: where}}}}})
	}
	p.mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: put, Authorities: &snapshot.Authorities{}})
	p.mirror.Confirm(p.mirror.Now())
	p.Service = &Service{Dir: t.TempDir(), Key: key, Store: s, Pictures: p.mirror, Audit: p, Now: func() time.Time { return p.now }}
	return p
}

func (p *place) who(name string, roles ...string) identity.Caller {
	return identity.Caller{User: &identity.User{Name: name, Cluster: "example.com", Kind: identity.Human, Roles: roles,
		Validity: identity.Validity{IssuedAt: p.now.Add(-time.Hour), Expires: p.now.Add(time.Hour)}}}
}

func host(id string) identity.Host {
	return identity.Host{ID: id, Role: identity.RoleNode, Cluster: "example.com"}
}

func id(n int) string { return fmt.Sprintf("5f0c9a52-1c7e-4a55-9d1e-%012x", n) }

func (p *place) start(n int) recording.Start {
	return recording.Start{Name: id(n), Time: p.now.Add(time.Duration(n) * time.Second), Place: recording.Place{Cluster: "example.com", Host: nodeA, Server: "web", Protocol: "ssh"},
		User: "alice", Login: "root"}
}

// made are the pieces of a recording: its beginning, a chunk of output, its end.
func (p *place) made(s recording.Start) [][]byte { return p.named(s.Name, s) }

// named is made with a name of its own in its header.
func (p *place) named(name string, s recording.Start) [][]byte {
	p.t.Helper()
	first, err := recording.JSONFrame(recording.Began, 0, s)
	if err != nil {
		p.t.Fatal(err)
	}
	last, err := recording.JSONFrame(recording.Ended, time.Second, recording.End{})
	if err != nil {
		p.t.Fatal(err)
	}
	e, err := recording.NewEnvelope(p.Key.Recipient())
	if err != nil {
		p.t.Fatal(err)
	}
	sealer, raw, err := recording.NewSealer(nil, e, name)
	if err != nil {
		p.t.Fatal(err)
	}
	var out [][]byte
	for i, f := range []recording.Frame{first, {Kind: recording.Output, Data: []byte("hello")}, last} {
		if raw, err = sealer.Chunk(raw, recording.AppendFrame(nil, f), i == 2, true); err != nil {
			p.t.Fatal(err)
		}
		out, raw = append(out, raw), nil
	}
	return out
}

func (p *place) take(from, name string, offset int, last bool, data []byte) (int, error) {
	have, err := p.Take(p.t.Context(), host(from), recording.Piece{Name: name, Offset: int64(offset), Data: data, Last: last})
	return int(have), err
}

// keeps takes a whole recording.
func (p *place) keeps(s recording.Start) {
	p.t.Helper()
	all := bytes.Join(p.made(s), nil)
	if have, err := p.take(s.Host, s.Name, 0, true, all); err != nil || have != len(all) {
		p.t.Fatal(have, err)
	}
}

func (p *place) reads(from identity.Caller, name string) (string, error) {
	b, err := p.Open(p.t.Context(), from, name)
	if err != nil {
		return "", err
	}
	defer b.Close()
	var out strings.Builder
	for {
		f, err := b.Next()
		if err != nil {
			return out.String(), err
		}
		if f.Kind == recording.Output {
			out.Write(f.Data)
		}
	}
}

// TestArchive: pieces are taken in order and once, and are there while more comes.
func TestArchive(t *testing.T) {
	p := newPlace(t)
	s := p.start(1)
	parts := p.made(s)
	a, b, c := len(parts[0]), len(parts[0])+len(parts[1]), len(bytes.Join(parts, nil))
	if have, err := p.take(nodeA, s.Name, a, false, parts[1]); err != nil || have != 0 {
		t.Errorf("a piece ahead of the first: %d %v", have, err)
	}
	for range 2 { // what is sent twice is taken once
		if have, err := p.take(nodeA, s.Name, 0, false, parts[0]); err != nil || have != a {
			t.Fatal(have, err)
		}
	}
	if have, err := p.take(nodeA, s.Name, b, false, parts[2]); err != nil || have != a {
		t.Errorf("a piece too far: %d %v", have, err)
	}
	if have, err := p.take(nodeA, s.Name, a, false, parts[1]); err != nil || have != b {
		t.Fatal(have, err)
	}
	if text, err := p.reads(p.who("erin", "auditor"), s.Name); text != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("while it goes on: %q %v", text, err)
	}
	if len(p.of(event.SessionRecorded)) != 0 {
		t.Error("it is over before it is")
	}
	if have, err := p.take(nodeA, s.Name, b, true, parts[2]); err != nil || have != c {
		t.Fatal(have, err)
	}
	if have, err := p.take(nodeA, s.Name, c, true, parts[2]); err != nil || have != c {
		t.Errorf("a piece behind the end: %d %v", have, err)
	}
	if text, err := p.reads(p.who("erin", "auditor"), s.Name); text != "hello" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", text, err)
	}
	raw, err := os.ReadFile(p.file(s.Name))
	sum := sha256.Sum256(raw)
	over := p.of(event.SessionRecorded)
	if err != nil || len(over) != 1 || !over[0].Success || !strings.Contains(over[0].Message, hex.EncodeToString(sum[:])) || over[0].Recording != s.Name || over[0].User != "alice" {
		t.Errorf("%+v %v", over, err)
	}
	if looked := p.of(event.RecordingAccess); len(looked) != 2 || looked[0].User != "erin" {
		t.Errorf("%+v", looked)
	}
}

// TestArchiveShort: a recording whose agent has no more of it, and whose end it never was, is cut short.
func TestArchiveShort(t *testing.T) {
	p := newPlace(t)
	parts := p.made(p.start(1))
	if _, err := p.take(nodeA, id(1), 0, true, slices.Concat(parts[0], parts[1])); err != nil {
		t.Fatal(err)
	}
	list, _, err := p.List(t.Context(), identity.Caller{Local: true}, recording.Query{}, "")
	if err != nil || len(list) != 1 || list[0].State != recording.Short {
		t.Errorf("%+v %v", list, err)
	}
	if over := p.of(event.SessionRecorded); len(over) != 1 || over[0].Success {
		t.Errorf("%+v", over)
	}
	if have, err := p.take(nodeA, id(1), len(parts[0])+len(parts[1]), true, parts[2]); err != nil || have != len(parts[0])+len(parts[1]) {
		t.Errorf("it goes on after its end: %d %v", have, err)
	}
}

// TestA13_ForeignRecordings: an agent hands in its own recordings alone, and as what they are.
func TestA13_ForeignRecordings(t *testing.T) {
	p := newPlace(t)
	parts := p.made(p.start(1))
	if _, err := p.take(nodeB, id(1), 0, false, parts[0]); !fault.Because(err, "foreign_recording") {
		t.Errorf("that says another agent made it: %v", err)
	}
	if _, err := p.take(nodeA, id(1), 0, false, parts[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.take(nodeB, id(1), len(parts[0]), true, parts[1]); !fault.Because(err, "foreign_recording") {
		t.Errorf("behind another's: %v", err)
	}
	other := p.start(3)
	other.Cluster = "elsewhere"
	if _, err := p.take(nodeA, id(3), 0, false, p.made(other)[0]); !fault.Because(err, "foreign_recording") {
		t.Errorf("of another cluster: %v", err)
	}
	tomorrow := p.start(2)
	tomorrow.Time = tomorrow.Time.Add(24 * time.Hour)
	for name, c := range map[string]struct {
		name string
		data []byte
	}{
		"another name":     {id(2), parts[0]},
		"two names":        {id(2), p.named(id(4), p.start(2))[0]},
		"another day":      {id(2), p.made(tomorrow)[0]},
		"a path":           {"../../" + id(2), parts[0]},
		"no name":          {"", parts[0]},
		"nothing":          {id(2), nil},
		"no recording":     {id(2), []byte("#!/bin/sh")},
		"half a beginning": {id(2), p.made(p.start(2))[0][:100]},
		"a torn chunk":     {id(2), slices.Concat(p.made(p.start(2))[0], []byte{1, 2, 3})},
		"too much":         {id(2), make([]byte, MaxPiece+1)},
	} {
		if have, err := p.take(nodeA, c.name, 0, true, c.data); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %d %v", name, have, err)
		}
	}
	stranger, err := recording.NewIdentity(nil)
	if err != nil {
		t.Fatal(err)
	}
	mine := p.Key
	p.Key = stranger
	foreign := p.made(p.start(2))[0]
	p.Key = mine
	if _, err := p.take(nodeA, id(2), 0, false, foreign); !fault.Is(err, fault.Invalid) {
		t.Errorf("sealed for somebody else: %v", err)
	}
	for name, piece := range map[string][]byte{"twice": parts[0][len(parts[0])-len(parts[0])/8:], "out of order": parts[2], "of another": p.made(p.start(2))[2], "changed": slices.Concat(parts[1][:20], []byte{parts[1][20] ^ 1}, parts[1][21:])} {
		if _, err := p.take(nodeA, id(1), len(parts[0]), false, piece); !fault.Is(err, fault.Invalid) {
			t.Errorf("a chunk %s: %v", name, err)
		}
	}
	if _, err := p.take(nodeA, id(1), len(parts[0]), false, parts[1]); err != nil {
		t.Errorf("after all that: %v", err)
	}
	entries, err := os.ReadDir(p.Dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v %v", entries, err)
	}
}

// TestArchiveReserve: recordings leave room on their disk, for the cluster's state is often on the same.
func TestArchiveReserve(t *testing.T) {
	p := newPlace(t)
	parts := p.made(p.start(1))
	p.Reserve = 1 << 60
	if n, err := p.take(nodeA, id(1), 0, false, parts[0]); n != 0 || !fault.Because(err, "recordings_full") || fault.Of(err).Fix == "" {
		t.Fatalf("%d, %v", n, err)
	}
	if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) != 0 {
		t.Fatalf("%v %v", entries, err)
	}
	p.Reserve = 1
	if _, err := p.take(nodeA, id(1), 0, false, parts[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := p.take(nodeA, id(1), len(parts[0]), true, slices.Concat(parts[1], parts[2])); err != nil {
		t.Fatal(err)
	}
	if text, err := p.reads(identity.Caller{Local: true}, id(1)); text != "hello" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", text, err)
	}
}

// TestArchiveCrash: what a server wrote and did not note before it died is written over.
func TestArchiveCrash(t *testing.T) {
	p := newPlace(t)
	parts := p.made(p.start(1))
	if _, err := p.take(nodeA, id(1), 0, false, parts[0]); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(p.file(id(1)), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Write(bytes.Repeat([]byte{7}, 5000))
	f.Close()
	if text, err := p.reads(identity.Caller{Local: true}, id(1)); text != "" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%q %v", text, err)
	}
	p.fails = errors.New("full")
	if _, err := p.take(nodeA, id(1), len(parts[0]), true, slices.Concat(parts[1], parts[2])); err == nil {
		t.Fatal("taken without its record")
	}
	p.fails = nil
	if _, err := p.take(nodeA, id(1), len(parts[0]), true, slices.Concat(parts[1], parts[2])); err != nil {
		t.Fatal(err)
	}
	if text, err := p.reads(identity.Caller{Local: true}, id(1)); text != "hello" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", text, err)
	}
	sum := sha256.Sum256(bytes.Join(parts, nil))
	if over := p.of(event.SessionRecorded); len(over) != 1 || !strings.Contains(over[0].Message, hex.EncodeToString(sum[:])) {
		t.Errorf("%+v, want %x", over, sum)
	}
	if err := os.Truncate(p.file(id(1)), 10); err != nil {
		t.Fatal(err)
	}
	if _, err := p.reads(identity.Caller{Local: true}, id(1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a file that was cut: %v", err)
	}
	if err := os.Remove(p.file(id(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.reads(identity.Caller{Local: true}, id(1)); !fault.Because(err, "recording_gone") {
		t.Errorf("%v", err)
	}
}

// TestA71_Recordings: a recording that is not one's to see is as one that is not there, and the attempt is on record.
func TestA71_Recordings(t *testing.T) {
	p := newPlace(t)
	p.keeps(p.start(1))
	bobs, prods := p.start(2), p.start(3)
	bobs.User, prods.Server = "bob", "prod1"
	p.keeps(bobs)
	p.keeps(prods)
	for _, c := range []struct {
		who  identity.Caller
		sees []int
	}{
		{p.who("erin", "auditor"), []int{3, 2, 1}}, {p.who("alice", "own"), []int{3, 1}}, {p.who("bob", "own"), []int{2}}, {p.who("carl", "prod"), []int{3}},
		{p.who("dave"), nil}, {p.who("dave", "nosuch"), nil}, {identity.Caller{}, nil}, {identity.Caller{Host: &identity.Host{ID: nodeA}}, nil}, {identity.Caller{Local: true}, []int{3, 2, 1}},
	} {
		list, next, err := p.List(t.Context(), c.who, recording.Query{}, "")
		var got, want []string
		for _, e := range list {
			got = append(got, e.Name)
		}
		for _, n := range c.sees {
			want = append(want, id(n))
		}
		if err != nil || next != "" || !slices.Equal(got, want) {
			t.Errorf("%s lists %v %v, want %v", c.who.Name(), got, err, want)
		}
		for n := 1; n <= 3; n++ {
			before := len(p.of(event.RecordingAccess))
			text, err := p.reads(c.who, id(n))
			may := slices.Contains(c.sees, n)
			if may != (text == "hello") || !may && !fault.Is(err, fault.NotFound) {
				t.Errorf("%s reads %d: %q %v", c.who.Name(), n, text, err)
			}
			if events := p.of(event.RecordingAccess); len(events) != before+1 || events[before].Success != may || events[before].Recording != id(n) {
				t.Errorf("%s reads %d: %+v", c.who.Name(), n, events[before:])
			}
		}
		_, missing := p.reads(c.who, id(9))
		if _, hidden := p.reads(c.who, id(1)); !slices.Contains(c.sees, 1) && strings.ReplaceAll(hidden.Error(), id(1), id(9)) != missing.Error() {
			t.Errorf("%s: %v, but %v", c.who.Name(), hidden, missing)
		}
	}
	for _, name := range []string{"", "..", "../" + id(1), id(1) + "/..", strings.ToUpper(id(1))} {
		if _, err := p.reads(identity.Caller{Local: true}, name); !fault.Is(err, fault.NotFound) {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestArchiveLists: pages, the newest first, narrowed.
func TestArchiveLists(t *testing.T) {
	p := newPlace(t)
	const all = 450
	for n := range all {
		s := p.start(n)
		if n%10 == 0 {
			s.User = "bob"
		}
		raw := p.made(s)[0]
		if _, err := p.take(nodeA, s.Name, 0, false, raw); err != nil {
			t.Fatal(err)
		}
	}
	lists := func(q recording.Query) (names []string) {
		for after := ""; ; {
			list, next, err := p.List(t.Context(), identity.Caller{Local: true}, q, after)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				names = append(names, e.Name)
			}
			if after = next; after == "" {
				return names
			}
		}
	}
	got := lists(recording.Query{})
	if len(got) != all || got[0] != id(all-1) || got[all-1] != id(0) {
		t.Errorf("%d, from %s", len(got), got[0])
	}
	if got := lists(recording.Query{User: "bob"}); len(got) != all/10 {
		t.Errorf("%d of bob", len(got))
	}
	if got := lists(recording.Query{From: p.now.Add(100 * time.Second), To: p.now.Add(103 * time.Second)}); !slices.Equal(got, []string{id(102), id(101), id(100)}) {
		t.Errorf("%v", got)
	}
	if got := lists(recording.Query{Session: id(77)[:36]}); !slices.Equal(got, []string{id(77)}) {
		t.Errorf("%v", got)
	}
}

// TestArchiveOff: a cluster without a place for recordings takes none.
func TestArchiveOff(t *testing.T) {
	p := newPlace(t)
	p.Dir = ""
	if _, err := p.take(nodeA, id(1), 0, true, p.made(p.start(1))[0]); !fault.Because(err, "no_recordings") {
		t.Errorf("%v", err)
	}
	if _, err := p.reads(identity.Caller{Local: true}, id(1)); !fault.Because(err, "no_recordings") {
		t.Errorf("%v", err)
	}
}

// TestNames: one at a time works on a name.
func TestNames(t *testing.T) {
	var n names
	var running sync.WaitGroup
	count := 0
	for range 50 {
		running.Go(func() {
			defer n.lock("x")()
			count++
		})
	}
	running.Wait()
	if count != 50 || len(n.held) != 0 {
		t.Error(count, len(n.held))
	}
}

// TestSweep: what began too long ago goes, with a record; what goes on stays.
func TestSweep(t *testing.T) {
	p := newPlace(t)
	for n := range 5 {
		p.keeps(p.start(n))
	}
	going := p.start(5)
	going.Time = p.now.Add(-time.Hour)
	parts := p.made(going)
	if _, err := p.take(nodeA, going.Name, 0, false, parts[0]); err != nil {
		t.Fatal(err)
	}
	p.now = p.now.Add(time.Hour + 3*time.Second)
	if _, err := p.take(nodeA, going.Name, len(parts[0]), false, parts[1]); err != nil {
		t.Fatal(err)
	}
	n, err := p.Sweep(t.Context(), time.Hour)
	list, _, lerr := p.List(t.Context(), identity.Caller{Local: true}, recording.Query{}, "")
	var left []string
	for _, e := range list {
		left = append(left, e.Name)
	}
	if err != nil || lerr != nil || n != 3 || !slices.Equal(left, []string{id(4), id(3), id(5)}) {
		t.Errorf("%d removed, %v left: %v %v", n, left, err, lerr)
	}
	if gone := p.of(event.ResourceDelete); len(gone) != 3 || gone[0].ResourceName != id(0) {
		t.Errorf("%+v", gone)
	}
	if _, err := os.Stat(p.file(id(0))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if _, err := p.reads(identity.Caller{Local: true}, id(0)); !fault.Because(err, "not_found") {
		t.Error(err)
	}
	if text, err := p.reads(identity.Caller{Local: true}, id(3)); text != "hello" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", text, err)
	}
	p.now = p.now.Add(24 * time.Hour) // an agent that never came back
	if n, err := p.Sweep(t.Context(), time.Hour); n != 3 || err != nil {
		t.Errorf("%d %v", n, err)
	}
}

// TestArchiveRestored: where the directory is older than the state, or was lost, what still goes on is sent anew from its beginning.
func TestArchiveRestored(t *testing.T) {
	for name, harm := range map[string]func(file string) error{
		"gone":  os.Remove,
		"short": func(file string) error { return os.Truncate(file, 10) },
		"empty": func(file string) error { return os.Truncate(file, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t)
			parts := p.made(p.start(1))
			first := len(parts[0]) + len(parts[1])
			if have, err := p.take(nodeA, id(1), 0, false, slices.Concat(parts[0], parts[1])); err != nil || have != first {
				t.Fatal(have, err)
			}
			if err := harm(p.file(id(1))); err != nil {
				t.Fatal(err)
			}
			if have, err := p.take(nodeA, id(1), first, true, parts[2]); err != nil || have != 0 {
				t.Fatalf("auth says it has %d, %v", have, err)
			}
			other := p.start(1)
			other.Time = other.Time.Add(time.Hour)
			if _, err := p.take(nodeA, id(1), 0, true, bytes.Join(p.made(other), nil)); err == nil {
				t.Error("another recording takes its place")
			}
			if _, err := p.take(nodeB, id(1), 0, true, bytes.Join(parts, nil)); !fault.Because(err, "foreign_recording") {
				t.Error(err)
			}
			if have, err := p.take(nodeA, id(1), 0, true, bytes.Join(parts, nil)); err != nil || have != first+len(parts[2]) {
				t.Fatal(have, err)
			}
			if out, err := p.reads(p.who("carol", "auditor"), id(1)); out != "hello" || !errors.Is(err, io.EOF) {
				t.Errorf("%q %v", out, err)
			}
		})
	}
}

// hangsUp ends a call's context while its recording is written down.
type hangsUp struct {
	*place
	stop func()
}

// Record is of Audit.
func (h hangsUp) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	h.stop()
	return h.place.Record(ctx, ev, ops...)
}

// TestArchivePatience: that a recording is over is kept also where its agent waited no longer.
func TestArchivePatience(t *testing.T) {
	p := newPlace(t)
	ctx, stop := context.WithCancel(t.Context())
	p.Audit = hangsUp{p, stop}
	all := bytes.Join(p.made(p.start(1)), nil)
	_, _ = p.Take(ctx, host(nodeA), recording.Piece{Name: id(1), Data: all, Last: true})
	e, err := p.find(t.Context(), id(1))
	if err != nil || e == nil || e.State != recording.Whole {
		t.Errorf("%+v %v", e, err)
	}
}

// TestSweepLate: what more came of since it was listed stays, its file with it.
func TestSweepLate(t *testing.T) {
	p := newPlace(t)
	parts := p.made(p.start(1))
	if _, err := p.take(nodeA, id(1), 0, false, parts[0]); err != nil {
		t.Fatal(err)
	}
	old, err := p.find(t.Context(), id(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.take(nodeA, id(1), len(parts[0]), true, slices.Concat(parts[1], parts[2])); err != nil {
		t.Fatal(err)
	}
	if err := p.remove(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	if out, err := p.reads(p.who("carol", "auditor"), id(1)); out != "hello" || !errors.Is(err, io.EOF) {
		t.Errorf("%q %v", out, err)
	}
}
