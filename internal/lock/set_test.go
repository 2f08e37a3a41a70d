package lock

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// TestSetFindsEveryMatch compares what a set finds with a walk of all its locks.
func TestSetFindsEveryMatch(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	now := time.Now()
	maybe := func(kind string) string {
		if r.IntN(3) > 0 {
			return ""
		}
		return fmt.Sprint(kind, r.IntN(3))
	}
	matched := 0
	for range 20000 {
		var locks []Lock
		for i := range r.IntN(6) {
			l := Lock{Name: fmt.Sprint("l", i), Target: Target{User: maybe("u"), Role: maybe("r"), Login: maybe("x"), Device: maybe("d"),
				DeviceCredential: maybe("c"), ServerID: maybe("n"), MFADevice: maybe("m")}}
			if r.IntN(4) == 0 {
				l.IssuedBefore = now.Add(time.Duration(r.IntN(3)-1) * time.Hour)
			}
			if r.IntN(6) == 0 {
				l.Expires = now.Add(-time.Minute)
			}
			locks = append(locks, l)
		}
		who := &identity.User{Name: fmt.Sprint("u", r.IntN(3)), Roles: []string{fmt.Sprint("r", r.IntN(3)), fmt.Sprint("r", r.IntN(3))},
			MFADevice: maybe("m"), Validity: identity.Validity{IssuedAt: now}}
		if r.IntN(2) == 0 {
			who.Device = &identity.Device{ID: fmt.Sprint("d", r.IntN(3)), CredentialID: fmt.Sprint("c", r.IntN(3))}
		}
		where := target.Target{Kind: target.Node, ID: maybe("n")}
		what := target.Action{Login: maybe("x")}
		var want *Lock
		for i := range locks {
			if l := &locks[i]; want == nil && l.InForce(now) && l.Matches(who, where, what) {
				want = l
			}
		}
		got := NewSet(locks...).Match(who, where, what, now)
		if (got == nil) != (want == nil) || got != nil && got.Name != want.Name {
			t.Fatalf("%+v\n%+v %+v %+v\nfound %+v, want %+v", locks, who, where, what, got, want)
		}
		if want != nil {
			matched++
		}
	}
	if matched < 1000 {
		t.Fatalf("only %d of them matched", matched)
	}
}

// TestSetIsNeverChanged changes copies of a set.
func TestSetIsNeverChanged(t *testing.T) {
	a := NewSet(Lock{Name: "a", Target: Target{User: "u"}}, Lock{Name: "b", Target: Target{Role: "r"}})
	b := a.Change([]string{"a"}, []Lock{{Name: "b", Target: Target{Role: "s"}}, {Name: "c", Target: Target{Login: "x"}}})
	if a.Len() != 2 || b.Len() != 2 {
		t.Fatal(a.Len(), b.Len())
	}
	var names []string
	for l := range b.Changed(a) {
		names = append(names, l.Name)
	}
	if fmt.Sprint(names) != "[b c]" {
		t.Fatal(names)
	}
	for l := range a.Changed(a) {
		t.Fatal(l)
	}
	if a.MatchHost("n", time.Now()) || !NewSet(Lock{Name: "h", Target: Target{ServerID: "n"}}).MatchHost("n", time.Now()) {
		t.Fatal("hosts")
	}
}

// BenchmarkMatch2000 asks for a user with 20 roles among 2,000 locks.
func BenchmarkMatch2000(b *testing.B) {
	var locks []Lock
	for i := range 2000 {
		l := Lock{Name: fmt.Sprint(i), Target: Target{User: fmt.Sprint("user-", i)}}
		if i%10 == 0 {
			l.Target = Target{Role: fmt.Sprint("role-", i)}
		}
		locks = append(locks, l)
	}
	set := NewSet(locks...)
	who := &identity.User{Name: "alice", Device: &identity.Device{ID: "d", CredentialID: "c"}}
	for i := range 20 {
		who.Roles = append(who.Roles, fmt.Sprint("mine-", i))
	}
	now := time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if set.Match(who, target.Target{ID: "n"}, target.Action{Login: "root"}, now) != nil {
			b.Fatal("it matched")
		}
	}
}

// TestAhead is how long a login waits for a lock that is written ahead of the clock.
func TestAhead(t *testing.T) {
	now := time.Now()
	s := NewSet(Lock{Name: "a", Target: Target{User: "alice"}, IssuedBefore: now.Add(Margin / 2)},
		Lock{Name: "b", Target: Target{User: "bob"}, IssuedBefore: now.Add(Margin)}, Lock{Name: "c", Target: Target{User: "carol"}, IssuedBefore: now.Add(time.Hour)},
		Lock{Name: "d", Target: Target{User: "dave"}}, Lock{Name: "e", Target: Target{User: "eve"}, IssuedBefore: now})
	for user, want := range map[string]time.Duration{"alice": Margin / 2, "bob": Margin, "carol": 0, "dave": 0, "eve": 0, "zoe": 0} {
		if got := s.Ahead(&identity.User{Name: user}, now); got != want {
			t.Errorf("%s waits %s, want %s", user, got, want)
		}
	}
}
