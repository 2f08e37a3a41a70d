package login

import (
	"crypto/sha256"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
)

// TestChangedWhileTheDeviceAnswers takes something from a user between the password and the device's answer, while the
// picture has not heard: what is issued then would be younger than the lock on what was issued before.
func TestChangedWhileTheDeviceAnswers(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *bench)
		reason string
	}{
		{"a role lost", func(b *bench) { a := alice(); b.write(&a) }, "user_changed"},
		{"locked", func(b *bench) { b.write(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}) }, "locked"},
		{"removed", func(b *bench) { b.put(records.Delete(manifest.User, "alice")) }, "not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, passwordAlone())
			b.user(alice("access"), nil)
			_, err := b.login(&talk{password: password, before: func() { c.change(b) }})
			because(t, err, c.reason)
			if got := b.recorded(event.CertCreate); len(got) != 0 {
				t.Fatalf("issued: %+v", got)
			}
			if evs := b.recorded(event.UserLogin); len(evs) != 1 || evs[0].Success || evs[0].Session.Reason != c.reason {
				t.Fatalf("recorded %+v", evs)
			}
		})
	}
}

// TestChangedWhileReissuing is the same for the upgrade of a certificate, and for what the picture has not heard of.
func TestChangedWhileReissuing(t *testing.T) {
	for _, c := range []struct {
		name           string
		before, during func(b *bench)
		reason         string
	}{
		{"a role lost", nil, func(b *bench) { a := alice(); b.write(&a) }, "user_changed"},
		{"issued before", func(b *bench) {
			b.write(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: time.Now()})
		}, nil, "locked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, passwordAlone())
			b.user(alice("access"), nil)
			from := caller()
			if c.before != nil {
				c.before(b)
			}
			talk := &talk{before: func() {
				if c.during != nil {
					c.during(b)
				}
			}}
			_, err := b.Login(t.Context(), from, Start{Reissue: true, Key: b.key.Public()}, talk)
			because(t, err, c.reason)
			if evs := b.recorded(event.UserLogin); len(evs) != 1 || evs[0].Success || evs[0].User != "alice" || evs[0].Session.Reason != c.reason {
				t.Fatalf("recorded %+v", evs)
			}
		})
	}
}

// caller is alice with a login of a minute ago.
func caller() identity.Caller {
	sum := sha256.Sum256([]byte("certificate"))
	return identity.Caller{Addr: home, Certificate: sum[:], User: &identity.User{Name: "alice", Kind: identity.Human, Roles: []string{"access"},
		Traits: map[string][]string{"logins": {"root"}}, KeyPolicy: identity.KeyAnywhere, LoginIP: home,
		Validity: identity.Validity{IssuedAt: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour)}}}
}

func TestReissue(t *testing.T) {
	b := newBench(t, passwordAlone())
	b.user(alice("access"), nil)
	from := caller()
	r, err := b.Login(t.Context(), from, Start{Reissue: true, Key: b.key.Public()}, &talk{})
	if err != nil || !r.Expires.Equal(from.User.Validity.Expires.Truncate(time.Second)) {
		t.Fatalf("expires %v, want %v: %v", r.Expires, from.User.Validity.Expires, err)
	}
	device := &identity.Device{ID: "d", AssetTag: "LAP"}
	from.User.Device = device
	_, err = b.Login(t.Context(), from, Start{Reissue: true, Key: b.key.Public()}, &talk{})
	because(t, err, "reissue_drops_device")
	from.User.Device, from.User.PinnedIP = nil, home.Next()
	_, err = b.Login(t.Context(), from, Start{Reissue: true, Key: b.key.Public()}, &talk{})
	because(t, err, "wrong_address")
}

func TestStanding(t *testing.T) {
	b := newBench(t, passwordAlone())
	soon := time.Now().Add(10 * time.Minute)
	a := alice("access")
	a.Expires = soon
	b.user(a, nil)
	r, err := b.login(&talk{password: password})
	if err != nil || r.Expires.After(soon) {
		t.Fatalf("a user until %v has certificates until %v: %v", soon, r.Expires, err)
	}
	a.Expires = time.Now().Add(-time.Second)
	b.write(&a)
	_, err = b.login(&talk{password: password})
	because(t, err, "user_locked")
	a.Expires, a.Status.IsLocked = time.Time{}, true
	b.write(&a)
	_, err = b.login(&talk{password: password})
	because(t, err, "user_locked")
}

// TestRolesLimitLogins asks for more than a role lets.
func TestRolesLimitLogins(t *testing.T) {
	b := newBench(t, passwordAlone())
	b.user(alice("access", "short"), nil)
	r, err := b.Login(t.Context(), identity.Caller{Addr: home}, Start{User: "alice", TTL: 20 * time.Hour, Key: b.key.Public()}, &talk{password: password})
	if err != nil || time.Until(r.Expires) > time.Hour {
		t.Fatalf("expires %v: %v", r.Expires, err)
	}
	id, err := identity.FromSSH(r.SSH)
	if err != nil || id.PinnedIP != home {
		t.Fatalf("%+v, %v", id, err)
	}
}

func TestNotices(t *testing.T) {
	b := newBench(t, passwordAlone())
	b.user(alice("access"), nil)
	secret, revision, err := b.Records.Secret(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	secret.Notices = []records.Notice{{Device: "d", Text: "a device was enrolled"}}
	ops, err := records.PutSecret("alice", secret, revision)
	if err != nil {
		t.Fatal(err)
	}
	b.put(ops...)
	for i, want := range []int{1, 0} {
		if r, err := b.login(&talk{password: password}); err != nil || len(r.Notices) != want {
			t.Fatalf("login %d shows %v, %v", i, r.Notices, err)
		}
	}
}
