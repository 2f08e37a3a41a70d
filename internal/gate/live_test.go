package gate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// onDevice is a request from a device, by a certificate with a serial number.
func onDevice(name, credential, serial string, roles ...string) Request {
	r := request(name, roles...)
	r.Identity.KeyPolicy = identity.KeyHardware
	r.Identity.Device = &identity.Device{ID: "d-" + credential, AssetTag: "T", CredentialID: credential, Level: device.LevelTPMTrusted}
	r.Identity.Validity.Serial = serial
	return r
}

// later is a login that follows a certificate and lives an hour longer.
func later(of Request, serial string, roles ...string) *identity.Login {
	u := *of.Identity
	u.Roles = roles
	u.Validity = identity.Validity{Serial: serial, IssuedAt: time.Now(), Expires: of.Identity.Validity.Expires.Add(time.Hour)}
	return &identity.Login{Credential: u.Device.CredentialID, Follows: []identity.Validity{of.Identity.Validity}, Identity: u}
}

// running is a gate that runs and hears, with a role that ends sessions with their certificate.
func running(t *testing.T) (*fixture, func()) {
	f := newFixture(t)
	ctx, cancel := context.WithCancel(t.Context())
	go f.gate.Run(ctx)
	go f.hear(ctx)
	allow := role.Presets()[0].Allow
	f.put(&role.Role{Name: "r", Options: role.Options{DisconnectExpiredCert: true}, Allow: allow},
		&role.Role{Name: "other", Options: role.Options{DisconnectExpiredCert: true}, Allow: allow})
	return f, cancel
}

func (f *fixture) admit(t *testing.T, r Request) *Session {
	t.Helper()
	s, err := f.gate.Admit(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func alive(t *testing.T, s *Session, what string) {
	t.Helper()
	synctest.Wait()
	if s.Context().Err() != nil {
		t.Fatalf("%s: cut by %v", what, context.Cause(s.Context()))
	}
}

func cutBy(t *testing.T, s *Session, reason, what string) {
	t.Helper()
	synctest.Wait()
	if !fault.Because(context.Cause(s.Context()), reason) {
		t.Fatalf("%s: %v, want %s", what, context.Cause(s.Context()), reason)
	}
}

// TestLaterLogin keeps a live session through the end of the certificate that let it in.
func TestLaterLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		req := onDevice("alice", "c1", "a1", "r")
		s := f.admit(t, req)
		alone := f.admit(t, onDevice("alice", "c1", "a2", "r")) // of another certificate, which nothing follows
		time.Sleep(30 * time.Minute)
		f.put(later(req, "b1", "r", "other"))
		synctest.Wait()
		if got := s.Identity(); got.Validity.Serial != "b1" || !slices.Equal(got.Roles, []string{"r", "other"}) || got.LoginIP != req.Identity.LoginIP {
			t.Fatalf("the session goes on as %+v", got)
		}
		// One that begins by the old certificate now goes on as the later login too.
		young := f.admit(t, req)
		if young.Identity().Validity.Serial != "b1" {
			t.Fatalf("a young session is %+v", young.Identity())
		}
		time.Sleep(30*time.Minute + 2*time.Second)
		alive(t, s, "through the old certificate's end")
		alive(t, young, "a young one through the old certificate's end")
		cutBy(t, alone, "expired", "a session that nothing follows")
		// What was added by the login counts: a lock on its new role cuts.
		f.put(&lock.Lock{Name: "l", Target: lock.Target{Role: "other"}})
		cutBy(t, s, "locked", "a lock on a role of the later login")
	})
}

// TestLaterLoginKeepsItsOrigin locks what a session was let in by, after a later login has taken it over.
func TestLaterLoginKeepsItsOrigin(t *testing.T) {
	for name, target := range map[string]lock.Lock{
		"what was issued before":    {Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: time.Date(2000, 1, 1, 0, 10, 0, 0, time.UTC)},
		"the second factor of then": {Name: "l", Target: lock.Target{MFADevice: "stolen"}},
		"the role of then":          {Name: "l", Target: lock.Target{Role: "other"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, stop := running(t)
				defer stop()
				req := onDevice("alice", "c1", "a1", "r", "other")
				req.Identity.MFADevice = "stolen"
				s := f.admit(t, req)
				time.Sleep(30 * time.Minute)
				l := later(req, "b1", "r")
				l.Identity.MFADevice = "mine"
				f.put(l)
				synctest.Wait()
				alive(t, s, "as the later login")
				if s.Identity().Validity.Serial != "b1" {
					t.Fatal("the session did not go on as the later login")
				}
				f.put(&target)
				cutBy(t, s, "locked", name)
			})
		})
	}
}

// TestOldByTheTime admits nobody by a picture that grew too old while the admission was being recorded.
func TestOldByTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.events.before = sync.OnceFunc(func() { time.Sleep(4 * time.Minute) })
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "stale_picture") {
			t.Fatal(err)
		}
	})
}

// TestLaterLoginEnds is the end of the later login itself.
func TestLaterLoginEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		req := onDevice("alice", "c1", "a1", "r")
		s := f.admit(t, req)
		f.put(later(req, "b1", "r"))
		time.Sleep(2*time.Hour - time.Second)
		alive(t, s, "until the later login's end")
		time.Sleep(3 * time.Second)
		cutBy(t, s, "expired", "past the later login's end")
	})
}

// TestLaterLoginMends nothing that a lock or a loss has ended.
func TestLaterLoginMends(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fixture, req Request)
		reason string
	}{
		{"a lock on what was issued before it, in the same step", func(f *fixture, req Request) {
			l := later(req, "b1", "r")
			f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: l.Identity.Validity.IssuedAt.Add(-time.Second)}, l)
		}, "locked"},
		{"a login that lost the role", func(f *fixture, req Request) { f.put(later(req, "b1")) }, "not_granted"},
		{"a device that is weaker now", func(f *fixture, req Request) {
			f.put(&role.Role{Name: "r", Options: role.Options{DeviceRequirements: &role.Requirements{SecureBoot: true}}, Allow: role.Presets()[0].Allow})
		}, ""},
		{"another user's login", func(f *fixture, req Request) {
			l := later(req, "b1", "r")
			l.Identity.Name = "bob"
			f.put(l)
		}, "expired"},
		{"a login of another credential", func(f *fixture, req Request) {
			l := later(req, "b1", "r")
			d := *l.Identity.Device
			d.CredentialID = "c2"
			l.Identity.Device, l.Credential = &d, "c2"
			f.put(l)
		}, "expired"},
		{"a login that follows another certificate", func(f *fixture, req Request) {
			l := later(req, "b1", "r")
			l.Follows[0].Serial = "zz"
			f.put(l)
		}, "expired"},
		{"a login without a device", func(f *fixture, req Request) {
			l := later(req, "b1", "r")
			l.Identity.Device = nil
			f.put(l)
		}, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, stop := running(t)
				defer stop()
				req := onDevice("alice", "c1", "a1", "r")
				s := f.admit(t, req)
				time.Sleep(30 * time.Minute)
				c.change(f, req)
				if c.reason != "expired" {
					synctest.Wait()
					if s.Context().Err() == nil {
						t.Fatal("it lives")
					}
					if c.reason != "" && !fault.Because(context.Cause(s.Context()), c.reason) {
						t.Fatal(context.Cause(s.Context()))
					}
					return
				}
				alive(t, s, "before its end")
				time.Sleep(31 * time.Minute)
				cutBy(t, s, c.reason, c.name)
			})
		})
	}
}

// TestEnded is an administrator's end of one session.
func TestEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		s, other := f.admit(t, request("alice", "r")), f.admit(t, request("alice", "r"))
		f.put(&live.End{Session: s.ID(), By: "admin", Message: "maintenance\n\x1b[2Jof \u202eall", Expires: time.Now().Add(time.Hour)})
		cutBy(t, s, "ended", "the session")
		if text := fault.Of(context.Cause(s.Context())).Lines(); !strings.Contains(text, "admin") || !strings.Contains(text, "maintenance  [2Jof  all") { // A31: nothing of it reaches the terminal as more than text
			t.Fatal(text)
		}
		alive(t, other, "the user's other session")
	})
}

// TestAgesOfTheCluster are picture ages that the settings set.
func TestAgesOfTheCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		set := cluster.Default()
		set.PictureAge = cluster.PictureAge{Admit: role.Duration(10 * time.Second), Live: role.Duration(20 * time.Second)}
		f.put(&set)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.gate.Run(ctx)
		s := f.admit(t, request("alice", "access"))
		time.Sleep(9 * time.Second)
		f.admit(t, request("alice", "access"))
		time.Sleep(2 * time.Second)
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "stale_picture") {
			t.Fatalf("past picture_age.admit: %v", err)
		}
		alive(t, s, "before picture_age.live")
		time.Sleep(11 * time.Second)
		cutBy(t, s, "stale_picture", "past picture_age.live")
	})
}

// TestBetweenPictures lets somebody in by a picture that stood for a moment, between two that refuse: the gate, which
// never looked at it, cuts them all the same.
func TestBetweenPictures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		l := &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}
		f.put(l)
		f.gate.review()
		f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Lock, Name: "l"}}})
		s := f.admit(t, request("alice", "access"))
		f.put(l)
		f.gate.review()
		cutBy(t, s, "locked", "a session of the picture between")
	})
}

// TestTouched holds that a change asks again the sessions that it names, and no others.
func TestTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		for i := range 50 {
			f.admit(t, onDevice(fmt.Sprint("user-", i), fmt.Sprint("c", i), fmt.Sprintf("a%d", i), "access", fmt.Sprint("role-", i%10)))
		}
		f.gate.review()
		count := func(change func()) int {
			before, _ := f.mirror.Current()
			change()
			after, _ := f.mirror.Current()
			touched := map[*Session]struct{}{}
			f.gate.index.touched(after.Since(before), touched)
			return len(touched)
		}
		for _, c := range []struct {
			name string
			put  any
			want int
		}{
			{"lock on a user", &lock.Lock{Name: "l1", Target: lock.Target{User: "user-7"}}, 1},
			{"lock on a device", &lock.Lock{Name: "l2", Target: lock.Target{Device: "d-c8"}}, 1},
			{"lock on a credential", &lock.Lock{Name: "l3", Target: lock.Target{DeviceCredential: "c9"}}, 1},
			{"lock on a role", &lock.Lock{Name: "l4", Target: lock.Target{Role: "role-3"}}, 5},
			{"lock on nobody here", &lock.Lock{Name: "l5", Target: lock.Target{User: "zoe"}}, 0},
			{"lock on this node", &lock.Lock{Name: "l6", Target: lock.Target{ServerID: "n1"}}, 50},
			{"lock on a login", &lock.Lock{Name: "l7", Target: lock.Target{Login: "root"}}, 50},
			{"a role", &role.Role{Name: "role-3"}, 5},
			{"a later login", &identity.Login{Credential: "c9"}, 1},
			{"the settings", &cluster.Settings{LockingMode: "best_effort"}, 50},
			{"a lock that cannot be read", &lock.Lock{Name: "l8"}, 50},
		} {
			if got := count(func() { f.put(c.put) }); got != c.want {
				t.Errorf("%s: %d sessions are asked again, want %d", c.name, got, c.want)
			}
		}
		if got := count(func() { f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Role, Name: "role-3"}}}) }); got != 5 {
			t.Errorf("a role's end: %d sessions are asked again, want 5", got)
		}
	})
}

// TestNothingSlips changes a picture at random and holds after each change that a session lives if and only if it would
// be admitted: what the index leaves out is not missed.
func TestNothingSlips(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 4))
			f := newFixture(t)
			some := func(kind string) string { return fmt.Sprint(kind, r.IntN(4)) }
			allow := role.Presets()[0].Allow
			for i := range 4 {
				f.put(&role.Role{Name: fmt.Sprint("role", i), Allow: allow})
			}
			f.gate.review()
			sessions := map[*Session]struct{}{}
			for range 30 {
				req := onDevice(some("user"), some("c"), fmt.Sprintf("a%d", r.IntN(6)), some("role"), some("role"))
				req.Identity.MFADevice = some("mfa")
				if s, err := f.gate.Admit(t.Context(), req); err == nil {
					sessions[s] = struct{}{}
				}
				f.change(r, some, allow)
				if r.IntN(3) > 0 { // some changes come together
					f.gate.review()
					f.compare(t, sessions, seed)
				}
			}
		})
	}
}

// change changes the picture a little.
func (f *fixture) change(r *rand.Rand, some func(string) string, allow role.Conditions) {
	name := some("l")
	switch r.IntN(10) {
	case 0:
		f.put(&lock.Lock{Name: name, Target: lock.Target{User: some("user")}})
	case 1:
		f.put(&lock.Lock{Name: name, Target: lock.Target{Device: "d-" + some("c"), User: some("user")}})
	case 2:
		f.put(&lock.Lock{Name: name, Target: lock.Target{DeviceCredential: some("c"), Role: some("role")}})
	case 3:
		f.put(&lock.Lock{Name: name, Target: lock.Target{Role: some("role"), MFADevice: some("mfa")}})
	case 4:
		f.put(&role.Role{Name: some("role"), Allow: allow, Deny: role.Conditions{Logins: []string{"root"}, NodeLabels: allow.NodeLabels}})
	case 5:
		f.put(&role.Role{Name: some("role"), Allow: allow})
	case 6:
		f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Lock, Name: name}}})
	case 7:
		f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Role, Name: some("role")}}})
	case 8:
		of := onDevice(some("user"), some("c"), fmt.Sprintf("a%d", r.IntN(6)))
		f.put(later(of, fmt.Sprintf("b%d", r.IntN(6)), some("role")))
	case 9:
		f.put(&lock.Lock{Name: name, Target: lock.Target{MFADevice: some("mfa")}, IssuedBefore: time.Now().Add(time.Minute)})
	}
}

// compare asks each session anew, by everything.
func (f *fixture) compare(t *testing.T, sessions map[*Session]struct{}, seed uint64) {
	t.Helper()
	picture, _ := f.mirror.Current()
	for s := range sessions {
		if s.Context().Err() != nil {
			delete(sessions, s) // what is over stays over
			continue
		}
		_, err := f.gate.judge(view{picture: picture, oldest: time.Hour}, s, true)
		if err != nil {
			t.Fatalf("seed %d: a session of %s lives that is refused: %v", seed, s.Identity().Name, err)
		}
		if next := picture.Continues(s.Identity()); next != nil {
			t.Fatalf("seed %d: a session of %s does not go on as its later login", seed, s.Identity().Name)
		}
	}
}

// TestNewsOfSessions is what others are told of them.
func TestNewsOfSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		g := f.gate
		first := f.admit(t, request("alice", "r"))
		<-g.News()
		if all := g.All(); len(all) != 1 || all[0].ID != first.ID() || all[0].Identity.Name != "alice" || all[0].Role != "r" || all[0].Check() != nil {
			t.Fatalf("%+v", all)
		}
		req := onDevice("bob", "c1", "a1", "r")
		second := f.admit(t, req)
		f.admit(t, request("carol", "r")).End(nil) // gone before anybody heard
		changed, ended := g.Tell()
		if len(changed) != 1 || changed[0].ID != second.ID() || len(ended) != 0 {
			t.Fatalf("%+v %v", changed, ended)
		}
		first.End(nil)
		f.put(later(req, "b1", "r", "other"))
		synctest.Wait()
		changed, ended = g.Tell()
		if len(changed) != 1 || changed[0].Identity.Validity.Serial != "b1" || !slices.Equal(ended, []string{first.ID()}) {
			t.Fatalf("%+v %v", changed, ended)
		}
		if changed, ended = g.Tell(); len(changed)+len(ended) != 0 {
			t.Fatalf("told twice: %+v %v", changed, ended)
		}
	})
}

// TestRefusedOnceRecorded is a session whose start is on record and that is then refused: its end is on record too.
func TestRefusedOnceRecorded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.events.before = sync.OnceFunc(func() { f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}) })
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "locked") {
			t.Fatal(err)
		}
		var kinds []event.Kind
		for _, ev := range f.events.events {
			kinds = append(kinds, ev.Kind)
		}
		if !slices.Equal(kinds, []event.Kind{event.SessionStart, event.SessionEnd, event.Auth}) {
			t.Fatal(kinds)
		}
	})
}

// TestLimitsChange tells the door.
func TestLimitsChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		f.put(&role.Role{Name: "p", Options: role.Options{PortForwarding: true}, Allow: role.Presets()[0].Allow})
		req := request("alice", "p")
		req.Identity.Grant.PortForwarding = true
		s := f.admit(t, req)
		changed := s.Changed()
		f.put(&role.Role{Name: "p", Allow: role.Presets()[0].Allow})
		synctest.Wait()
		select {
		case <-changed:
		default:
			t.Fatal("nobody was told")
		}
		if s.Limits().PortForwarding {
			t.Fatal("the limit stayed")
		}
		alive(t, s, "the session itself")
	})
}

// TestClockSteps sets the calendar an hour forward and back: what is counted in hours of the session does not move, what
// ends with its certificate does with the calendar, which an agent takes from auth (snapshot.Mirror.Time), and nobody is
// let in longer than the certificate says.
func TestClockSteps(t *testing.T) {
	for _, step := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				var off atomic.Int64
				f.gate = New(f.mirror, f.events, identity.Host{ID: "n1"}, func() time.Time { return time.Now().Add(time.Duration(off.Load())) })
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go f.gate.Run(ctx)
				go f.hear(ctx)
				allow := role.Presets()[0].Allow
				f.put(&role.Role{Name: "idle", Options: role.Options{ClientIdleTimeout: role.Duration(10 * time.Minute)}, Allow: allow},
					&role.Role{Name: "short", Options: role.Options{MaxSessionTTL: role.Duration(20 * time.Minute)}, Allow: allow},
					&role.Role{Name: "cert", Options: role.Options{DisconnectExpiredCert: true}, Allow: allow})
				idle, short, cert := f.admit(t, request("alice", "idle")), f.admit(t, request("alice", "short")), f.admit(t, request("alice", "cert"))
				time.Sleep(9 * time.Minute)
				off.Store(int64(step))
				time.Sleep(30 * time.Second)
				alive(t, idle, "an idle session, before its time")
				alive(t, short, "a session, before its longest time")
				if step > 0 {
					cutBy(t, cert, "expired", "a session whose certificate is over by the calendar")
				} else {
					alive(t, cert, "a session whose certificate is good")
				}
				time.Sleep(time.Minute)
				cutBy(t, idle, "idle", "an idle session")
				time.Sleep(11 * time.Minute)
				cutBy(t, short, "max_session_ttl", "a session past its longest time")
				// A picture's age is not the calendar's.
				if _, age := f.mirror.Current(); age > 2*time.Second {
					t.Fatalf("the picture is %s old", age)
				}
			})
		})
	}
}

// TestKeep: a door's condition is asked at once and at each new decision; of one name the last counts; its error ends the session.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, stop := running(t)
		defer stop()
		granted := func(forwards bool) {
			f.put(&role.Role{Name: "p", Options: role.Options{PortForwarding: forwards}, Allow: role.Presets()[0].Allow})
			synctest.Wait()
		}
		granted(true)
		req := request("alice", "p")
		req.Identity.Grant.PortForwarding = true
		s := f.admit(t, req)
		why, asked, before := fault.New(fault.Denied, "the door has enough"), 0, 0
		s.Keep("ports", func() error { before++; return nil })
		s.Keep("ports", func() error {
			asked++
			if !s.Limits().PortForwarding { // as it is decided by now
				return why
			}
			return nil
		})
		granted(true)
		alive(t, s, "a session whose condition holds")
		granted(false)
		if cause := context.Cause(s.Context()); !errors.Is(cause, why) || asked != 3 || before != 1 {
			t.Errorf("%v, asked %d times, the one before %d", cause, asked, before)
		}
		late := f.admit(t, req)
		late.Keep("ports", func() error { return why })
		if !errors.Is(context.Cause(late.Context()), why) {
			t.Error("a condition that does not hold from the start")
		}
	})
}
