package login

import (
	"context"
	"encoding/base32"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/records"
)

// TestRFC6238 holds the codes to the RFC's own vectors (appendix B, SHA-1), of which six digits are shown.
func TestRFC6238(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{59: "94287082", 1111111109: "07081804", 1111111111: "14050471",
		1234567890: "89005924", 2000000000: "69279037", 20000000000: "65353130"} {
		if got := OTP(secret, time.Unix(at, 0)); got != want[2:] {
			t.Errorf("at %d: %s, want %s", at, got, want[2:])
		}
	}
}

func TestCheckOTP(t *testing.T) {
	secret, now := NewOTP(), time.Unix(1_700_000_010, 0)
	step := now.Unix() / 30
	for _, c := range []struct {
		name string
		code string
		last int64
		ok   bool
	}{
		{"now", OTP(secret, now), 0, true}, {"spaced", " " + OTP(secret, now)[:3] + " " + OTP(secret, now)[3:] + " ", 0, true},
		{"one before", OTP(secret, now.Add(-30*time.Second)), 0, true}, {"one after", OTP(secret, now.Add(30*time.Second)), 0, true},
		{"two before", OTP(secret, now.Add(-61*time.Second)), 0, false}, {"two after", OTP(secret, now.Add(61*time.Second)), 0, false},
		{"taken", OTP(secret, now), step, false}, {"before the last", OTP(secret, now.Add(-30*time.Second)), step, false},
		{"empty", "", 0, false}, {"long", OTP(secret, now) + "0", 0, false},
	} {
		if _, ok := CheckOTP(secret, c.code, c.last, now); ok != c.ok {
			t.Errorf("%s: %v", c.name, ok)
		}
	}
	if _, ok := CheckOTP(nil, OTP(nil, now), 0, now); ok {
		t.Error("a code of no secret")
	}
}

func TestPasswords(t *testing.T) {
	p := NewPasswords()
	phc, err := p.Hash(t.Context(), password)
	if err != nil || !strings.HasPrefix(phc, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("%q, %v", phc, err)
	}
	if again, _ := p.Hash(t.Context(), password); again == phc {
		t.Error("two hashes with one salt")
	}
	for _, c := range []struct {
		phc, password string
		want, fails   bool
	}{{phc, password, true, false}, {phc, password + "x", false, false}, {phc, "", false, false}, {"", password, false, false}, {"", "", false, false},
		{"$argon2i$v=19$m=1,t=1,p=1$AA$AA", password, false, true}, {"plain", password, false, true},
		{"$argon2id$v=19$m=99999999,t=2,p=1$AAAA$AAAA", password, false, true}, {"$argon2id$v=19$m=8,t=1,p=1$AAAA$", password, false, true}} {
		if got, err := p.Matches(t.Context(), c.phc, c.password); got != c.want || (err != nil) != c.fails {
			t.Errorf("%q with %q: %v %v", c.phc, c.password, got, err)
		}
	}
	for bad, reason := range map[string]string{"": "short_password", "1234567": "short_password", strings.Repeat("x", 1025): "bad_password", "12345678\xff": "bad_password"} {
		_, err := p.Hash(t.Context(), bad)
		because(t, err, reason)
	}
}

// TestStrangersCostAHash looks at the work for a user who does not exist: without a slot to hash in, it cannot end.
func TestStrangersCostAHash(t *testing.T) {
	b := newBench(t, passwordAlone())
	for range atOnce {
		b.Passwords.slots <- struct{}{}
	}
	ended := make(chan error, 1)
	go func() {
		_, err := b.login(&talk{password: password})
		ended <- err
	}()
	select {
	case err := <-ended:
		t.Fatalf("a user who does not exist was judged without a hash: %v", err)
	case <-time.After(200 * time.Millisecond):
	}
	<-b.Passwords.slots
	because(t, <-ended, "bad_credentials")
}

func TestCodesAreGoodOnce(t *testing.T) {
	b := newBench(t, cluster.Default())
	secret := NewOTP()
	b.user(alice("access"), secret)
	code := func() string { return OTP(secret, time.Now()) }
	results := make([]error, 4)
	var wg sync.WaitGroup
	for i := range results {
		wg.Go(func() { _, results[i] = b.login(&talk{password: password, code: code}) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !fault.Because(err, "bad_credentials") && !fault.Because(err, "throttled") {
			t.Errorf("a loser was told %v", err)
		}
	}
	if won != 1 {
		t.Fatalf("%d logins by one code", won)
	}
	_, err := b.login(&talk{password: password, code: code})
	if err == nil {
		t.Fatal("a code was taken twice")
	}
}

// TestGuessesAtOnce begins many logins before any has failed, and answers them all: they are not all judged.
func TestGuessesAtOnce(t *testing.T) {
	b := newBench(t, passwordAlone())
	b.user(alice("access"), nil)
	const n = 24
	var asked, wg sync.WaitGroup
	asked.Add(n)
	results := make([]error, n)
	for i := range n {
		wg.Go(func() { _, results[i] = b.login(&talk{password: "a guess", code: nil}) })
		asked.Done()
	}
	wg.Wait()
	judged := 0
	for _, err := range results {
		if fault.Because(err, "bad_credentials") {
			judged++
		}
	}
	if judged > freeBoth+1 {
		t.Fatalf("%d of %d guesses were judged", judged, n)
	}
}

func TestInvites(t *testing.T) {
	b := newBench(t, cluster.Default())
	a := alice("access")
	b.write(&a)
	invite := func(user string, ttl time.Duration) string {
		token := records.NewToken()
		op, err := records.PutInvite(token, records.Invite{User: user, Expires: time.Now().Add(ttl)})
		if err != nil {
			t.Fatal(err)
		}
		b.put(op)
		return token
	}
	use := func(token string, c *talk) error {
		_, err := b.Login(t.Context(), identity.Caller{Addr: home}, Start{User: "alice", Invite: token, Key: b.key.Public()}, c)
		b.Throttle.Succeeded("alice", home)
		return err
	}
	var secret []byte
	good := &talk{password: password, newCode: func(s string) string {
		u, err := url.Parse(s)
		if err == nil {
			secret, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
		}
		if err != nil {
			t.Error(err)
		}
		return OTP(secret, time.Now())
	}}
	because(t, use("unknown", good), "invalid_invite")
	because(t, use(invite("bob", time.Hour), good), "invalid_invite")
	because(t, use(invite("alice", -time.Second), good), "invalid_invite")
	token := invite("alice", time.Hour)
	because(t, use(token, &talk{password: "short"}), "short_password")
	because(t, use(token, &talk{password: password, newCode: func(string) string { return "000000" }}), "bad_code")
	if err := use(token, good); err != nil {
		t.Fatal(err)
	}
	because(t, use(token, good), "invalid_invite")
	next := func() string { return OTP(secret, time.Now().Add(30*time.Second)) }
	if _, err := b.login(&talk{password: password, code: next}); err != nil {
		t.Fatal(err)
	}
}

func TestChangePassword(t *testing.T) {
	b := newBench(t, passwordAlone())
	b.user(alice("access"), nil)
	from := caller()
	const fresh = "another one entirely"
	because(t, b.ChangePassword(t.Context(), from, "wrong", fresh, ""), "bad_credentials")
	because(t, b.ChangePassword(t.Context(), from, password, "short", ""), "short_password")
	for _, ev := range b.recorded(event.UserUpdate) {
		if ev.Success || ev.User != "alice" || ev.Session.Reason == "" {
			t.Errorf("recorded %+v", ev)
		}
	}
	if n := len(b.recorded(event.UserUpdate)); n != 2 {
		t.Fatalf("%d refusals recorded", n)
	}
	if err := b.ChangePassword(t.Context(), from, password, fresh, ""); err != nil {
		t.Fatal(err)
	}
	_, err := b.login(&talk{password: password})
	because(t, err, "bad_credentials")
	if _, err := b.login(&talk{password: fresh}); err != nil {
		t.Fatal(err)
	}
}

func TestThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(time.Now)
		other := home.Next()
		refused := func(user string, from netip.Addr) bool { return th.Allow(user, from) != nil }
		for range freeBoth {
			if refused("alice", home) {
				t.Fatal("throttled too early")
			}
			th.Failed("alice", home)
		}
		if !refused("alice", home) || refused("bob", home) || refused("alice", other) {
			t.Fatal("after some failures of one user from one address")
		}
		time.Sleep(time.Second)
		if refused("alice", home) {
			t.Fatal("a second later")
		}
		th.Failed("alice", home)
		time.Sleep(time.Second)
		if !refused("alice", home) {
			t.Fatal("the delay does not grow")
		}
		th.Succeeded("alice", home)
		if refused("alice", home) {
			t.Fatal("a success is not remembered")
		}
		for i := range freeAddr {
			th.Failed("u"+string(rune('a'+i)), home)
		}
		if !refused("anybody", home) || refused("anybody", other) {
			t.Fatal("one address")
		}
		at := netip.MustParseAddr("198.51.100.1")
		for range freeUser {
			th.Failed("carol", at)
			at = at.Next()
		}
		if !refused("carol", netip.MustParseAddr("192.0.2.1")) {
			t.Fatal("one user from anywhere")
		}
		time.Sleep(userDelay)
		if refused("carol", netip.MustParseAddr("192.0.2.1")) {
			t.Fatal("strangers lock a user out")
		}
		time.Sleep(forget + time.Minute)
		th.Failed("alice", home)
		if refused("alice", home) {
			t.Fatal("old failures are not forgotten")
		}
	})
}

// TestThrottleIsBounded tries many addresses: an IPv6 network is one, and marks do not grow for ever.
func TestThrottleIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(time.Now)
		one, two := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
		for range freeBoth {
			th.Failed("dave", one)
		}
		if th.Allow("dave", two) == nil {
			t.Fatal("an IPv6 host has a new address for each attempt")
		}
		a := netip.MustParseAddr("10.0.0.0")
		for range maxMarks {
			th.Failed("x", a)
			a = a.Next()
		}
		if n := len(th.marks); n > maxMarks+3 {
			t.Fatalf("%d marks", n)
		}
	})
}

func TestTurnEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := NewThrottle(time.Now)
		done, err := th.Turn(t.Context(), "alice", home)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go func() {
			time.Sleep(time.Second)
			cancel(errors.New("gone"))
		}()
		if _, err := th.Turn(ctx, "alice", home); err == nil || err.Error() != "gone" {
			t.Fatal(err)
		}
		done()
		if done, err = th.Turn(t.Context(), "alice", home); err != nil {
			t.Fatal(err)
		}
		done()
		if len(th.turns) != 0 {
			t.Fatal("turns are kept")
		}
	})
}
