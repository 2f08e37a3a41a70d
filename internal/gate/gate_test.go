package gate

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// recorder keeps events, or fails.
type recorder struct {
	mu     sync.Mutex
	events []event.Event // guarded by mu
	fail   error
	before func() // called before an event is kept
}

func (r *recorder) Write(_ context.Context, ev event.Event) error {
	if r.before != nil {
		r.before()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fail != nil {
		return r.fail
	}
	r.events = append(r.events, ev)
	return nil
}

func (r *recorder) last(t *testing.T) event.Event {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.events) == 0 {
		t.Fatal("nothing was recorded")
	}
	return r.events[len(r.events)-1]
}

type fixture struct {
	gate   *Gate
	mirror *snapshot.Mirror
	events *recorder
	rev    uint64
}

// newFixture is a gate with the preset roles; it must be made inside a bubble.
func newFixture(t *testing.T) *fixture {
	start := time.Now()
	f := &fixture{mirror: snapshot.NewMirror(func() time.Duration { return time.Since(start) }), events: &recorder{}}
	c := snapshot.Change{Complete: true}
	for _, r := range role.Presets() {
		c.Put = append(c.Put, manifest.New(&r, 0))
	}
	s := cluster.Default()
	c.Put = append(c.Put, manifest.New(&s, 0))
	f.apply(c)
	f.mirror.Confirm(f.mirror.Now())
	f.gate = New(f.mirror, f.events, identity.Host{ID: "n1", Role: identity.RoleNode, Name: "web", Cluster: "example.com"}, time.Now)
	return f
}

func (f *fixture) apply(c snapshot.Change) {
	f.rev++
	c.Revision = f.rev
	f.mirror.Apply(c)
}

// hear keeps the picture young, as a feed does.
func (f *fixture) hear(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		f.mirror.Confirm(f.mirror.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f *fixture) put(specs ...any) {
	var c snapshot.Change
	for _, s := range specs {
		c.Put = append(c.Put, manifest.New(s, 0))
	}
	f.apply(c)
}

func request(name string, roles ...string) Request {
	now := time.Now()
	return Request{Identity: &identity.User{Name: name, Cluster: "example.com", Kind: identity.Human, Roles: roles, KeyPolicy: identity.KeyAnywhere,
		Traits: map[string][]string{"logins": {"root"}}, Validity: identity.Validity{IssuedAt: now, Expires: now.Add(time.Hour)}},
		Target: target.Target{Kind: target.Node, ID: "n1", Name: "web"}, Action: target.Action{Login: "root", From: netip.MustParseAddr("10.0.0.1")},
		Start: event.Event{Kind: event.SessionStart}}
}

func TestAdmitRecordsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s, err := f.gate.Admit(t.Context(), request("alice", "access"))
		if err != nil {
			t.Fatal(err)
		}
		ev := f.events.last(t)
		if ev.Kind != event.SessionStart || !ev.Success || ev.User != "alice" || ev.Session.SessionID != s.ID() || ev.Session.Source != "access" || ev.Session.ServerID != "n1" {
			t.Fatalf("%+v %+v", ev, ev.Session)
		}
		s.End(nil)
		if ev := f.events.last(t); ev.Kind != event.SessionEnd || ev.Session.Reason != "closed" {
			t.Fatalf("%+v %+v", ev, ev.Session)
		}
		if s.Context().Err() == nil || len(f.gate.Sessions()) != 0 {
			t.Fatal("an ended session lives")
		}
		// Refused: recorded with its reason.
		_, err = f.gate.Admit(t.Context(), request("bob"))
		if !fault.Because(err, "not_granted") {
			t.Fatal(err)
		}
		if ev := f.events.last(t); ev.Kind != event.Auth || ev.Session.Reason != "not_granted" || ev.User != "bob" {
			t.Fatalf("%+v %+v", ev, ev.Session)
		}
		// What cannot be recorded is refused.
		f.events.fail = errors.New("disk full")
		if _, err = f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "audit_failed") || len(f.gate.Sessions()) != 0 {
			t.Fatal(err)
		}
	})
}

// TestA10StalePicture is what a proxy gains that keeps an agent from hearing.
func TestA10StalePicture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.gate.Run(ctx)
		s, err := f.gate.Admit(t.Context(), request("alice", "access"))
		if err != nil {
			t.Fatal(err)
		}
		relaxed := role.Role{Name: "relaxed", Options: role.Options{Lock: "best_effort"}, Allow: role.Presets()[0].Allow}
		f.put(&relaxed)
		easy, err := f.gate.Admit(t.Context(), request("carol", "relaxed"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(cluster.DefaultAdmitAge - time.Second)
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); err != nil {
			t.Fatalf("at %s: %v", cluster.DefaultAdmitAge-time.Second, err)
		}
		time.Sleep(2 * time.Second)
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "stale_picture") {
			t.Fatalf("past %s: %v", cluster.DefaultAdmitAge, err)
		}
		if _, err := f.gate.Admit(t.Context(), request("carol", "relaxed")); err != nil {
			t.Fatalf("best_effort: %v", err)
		}
		if s.Context().Err() != nil {
			t.Fatal("a live session was cut too early")
		}
		// An echo of an old ping does not make the picture young.
		f.mirror.Confirm(0)
		time.Sleep(cluster.DefaultLiveAge)
		synctest.Wait()
		if !fault.Because(context.Cause(s.Context()), "stale_picture") {
			t.Fatalf("a strict session past %s: %v", cluster.DefaultLiveAge, context.Cause(s.Context()))
		}
		if easy.Context().Err() != nil {
			t.Fatalf("a best_effort session was cut: %v", context.Cause(easy.Context()))
		}
		f.mirror.Confirm(f.mirror.Now())
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); err != nil {
			t.Fatalf("service does not return: %v", err)
		}
	})
}

// grouped is a recorder that can append.
type grouped struct {
	*recorder
	appended []event.Event
}

func (g *grouped) Append(_ context.Context, ev event.Event) error {
	g.appended = append(g.appended, ev)
	return g.fail
}

func TestNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		s := f.admit(t, request("alice", "access"))
		note := event.Event{Kind: event.DBSessionQuery, Success: true, Action: &event.Action{Query: "SELECT 1"}}
		if err := s.Note(t.Context(), note); err != nil || f.events.last(t).Action.Query != "SELECT 1" {
			t.Fatalf("by a recorder that writes: %v", err)
		}
		g := &grouped{recorder: f.events}
		f.gate.recorder = g
		if err := s.Note(t.Context(), note); err != nil || len(g.appended) != 1 || g.appended[0].Session.SessionID != s.ID() || g.appended[0].User != "alice" {
			t.Fatalf("by one that appends: %v %+v", err, g.appended)
		}
		f.events.fail = errors.New("disk full")
		if err := s.Note(t.Context(), note); !fault.Because(err, "audit_failed") {
			t.Fatal(err)
		}
		f.events.fail = nil
		s.End(nil)
		if len(g.appended) != 3 || g.appended[2].Kind != event.SessionEnd { // nobody waits for the disk to say goodbye
			t.Fatalf("%+v", g.appended)
		}
	})
}

func TestNeverConfirmedAdmitsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := snapshot.NewMirror(func() time.Duration { return 0 })
		g := New(m, &recorder{}, identity.Host{ID: "n1"}, time.Now)
		if _, err := g.Admit(t.Context(), request("alice", "access")); err == nil {
			t.Fatal("a gate without a picture admitted")
		}
	})
}

func TestChangesCut(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(f *fixture)
		reason string
	}{
		{"a lock", func(f *fixture) { f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}) }, "locked"},
		{"a lock on the node", func(f *fixture) { f.put(&lock.Lock{Name: "l", Target: lock.Target{ServerID: "n1"}}) }, "locked"},
		{"the role removed", func(f *fixture) {
			f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Role, Name: "access"}}})
		}, "not_granted"},
		{"the role edited", func(f *fixture) {
			r := role.Presets()[0]
			r.Options.DeviceTrustMode = device.ModeRequired
			f.put(&r)
		}, "device_required"},
		{"the mode raised", func(f *fixture) {
			s := cluster.Default()
			s.DeviceTrust.Mode = device.ModeRequired
			f.put(&s)
		}, "device_required"},
		{"the settings gone", func(f *fixture) {
			f.apply(snapshot.Change{Removed: []snapshot.Ref{{Kind: manifest.Cap, Name: manifest.CapName}}})
		}, "device_required"},
		{"a role that cannot be read", func(f *fixture) {
			f.apply(snapshot.Change{Put: []*manifest.Resource{snapshot.Unreadable(manifest.Role, "access")}})
		}, "denied"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go f.gate.Run(ctx)
				s, err := f.gate.Admit(t.Context(), request("alice", "access"))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				began := time.Now()
				c.change(f)
				<-s.Context().Done()
				if took := time.Since(began); took > 0 {
					t.Fatalf("cut after %s", took)
				}
				if cause := context.Cause(s.Context()); !fault.Because(cause, c.reason) {
					t.Fatalf("%v", cause)
				}
			})
		})
	}
}

func TestOthersLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.gate.Run(ctx)
		s, err := f.gate.Admit(t.Context(), request("alice", "access"))
		if err != nil {
			t.Fatal(err)
		}
		f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "bob"}})
		time.Sleep(3 * time.Second)
		synctest.Wait()
		if s.Context().Err() != nil {
			t.Fatal(context.Cause(s.Context()))
		}
	})
}

// TestChangeDuringAdmission locks the user while the admission is being recorded: nothing slips between.
func TestChangeDuringAdmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		f.events.before = sync.OnceFunc(func() { f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}) })
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "locked") {
			t.Fatal(err)
		}
	})
}

// TestRaceOfAdmissionAndLock lets admission and a change race, ten thousand times: whoever was let in is cut.
func TestRaceOfAdmissionAndLock(t *testing.T) {
	for range 10000 {
		f := newFixture(t)
		var s *Session
		var err error
		var wg sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		wg.Go(func() { f.gate.Run(ctx) })
		done := make(chan struct{})
		go func() { s, err = f.gate.Admit(ctx, request("alice", "access")); close(done) }()
		f.put(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}})
		<-done
		if err == nil {
			select {
			case <-s.Context().Done():
			case <-time.After(5 * time.Second):
				t.Fatal("a session outlived the lock that came while it was admitted")
			}
		}
		cancel()
		wg.Wait()
	}
}

// slow are pictures that let something happen right after one was looked at.
type slow struct {
	*snapshot.Mirror
	then func()
}

func (p *slow) Current() (*snapshot.Picture, time.Duration) {
	picture, age := p.Mirror.Current()
	if then := p.then; then != nil {
		p.then = nil
		then()
	}
	return picture, age
}

// TestReviewIsNotBehind admits somebody by a picture that is newer than the one that a review has just looked at: the
// review does not cut them by the old one.
func TestReviewIsNotBehind(t *testing.T) {
	f := newFixture(t)
	pictures := &slow{Mirror: f.mirror}
	g := New(pictures, f.events, identity.Host{ID: "n1"}, time.Now)
	admitted := make(chan *Session, 1)
	pictures.then = func() {
		f.put(&role.Role{Name: "late", Allow: role.Presets()[0].Allow})
		done := make(chan struct{})
		go func() {
			defer close(done)
			s, err := g.Admit(t.Context(), request("alice", "late"))
			if err != nil {
				t.Error(err)
			}
			admitted <- s
		}()
		select {
		case <-done:
		case <-time.After(50 * time.Millisecond): // it waits for the review
		}
	}
	g.review()
	if s := <-admitted; s == nil || s.Context().Err() != nil {
		t.Fatal("cut by a picture from before it was let in")
	}
}

// TestLimits are the options that time enforces.
func TestLimits(t *testing.T) {
	allow := role.Presets()[0].Allow
	for _, c := range []struct {
		name    string
		options role.Options
		after   time.Duration
		reason  string
	}{
		{"client_idle_timeout", role.Options{ClientIdleTimeout: role.Duration(time.Minute)}, time.Minute, "idle"},
		{"max_session_ttl", role.Options{MaxSessionTTL: role.Duration(10 * time.Minute)}, 10 * time.Minute, "max_session_ttl"},
		{"disconnect_expired_cert", role.Options{DisconnectExpiredCert: true}, time.Hour, "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFixture(t)
				f.put(&role.Role{Name: "r", Options: c.options, Allow: allow})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				go f.gate.Run(ctx)
				go f.hear(ctx)
				s, err := f.gate.Admit(t.Context(), request("alice", "r"))
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(c.after - 2*time.Second)
				synctest.Wait()
				if s.Context().Err() != nil {
					t.Fatalf("too early: %v", context.Cause(s.Context()))
				}
				time.Sleep(4 * time.Second)
				synctest.Wait()
				if !fault.Because(context.Cause(s.Context()), c.reason) {
					t.Fatalf("%v", context.Cause(s.Context()))
				}
			})
		})
	}
}

// TestLongSession lives through the end of its certificate where no role says otherwise.
func TestLongSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go f.gate.Run(ctx)
		go f.hear(ctx)
		s, err := f.gate.Admit(t.Context(), request("alice", "access"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if s.Context().Err() != nil {
			t.Fatal(context.Cause(s.Context()))
		}
	})
}

func TestStoppingGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t)
		ctx, cancel := context.WithCancel(t.Context())
		go f.gate.Run(ctx)
		s, err := f.gate.Admit(t.Context(), request("alice", "access"))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		<-s.Context().Done()
		if !strings.Contains(context.Cause(s.Context()).Error(), "stopping") {
			t.Fatal(context.Cause(s.Context()))
		}
		if _, err := f.gate.Admit(t.Context(), request("alice", "access")); !fault.Because(err, "stopping") {
			t.Fatalf("a stopped gate: %v", err)
		}
	})
}
