package world_test

import (
	"bytes"
	"context"
	"crypto"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/census"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/world"
)

// carried is an SSH session whose command runs until it is cut.
type carried struct {
	said  words
	ended chan struct{}
	err   error
}

// words gathers what is written; it may be read meanwhile.
type words struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// certSigner signs SSH with a login's key, in hardware or not.
func certSigner(t *testing.T, l *world.Login) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromSigner(l.TLS.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(l.SSH, s)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// carry begins a session on the world's node and waits until its command runs.
func carry(t *testing.T, l *world.Login) *carried {
	t.Helper()
	conn := dial(t, func(ticket, target string) (net.Conn, error) {
		return l.World.Address().Stream(t.Context(), tunnel.Dial{Target: target, Door: tunnel.DoorSSH, Ticket: ticket})
	}, l.DialTicket)
	c, err := session.Dial(t.Context(), conn, session.Config{Login: "root", Signer: certSigner(t, l), HostAuthorities: l.HostAuthorities, Target: "web", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	s := &carried{ended: make(chan struct{})}
	started := &signal{ch: make(chan struct{})}
	go func() {
		defer close(s.ended)
		s.err = c.Run(context.Background(), session.Job{Command: "echo up; sleep 600", In: strings.NewReader(""), Out: started, Err: &s.said})
	}()
	select {
	case <-started.ch:
	case <-s.ended:
		t.Fatalf("the session ended at once: %v, %s", s.err, &s.said)
	case <-time.After(10 * time.Second):
		t.Fatal("the session did not begin")
	}
	return s
}

func (s *carried) alive(t *testing.T, what string) {
	t.Helper()
	select {
	case <-s.ended:
		t.Fatalf("%s: cut: %v, %s", what, s.err, &s.said)
	default:
	}
}

// cut waits for the end, which must come with a text; that it comes at once is measured in the bench.
func (s *carried) cut(t *testing.T, text string) {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(10 * time.Second):
		t.Fatalf("it lives on, where %q should end it", text)
	}
	if got := s.said.String() + fmt.Sprint(s.err); !strings.Contains(got, text) {
		t.Fatalf("it ended with %q, not with %q", got, text)
	}
}

// here is one person in the table below: alice on her device, with a role of her own.
type here struct {
	*world.World
	t      *testing.T
	user   string
	device *world.Device
	login  *world.Login
}

func (h *here) role(edit func(*role.Role)) {
	r := role.Role{Name: "dev-" + h.user, Allow: role.Conditions{Logins: []string{"root"}, NodeLabels: label.Selector{"*": {"*"}}}}
	edit(&r)
	h.Role(r)
}

func (h *here) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

func (h *here) account(edit func(*identity.Account)) {
	h.t.Helper()
	res, err := h.Admin.Get(h.t.Context(), manifest.User, h.user)
	h.must(err)
	a := res.Spec.(*identity.Account)
	edit(a)
	_, err = h.Admin.Write(h.t.Context(), []*manifest.Resource{manifest.New(a, 0)}, true)
	h.must(err)
}

// TestA9LiveSessionsAreCut is everything that ends a session's right to be, each on a session that runs, and beside it
// a session of somebody else that goes on.
func TestA9LiveSessionsAreCut(t *testing.T) {
	w := world.New(t, nil)
	w.User("bystander", "access")
	other := carry(t, w.Login("bystander"))
	for i, c := range []struct {
		name   string
		change func(h *here)
		says   string
	}{
		{"a lock on the user", func(h *here) { h.Write(&lock.Lock{Name: "a", Target: lock.Target{User: h.user}, Message: "find me"}) }, "find me"},
		{"a lock on what was issued to the user", func(h *here) {
			h.Write(&lock.Lock{Name: "b", Target: lock.Target{User: h.user}, IssuedBefore: time.Now().Add(time.Minute)})
		}, `User:"`},
		{"a lock on the role", func(h *here) { h.Write(&lock.Lock{Name: "c", Target: lock.Target{Role: "dev-" + h.user}}) }, `Role:"`},
		{"a lock on the login of the user", func(h *here) { h.Write(&lock.Lock{Name: "d", Target: lock.Target{User: h.user, Login: "root"}}) }, "lock targeting"},
		{"a lock on the node for the role", func(h *here) {
			h.Write(&lock.Lock{Name: "e", Target: lock.Target{Role: "dev-" + h.user, ServerID: h.nodeID()}})
		}, "lock targeting"},
		{"a lock on the device", func(h *here) { h.Write(&lock.Lock{Name: "f", Target: lock.Target{Device: h.device.Keep.DeviceID}}) }, `Device:"`},
		{"a lock on the device credential", func(h *here) {
			h.Write(&lock.Lock{Name: "g", Target: lock.Target{DeviceCredential: h.device.Keep.CredentialID}})
		}, `Device:"`},
		{"the device removed", func(h *here) {
			_, err := h.Admin.Delete(h.t.Context(), manifest.Device, h.device.Keep.DeviceID)
			h.must(err)
		}, `Device:"`},
		{"the device unenrolled", func(h *here) {
			_, err := h.Admin.Unenroll(h.t.Context(), client.DeviceRef{ID: h.device.Keep.DeviceID})
			h.must(err)
		}, `Device:"`},
		{"the device re-keyed", func(h *here) { h.must(h.device.Enroll(h.Login(h.user), "")) }, `Device:"`},
		{"the role demands more of the device", func(h *here) {
			h.role(func(r *role.Role) {
				r.Options.DeviceRequirements = &role.Requirements{Attestation: []device.Level{device.LevelTPMTrusted}}
			})
		}, "attestation one of"},
		{"the role demands no software keys", func(h *here) { h.role(func(r *role.Role) { r.Options.DeviceTrustMode = device.ModeRequired }) }, "does not accept a software key"},
		{"the role grants the login no more", func(h *here) { h.role(func(r *role.Role) { r.Allow.Logins = []string{"nobody"} }) }, "access denied to root"},
		{"the role denies", func(h *here) { h.role(func(r *role.Role) { r.Deny = r.Allow }) }, "denies it"},
		{"the role removed", func(h *here) {
			_, err := h.Admin.Delete(h.t.Context(), manifest.Role, "dev-"+h.user)
			h.must(err)
		}, "access denied to root"},
		{"the role taken from the user", func(h *here) { h.account(func(a *identity.Account) { a.Roles = []string{"editor"} }) }, `User:"`},
		{"a trait taken from the user", func(h *here) { h.account(func(a *identity.Account) { a.Traits = nil }) }, `User:"`},
		{"the user locked", func(h *here) { h.account(func(a *identity.Account) { a.Status.IsLocked = true }) }, `User:"`},
		{"the user reset", func(h *here) {
			_, err := h.Admin.ResetUser(h.t.Context(), h.user)
			h.must(err)
		}, `User:"`},
		{"the user removed", func(h *here) {
			_, err := h.Admin.Delete(h.t.Context(), manifest.User, h.user)
			h.must(err)
		}, `User:"`},
		{"the session ended", func(h *here) {
			list, err := census.New(h.Admin).List(h.t.Context())
			h.must(err)
			for _, l := range list {
				if l.Identity.Name == h.user {
					_, err = census.New(h.Admin).End(h.t.Context(), l.ID, "enough")
					h.must(err)
				}
			}
		}, "enough"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &here{World: w, t: t, user: fmt.Sprint("alice", i)}
			h.role(func(*role.Role) {})
			w.User(h.user, "dev-"+h.user, "editor")
			h.account(func(a *identity.Account) { a.Traits = map[string][]string{"team": {"x"}} })
			h.device = w.Device("LAP-"+strings.ToUpper(h.user), "")
			h.must(h.device.Enroll(w.Login(h.user), ""))
			h.login = h.device.Login(h.user)
			s := carry(t, h.login)
			h.told()
			c.change(h)
			s.cut(t, c.says)
			other.alive(t, "somebody else's session")
		})
	}
	// The cluster's mode, raised, ends the session that has no device.
	set := cluster.Default()
	set.SecondFactors = []string{}
	set.DeviceTrust.Mode = device.ModeRequired
	w.Write(&set)
	other.cut(t, "unauthorized device")
	for _, ev := range w.Events(event.SessionEnd) {
		if ev.Session == nil || ev.Session.Reason == "" {
			t.Errorf("an end without a reason: %+v", ev)
		}
	}
}

func (h *here) nodeID() string {
	h.t.Helper()
	list, err := h.Admin.List(h.t.Context(), manifest.Node)
	h.must(err)
	for _, res := range list {
		if s := res.Spec.(*identity.Server); s.Role == identity.RoleNode {
			return s.ID
		}
	}
	h.t.Fatal("no node is listed")
	return ""
}

// told waits until auth has heard of the person's session.
func (h *here) told() {
	h.t.Helper()
	for range 200 {
		list, err := census.New(h.Admin).List(h.t.Context())
		h.must(err)
		for _, l := range list {
			if l.Identity.Name == h.user {
				return
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	h.t.Fatal("auth did not hear of the session")
}

// TestEnrolledAgainWorks unenrolls a device, enrolls it again and begins a session at once, while what was issued before
// stays dead.
func TestEnrolledAgainWorks(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	d := w.Device("LAP", "")
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	old := d.Login("alice")
	s := carry(t, old)
	if _, err := w.Admin.Unenroll(t.Context(), client.DeviceRef{ID: d.Keep.DeviceID}); err != nil {
		t.Fatal(err)
	}
	s.cut(t, `Device:"`)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	carry(t, d.Login("alice")).alive(t, "a session of the new credential")
	conn := dial(t, func(ticket, target string) (net.Conn, error) {
		return w.Address().Stream(t.Context(), tunnel.Dial{Target: target, Door: tunnel.DoorSSH, Ticket: ticket})
	}, old.DialTicket)
	c, err := session.Dial(t.Context(), conn, session.Config{Login: "root", Signer: certSigner(t, old), HostAuthorities: old.HostAuthorities, Target: "web", Now: time.Now})
	if err == nil {
		err = c.Run(t.Context(), session.Job{Command: "true"})
		c.Close()
	}
	if err == nil || !strings.Contains(err.Error(), "lock targeting Device") {
		t.Fatalf("a certificate from before: %v", err)
	}
}

// TestLaterLoginKeepsSessions logs in anew on the same device before the first login is over: its session goes on, where
// one whose device did not log in again ends.
func TestLaterLoginKeepsSessions(t *testing.T) {
	w := world.New(t, nil)
	const life = 6 * time.Second
	w.Role(role.Role{Name: "short", Options: role.Options{DisconnectExpiredCert: true},
		Allow: role.Conditions{Logins: []string{"root"}, NodeLabels: label.Selector{"*": {"*"}}}})
	var sessions []*carried
	var devices []*world.Device
	for _, name := range []string{"alice", "bob"} {
		w.User(name, "short", "editor")
		d := w.Device("LAP-"+strings.ToUpper(name), "")
		if err := d.Enroll(w.Login(name), ""); err != nil {
			t.Fatal(err)
		}
		devices = append(devices, d)
		sessions = append(sessions, carry(t, d.LoginFor(name, life)))
	}
	later := devices[0].Login("alice")
	if later.Identity().Validity.Expires.Sub(time.Now()) < time.Hour {
		t.Fatal("the later login is no longer than the first")
	}
	sessions[1].cut(t, "the login has expired")
	time.Sleep(2 * time.Second) // past the first login's end, as the other session has shown
	sessions[0].alive(t, "a session that a later login continues")
	list, err := census.New(w.Admin).List(t.Context())
	if err != nil || len(list) != 1 || list[0].Identity.Validity.Serial != later.Identity().Validity.Serial {
		t.Fatalf("%+v %v", list, err)
	}
	// It goes on as the later login: what ends that one ends it.
	w.Write(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: time.Now().Add(time.Second)})
	sessions[0].cut(t, `User:"alice"`)
}

// TestA13SessionsOfOthers has a node report sessions: under its own id alone, and nothing that is none.
func TestA13SessionsOfOthers(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	s := carry(t, w.Login("alice"))
	h := &here{World: w, t: t, user: "alice"}
	h.told()
	before, err := census.New(w.Admin).List(t.Context())
	if err != nil || len(before) != 1 {
		t.Fatal(before, err)
	}
	thief := newHost(t, w)
	if err := thief.join(thief.token("", "node"), "db1"); err != nil {
		t.Fatal(err)
	}
	forged := before[0]
	forged.Identity.Name = "mallory"
	forged.Target.Name, forged.Target.ID = "prod-db", "somebody-else"
	thief.tell(forged)
	list, err := census.New(w.Admin).List(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for _, l := range list {
		if (l.Host == thief.ID) != (l.Identity.Name == "mallory") {
			t.Fatalf("host %s, user %s", l.Host, l.Identity.Name)
		}
		if l.Host == thief.ID && (l.Target.ID != thief.ID || l.Target.Name != "db1") {
			t.Fatalf("a session of %s at %+v", thief.Name, l.Target)
		}
	}
	// That another says the same id does not keep anybody from ending it.
	if _, err := census.New(w.Admin).End(t.Context(), before[0].ID, "enough"); err != nil {
		t.Fatal(err)
	}
	s.cut(t, "enough")
	// What cannot be a session is left out, and keeps nobody from hearing of locks.
	huge := before[0]
	huge.ID = "11111111-2222-3333-4444-555555555555"
	huge.Identity.Traits = map[string][]string{"x": {strings.Repeat("y", 60<<10)}}
	odd := before[0]
	odd.ID = "../../role/access"
	good := before[0]
	good.ID = "22222222-2222-3333-4444-555555555555"
	thief.tell(huge, odd, good)
	if list, err = census.New(w.Admin).List(t.Context()); err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	for _, l := range list {
		if l.Host == thief.ID && l.ID != good.ID {
			t.Fatalf("taken: %s", l.ID)
		}
	}
}

// TestA9IssuedMeanwhile issues certificates all the while that their user loses a role: none of them is good afterwards,
// however close it came, and the next login is.
func TestA9IssuedMeanwhile(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "auditor")
	issued := make(chan *world.Login, 1000)
	var logins sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		logins.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if l, err := w.TryLogin("alice", world.Password); err == nil {
						issued <- l
					}
				}
			}
		})
	}
	time.Sleep(300 * time.Millisecond)
	h := &here{World: w, t: t, user: "alice"}
	for { // logins do not write the user's record, so nothing keeps the change back
		res, err := w.Admin.Get(t.Context(), manifest.User, "alice")
		h.must(err)
		a := res.Spec.(*identity.Account)
		a.Roles = []string{"access"}
		if _, err = w.Admin.Write(t.Context(), []*manifest.Resource{manifest.New(a, 0)}, true); err == nil {
			break
		}
	}
	close(stop)
	logins.Wait()
	close(issued)
	set, err := w.Admin.List(t.Context(), manifest.Lock)
	h.must(err)
	var before *lock.Lock
	for _, res := range set {
		before = res.Spec.(*lock.Lock)
	}
	if before == nil {
		t.Fatal("the loss of a role locked nothing")
	}
	old, fresh := 0, 0
	for l := range issued {
		u := l.Identity()
		dead := u.Validity.IssuedAt.Before(before.IssuedBefore)
		if has := len(u.Roles) == 2; has && !dead {
			t.Errorf("a certificate with the lost role, issued at %s, is good after %s", u.Validity.IssuedAt, before.IssuedBefore)
		} else if !has && dead {
			t.Errorf("a certificate without the lost role is dead")
		} else if has {
			old++
		} else {
			fresh++
		}
	}
	if old == 0 {
		t.Fatal("nothing was issued before: the test proves nothing")
	}
	if l := w.Login("alice"); len(l.Identity().Roles) != 1 || l.Identity().Validity.IssuedAt.Before(before.IssuedBefore) {
		t.Fatalf("%+v", l.Identity())
	}
}
