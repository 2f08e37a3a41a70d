package roster

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

var local = identity.Caller{Local: true}

// bench is the use case over a real store. after, if set, is called once a key was read: somebody else is faster.
type bench struct {
	*Service
	t       *testing.T
	store   *sqlite.Store
	after   func(key string)
	reached uint64
	events  []event.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(t.TempDir(), "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{t: t, store: s}
	b.Service = &Service{Records: records.New(racing{s, b}), Inventory: inventory.New(s), Audit: b, Pictures: b, Now: time.Now}
	return b
}

type racing struct {
	store.Store
	b *bench
}

func (r racing) Get(ctx context.Context, key string) (store.Record, error) {
	rec, err := r.Store.Get(ctx, key)
	if f := r.b.after; f != nil {
		r.b.after = nil
		f(key)
	}
	return rec, err
}

// RecordAll commits as the audit log does.
func (b *bench) RecordAll(ctx context.Context, evs []event.Event, ops ...store.Op) (uint64, error) {
	revision, err := b.store.Txn(ctx, ops)
	if err == nil {
		b.events = append(b.events, evs...)
	}
	return revision, err
}

func (b *bench) Current() (*snapshot.Picture, time.Duration) { return &snapshot.Picture{}, 0 }
func (b *bench) Reached(_ context.Context, revision uint64)  { b.reached = revision }

func (b *bench) put(ops ...store.Op) uint64 {
	b.t.Helper()
	revision, err := b.store.Txn(b.t.Context(), ops)
	if err != nil {
		b.t.Fatal(err)
	}
	return revision
}

func (b *bench) write(replace bool, specs ...any) error {
	var list []*manifest.Resource
	for _, s := range specs {
		list = append(list, manifest.New(s, 0))
	}
	_, err := b.Write(b.t.Context(), local, list, replace)
	return err
}

func (b *bench) user(a identity.Account) {
	b.t.Helper()
	if err := b.write(true, &a); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) locks() []lock.Lock {
	b.t.Helper()
	set, err := b.Records.Locks(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	var out []lock.Lock
	for l := range set.All() {
		out = append(out, *l)
	}
	return out
}

func because(t *testing.T, err error, reason string) {
	t.Helper()
	if !fault.Because(err, reason) {
		t.Fatalf("got %v, want reason %q", err, reason)
	}
}

// TestSomebodyIsFaster creates what is being created, just after it was looked for.
func TestSomebodyIsFaster(t *testing.T) {
	b := newBench(t)
	b.after = func(key string) {
		op, err := records.Put(manifest.New(&role.Role{Name: "dev", Options: role.Options{DeviceTrustMode: "required"}}, 0))
		if err != nil {
			t.Fatal(err)
		}
		b.put(op)
	}
	because(t, b.write(false, &role.Role{Name: "dev"}), "changed")
	res, err := b.Records.Get(t.Context(), manifest.Role, "dev")
	if err != nil || res.Spec.(*role.Role).Options.DeviceTrustMode != "required" {
		t.Fatalf("%+v, %v", res, err)
	}
}

// TestUnreadableState writes over what this build cannot read: only who says so does, and logins end with it.
func TestUnreadableState(t *testing.T) {
	b := newBench(t)
	b.put(store.Put("live/role/access", []byte(`{"kind":"role","version":"v99"}`)), store.Put("user/alice", []byte("{")))
	because(t, b.write(false, &role.Role{Name: "access"}), "exists")
	because(t, b.write(false, &identity.Account{Name: "alice"}), "exists")
	if err := b.write(true, &role.Role{Name: "access"}); err != nil {
		t.Fatal(err)
	}
	if got := b.events[len(b.events)-1].Kind; got != event.RoleUpdated {
		t.Errorf("recorded as %s", got)
	}
	because(t, b.write(true, &identity.Account{Name: "alice", Kind: identity.Bot}), "bot_by_hand")
	if err := b.write(true, &identity.Account{Name: "alice"}); err != nil {
		t.Fatal(err)
	}
	if got := b.locks(); len(got) != 1 || got[0].Target.User != "alice" || got[0].IssuedBefore.IsZero() {
		t.Fatalf("locks %+v", got)
	}
}

// TestLosses edits a user and looks for the lock on what was issued before, and that it is waited for.
func TestLosses(t *testing.T) {
	soon, later := time.Now().Add(time.Hour).UTC(), time.Now().Add(2*time.Hour).UTC()
	full := identity.Account{Name: "alice", Kind: identity.Human, Roles: []string{"a", "b"}, Traits: map[string][]string{"logins": {"root"}}, Expires: later}
	for _, c := range []struct {
		name  string
		edit  func(a *identity.Account)
		loses bool
	}{
		{"nothing", func(*identity.Account) {}, false},
		{"a role more", func(a *identity.Account) { a.Roles = []string{"c", "a", "b"} }, false},
		{"a role", func(a *identity.Account) { a.Roles = []string{"a"} }, true},
		{"a trait's value", func(a *identity.Account) { a.Traits = map[string][]string{"logins": {}} }, true},
		{"a trait", func(a *identity.Account) { a.Traits = nil }, true},
		{"lock", func(a *identity.Account) { a.Status.IsLocked = true }, true},
		{"an earlier end", func(a *identity.Account) { a.Expires = soon }, true},
		{"no end any more", func(a *identity.Account) { a.Expires = time.Time{} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			b.user(full)
			after := full
			c.edit(&after)
			b.reached = 0
			b.user(after)
			if got := len(b.locks()) == 1; got != c.loses || (b.reached > 0) != c.loses {
				t.Fatalf("locked %v, waited for revision %d", got, b.reached)
			}
		})
	}
}

// TestEndsOfUsers resets and removes a user: the record moves, the lock is waited for, invites go.
func TestEndsOfUsers(t *testing.T) {
	b := newBench(t)
	b.user(identity.Account{Name: "alice", Kind: identity.Human})
	first, err := b.ResetUser(t.Context(), local, "alice")
	if err != nil {
		t.Fatal(err)
	}
	_, before, err := b.Records.Account(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	b.reached = 0
	second, err := b.ResetUser(t.Context(), local, "alice")
	if err != nil {
		t.Fatal(err)
	}
	if _, after, err := b.Records.Account(t.Context(), "alice"); err != nil || after == before || b.reached != after {
		t.Fatalf("revision %d after %d, waited for %d: %v", after, before, b.reached, err)
	}
	if _, _, err := b.Records.Invite(t.Context(), first.Token); err == nil {
		t.Fatal("the invite before is still good")
	}
	b.after = func(string) { // somebody removes the user meanwhile
		if _, err := b.Delete(t.Context(), local, manifest.User, "alice"); err != nil {
			t.Error(err)
		}
	}
	if _, err := b.ResetUser(t.Context(), local, "alice"); err == nil {
		t.Fatal("a user who was removed has a new invite")
	}
	if _, _, err := b.Records.Invite(t.Context(), second.Token); err == nil {
		t.Fatal("a removed user's invite is still good")
	}
	if b.reached == 0 || len(b.locks()) != 3 {
		t.Fatalf("waited for %d, locks %+v", b.reached, b.locks())
	}
}

func TestAllOrNone(t *testing.T) {
	b := newBench(t)
	because(t, b.write(true, &role.Role{Name: "a"}, &role.Role{Name: "b", Options: role.Options{RequireSessionMFA: true}}), fault.Of(manifest.New(&role.Role{Name: "b", Options: role.Options{RequireSessionMFA: true}}, 0).Check()).Reason)
	because(t, b.write(true, &role.Role{Name: "a"}, &role.Role{Name: "a"}), "twice")
	if len(b.events) != 0 {
		t.Fatalf("%+v", b.events)
	}
	if _, err := b.Records.Get(t.Context(), manifest.Role, "a"); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
	r := manifest.New(&role.Role{Name: "a"}, 0)
	if _, err := b.Write(t.Context(), local, []*manifest.Resource{r}, true); err != nil {
		t.Fatal(err)
	}
	old := manifest.New(&role.Role{Name: "a"}, 1_000_000)
	_, err := b.Write(t.Context(), local, []*manifest.Resource{old}, true)
	because(t, err, "changed")
	gone := manifest.New(&role.Role{Name: "gone"}, 7)
	_, err = b.Write(t.Context(), local, []*manifest.Resource{gone}, true)
	because(t, err, "changed")
}
