package world_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/world"
)

func TestA4EnrollmentTokens(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	w.User("bob", "access")
	alice, bob := w.Login("alice"), w.Login("bob")
	ctx := t.Context()
	add := func(tag string) client.DeviceRef {
		d, err := w.Admin.RegisterDevice(ctx, device.Device{OSType: device.Linux, AssetTag: tag})
		if err != nil {
			t.Fatal(err)
		}
		return client.DeviceRef{ID: d.ID}
	}
	token := func(r client.DeviceRef, owner string, ttl time.Duration) string {
		made, err := fleet.Of(w.Admin).EnrollToken(ctx, r, owner, ttl)
		tok := made.Secret
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	one, two := add("ONE"), add("TWO")

	first := token(one, "", 0)
	second := token(one, "", 0)
	w.Refused(w.Device("ONE", "").Enroll(alice, first), "invalid_device_token", event.DeviceEnroll)                // replaced
	w.Refused(w.Device("TWO", "").Enroll(alice, second), "invalid_device_token", event.DeviceEnroll)               // for another device
	w.Refused(w.Device("ONE", "").Enroll(alice, second+"x"), "invalid_device_token", event.DeviceEnroll)           // damaged
	w.Refused(w.Device("ONE", "").Enroll(bob, token(one, "alice", 0)), "invalid_device_token", event.DeviceEnroll) // for another person
	if d, err := w.Admin.Get(ctx, manifest.Device, one.ID); err != nil || d.Spec.(*device.Device).Enrolled() {
		t.Fatalf("refusals left something: %v %v", d, err)
	}
	good := token(one, "alice", 0)
	mine := w.Device("ONE", "")
	if err := mine.Enroll(alice, good); err != nil {
		t.Fatal(err)
	}
	w.Refused(w.Device("ONE", "").Enroll(alice, good), "invalid_device_token", event.DeviceEnroll) // spent
	short := token(two, "", time.Second)
	time.Sleep(1100 * time.Millisecond)
	w.Refused(w.Device("TWO", "").Enroll(alice, short), "invalid_device_token", event.DeviceEnroll) // over

	// Twice at once: one of them.
	race := token(two, "", 0)
	var wg sync.WaitGroup
	results := make([]error, 4)
	for i := range results {
		d := w.Device("TWO", "")
		wg.Go(func() { results[i] = d.Enroll(alice, race) })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !fault.Because(err, "invalid_device_token") && !fault.Because(err, "changed") {
			t.Errorf("a loser was told %v", err)
		}
	}
	if won != 1 {
		t.Fatalf("%d enrollments by one token", won)
	}
	if got := len(w.Events(event.DeviceTokenSpent)); got != 2 {
		t.Fatalf("%d tokens spent, want 2", got)
	}
}

func TestA8TagsOfOthers(t *testing.T) {
	w := world.New(t, nil)
	w.User("owner", "access", "editor")
	w.User("thief", "access", "device-enroll")
	w.User("rival", "access", "editor")
	owner, thief, rival := w.Login("owner"), w.Login("thief"), w.Login("rival")
	mine := w.Device("C00AA0AAAA0A", "")
	if err := mine.Enroll(owner, ""); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{"C00AA0AAAA0A", " c00aa0aaaa0a ", "c00AA0aaaa0a"} {
		w.Refused(w.Device(tag, "").Enroll(thief, ""), "device_of_another", event.DeviceEnroll)
		w.Refused(w.Device(tag, "").Enroll(rival, ""), "device_of_another", event.DeviceEnroll)
	}
	// A registered device of nobody is not for whoever may enroll alone.
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "SPARE"}); err != nil {
		t.Fatal(err)
	}
	w.Refused(w.Device("SPARE", "").Enroll(thief, ""), "device_not_owned", event.DeviceEnroll)
	// One that is registered as theirs is.
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "THEIRS", Owner: "thief"}); err != nil {
		t.Fatal(err)
	}
	if err := w.Device("theirs", "").Enroll(thief, ""); err != nil {
		t.Fatal(err)
	}
	list, err := w.Admin.List(t.Context(), manifest.Device)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d devices, %v", len(list), err)
	}
	if l := mine.Login("owner"); l.Identity().Device == nil {
		t.Fatalf("the owner's device: %v", l.DeviceFault)
	}
}

func TestA1NoticeOfAnEnrollment(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	home := w.Device("HOME", "")
	if err := home.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	if l := home.Login("alice"); len(l.Notices) != 0 {
		t.Fatalf("told on the device itself: %v", l.Notices)
	}
	// Somebody with the password enrolls a machine of theirs; the owner is told at the next login from home.
	if err := w.Device("EVIL", "").Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	l := home.Login("alice")
	if len(l.Notices) != 1 || !strings.Contains(l.Notices[0], `device "EVIL"/Linux was enrolled in your name`) {
		t.Fatalf("notices %v", l.Notices)
	}
	if l := home.Login("alice"); len(l.Notices) != 0 {
		t.Fatalf("told twice: %v", l.Notices)
	}
}

func TestA9CredentialsThatAreNoMore(t *testing.T) {
	w := world.New(t, nil)
	w.Role(role.Role{Name: "dev", Options: role.Options{DeviceTrustMode: device.ModeRequired,
		DeviceRequirements: &role.Requirements{Attestation: []device.Level{device.LevelSoftware}}},
		Allow: role.Conditions{Rules: []role.Rule{{Resources: []string{"role"}, Verbs: []string{"list", "read"}}}}})
	w.User("alice", "editor", "dev")
	d := w.Device("LAP", "")
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	old := d.Login("alice")
	read := func(l *world.Login) error {
		c := l.Call()
		defer c.Close()
		_, err := c.Get(t.Context(), manifest.Role, "access")
		return err
	}
	if err := read(old); err != nil {
		t.Fatal(err)
	}
	// Re-keyed: what was issued on the old credential is dead at once, the new one works.
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	w.Refused(read(old), "locked", event.Auth)
	fresh := d.Login("alice")
	if err := read(fresh); err != nil {
		t.Fatal(err)
	}
	// Unenrolled, and enrolled again at once.
	if _, err := w.Admin.Unenroll(t.Context(), client.DeviceRef{ID: d.Keep.DeviceID}); err != nil {
		t.Fatal(err)
	}
	w.Refused(read(fresh), "locked", event.Auth)
	if l := d.Login("alice"); !fault.Because(l.DeviceFault, "unknown_device_credential") {
		t.Fatalf("an unenrolled device proved itself: %v", l.DeviceFault)
	}
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	again := d.Login("alice")
	if err := read(again); err != nil {
		t.Fatal(err)
	}
	// Removed.
	if _, err := w.Admin.Delete(t.Context(), manifest.Device, d.Keep.DeviceID); err != nil {
		t.Fatal(err)
	}
	w.Refused(read(again), "locked", event.Auth)
}

func TestA5UnderAllowedCAs(t *testing.T) {
	ca := swtpm.NewCA(t)
	good := swtpm.Start(t, swtpm.Options{EKCert: true, CA: ca})
	other := swtpm.Start(t, swtpm.Options{EKCert: true})
	bare := swtpm.Start(t, swtpm.Options{})
	pem, err := ca.PEM()
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t, func(c *config.Config) { c.Auth.Settings.DeviceTrust.EKCertAllowedCAs = []string{string(pem)} })
	w.User("alice", "access", "editor")
	alice := w.Login("alice")
	w.Refused(w.Device("OTHER", other.Socket).Enroll(alice, ""), "ekcert_untrusted", event.DeviceEnroll)
	w.Refused(w.Device("BARE", bare.Socket).Enroll(alice, ""), "ekcert_missing", event.DeviceEnroll)
	d := w.Device("GOOD", good.Socket)
	if err := d.Enroll(alice, ""); err != nil {
		t.Fatal(err)
	}
	l := d.Login("alice")
	if id := l.Identity(); id.Device == nil || id.Device.Level != device.LevelTPMTrusted || id.KeyPolicy != identity.KeyHardware {
		t.Fatalf("%+v %v", id.Device, l.DeviceFault)
	}
	// The same TPM under another tag is another device's.
	w.Refused(w.Device("TWIN", good.Socket).Enroll(alice, ""), "ek_of_another", event.DeviceEnroll)
}

func TestSoftwareKeysOnlyWhereAllowed(t *testing.T) {
	w := world.New(t, func(c *config.Config) { c.Auth.Settings.DeviceTrust.AllowSoftwareKeys = false })
	w.User("alice", "access", "editor")
	d := w.Device("SOFT", "")
	w.Refused(d.Enroll(w.Login("alice"), ""), "device_software_refused", event.DeviceEnroll)
	set := func(allow bool) {
		s := cluster.Default()
		s.SecondFactors, s.DeviceTrust.AllowSoftwareKeys = []string{}, allow
		w.Write(&s)
	}
	set(true)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	set(false)
	if l := d.Login("alice"); l.Identity().Device != nil || !fault.Because(l.DeviceFault, "software_keys_off") {
		t.Fatalf("device %v, %v", l.Identity().Device, l.DeviceFault)
	}
}

// TestA12DialTicket uses somebody's ticket with another's key, and no ticket at all.
func TestA12DialTicket(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	w.User("mallory")
	alice, mallory := w.Login("alice"), w.Login("mallory")
	ctx := t.Context()
	open := func(ticket, target string) (net.Conn, error) {
		return w.Address().Stream(ctx, tunnel.Dial{Target: target, Door: tunnel.DoorSSH, Ticket: ticket})
	}
	for _, bad := range []string{"", "x", alice.DialTicket + "x", strings.Replace(alice.DialTicket, ".", "", 1)} {
		if _, err := open(bad, "web"); !fault.Because(err, "bad_ticket") {
			t.Fatalf("ticket %q: %v", bad, err)
		}
	}
	conn := dial(t, open, alice.DialTicket)
	signer, err := ssh.NewSignerFromSigner(mallory.TLS.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(mallory.SSH, signer)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ClientConfig{User: mallory.SSH.ValidPrincipals[0], Auth: []ssh.AuthMethod{ssh.PublicKeys(cert)}, HostKeyCallback: ssh.InsecureIgnoreHostKey()}
	if c, chans, reqs, err := ssh.NewClientConn(conn, "web", config); err == nil {
		client := ssh.NewClient(c, chans, reqs)
		if _, err := client.NewSession(); err == nil {
			t.Fatal("a ticket of alice's let mallory in")
		}
	}
	// A locked user's ticket opens nothing.
	w.Write(&lock.Lock{Name: "l1", Target: lock.Target{User: "alice"}})
	deadline := time.Now().Add(5 * time.Second)
	for {
		c, err := open(alice.DialTicket, "web")
		if fault.Because(err, "locked") {
			break
		}
		if err == nil {
			c.Close()
		}
		if time.Now().After(deadline) {
			t.Fatalf("a locked user's ticket: %v", err)
		}
	}
}

// dial opens a stream to the node once it has joined.
func dial(t *testing.T, open func(ticket, target string) (net.Conn, error), ticket string) net.Conn {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := open(ticket, "web")
		if err == nil {
			return conn
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestA11NoSessionTickets asks every listener for a TLS session to resume.
func TestA11NoSessionTickets(t *testing.T) {
	w := world.New(t, nil)
	for _, c := range []struct{ name, addr, sni, alpn string }{
		{"auth through the proxy", w.State.Listen, "auth.example.com", tunnel.ALPNAuth},
		{"auth itself", w.State.Auth, "auth.example.com", "h2"},
		{"the dial", w.State.Listen, "proxy.example.com", tunnel.ALPNDial},
		{"the web", w.State.Listen, "", "http/1.1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache := &counting{LRU: tls.NewLRUClientSessionCache(8)}
			conn, err := tls.Dial("tcp", c.addr, &tls.Config{InsecureSkipVerify: true, ServerName: c.sni, NextProtos: []string{c.alpn, "h2"}, ClientSessionCache: cache})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
			_, _ = io.Copy(io.Discard, conn) // tickets come behind the handshake
			if cache.puts > 0 {
				t.Fatal("the server gave a session ticket")
			}
		})
	}
}

type counting struct {
	LRU  tls.ClientSessionCache
	puts int
}

func (c *counting) Get(k string) (*tls.ClientSessionState, bool) { return c.LRU.Get(k) }
func (c *counting) Put(k string, s *tls.ClientSessionState) {
	if s != nil {
		c.puts++
	}
	c.LRU.Put(k, s)
}

// TestA27Reissue asks for renewals that drop the device or change what the certificate says.
func TestA27Reissue(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	d := w.Device("LAP", "")
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	have := d.Login("alice")
	a := w.Address()
	c := have.Call()
	defer c.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Login(t.Context(), c, client.LoginRequest{User: "alice", Key: key.Public(), Certificate: have.TLS.Certificate[0], TTL: 20 * time.Hour}, nil)
	w.Refused(err, "reissue_drops_device", "")

	// A role that was given meanwhile, and a longer life, do not come with a reissue.
	res, err := w.Admin.Get(t.Context(), manifest.User, "alice")
	if err != nil {
		t.Fatal(err)
	}
	u := res.Spec.(*identity.Account)
	u.Roles = append(u.Roles, "auditor")
	w.Write(u)
	session := d.Session()
	attestor, err := d.Device.Login(session)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Login(t.Context(), c, client.LoginRequest{User: "alice", Key: session.Public(), Certificate: have.TLS.Certificate[0], TTL: 20 * time.Hour,
		Device: &client.DeviceProof{Key: attestor, CredentialID: d.Keep.CredentialID}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got.DeviceFault != nil {
		t.Fatal(got.DeviceFault)
	}
	was := have.Identity()
	is, err := identity.FromSSH(got.SSH)
	if err != nil {
		t.Fatal(err)
	}
	if !is.Validity.Expires.Equal(was.Validity.Expires) || len(is.Roles) != len(was.Roles) || is.Device == nil || is.LoginIP != was.LoginIP {
		t.Fatalf("%+v\nbecame %+v", was, is)
	}
	// A reissue without the certificate that it upgrades.
	anon := a.Call(nil)
	defer anon.Close()
	_, err = a.Login(t.Context(), anon, client.LoginRequest{User: "alice", Key: key.Public(), Certificate: have.TLS.Certificate[0]}, nil)
	if !fault.Is(err, fault.Unauthenticated) {
		t.Fatalf("a reissue for nobody: %v", err)
	}
}

// TestA71IdsOfOthers asks after devices that are somebody else's.
func TestA71IdsOfOthers(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	w.User("eve", "access")
	d := w.Device("LAP", "")
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	c := w.Login("eve").Call()
	defer c.Close()
	for _, ref := range []client.DeviceRef{{ID: d.Keep.DeviceID}, {Tag: "LAP"}, {Tag: "NOSUCH"}} {
		st, err := c.MyDevice(t.Context(), ref)
		if err != nil || !reflect.DeepEqual(st, client.DeviceStanding{}) {
			t.Fatalf("%+v: %+v %v", ref, st, err)
		}
	}
	_, err := c.Get(t.Context(), manifest.Device, d.Keep.DeviceID)
	w.Refused(err, "not_granted", event.Auth)
	_, err = fleet.Of(c).EnrollToken(t.Context(), client.DeviceRef{ID: d.Keep.DeviceID}, "eve", 0)
	w.Refused(err, "not_granted", event.Auth)
	_, err = c.Events(t.Context(), client.EventFilter{})
	w.Refused(err, "not_granted", event.Auth)
	_, err = c.Status(t.Context())
	w.Refused(err, "not_granted", event.Auth)
	if _, err := c.Write(t.Context(), []*manifest.Resource{manifest.New(&role.Role{Name: "mine"}, 0)}, true); !fault.Is(err, fault.Denied) {
		t.Fatal(err)
	}
}

// TestA71ObjectsOfOthers: what a role grants for the caller's own devices is refused for others', and each refusal that
// knows the object is recorded once, as those are that need none.
func TestA71ObjectsOfOthers(t *testing.T) {
	w := world.New(t, nil)
	w.Role(role.Role{Name: "keeper", Allow: role.Conditions{Rules: []role.Rule{
		{Resources: []string{"device"}, Verbs: []string{"*"}, Where: "resource.owner == user.name"},
		{Resources: []string{"session"}, Verbs: []string{"*"}, Where: "resource.user == user.name"}}}})
	w.User("eve", "access", "keeper")
	w.User("alice", "access")
	d, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "HERS", Owner: "alice"})
	if err != nil {
		t.Fatal(err)
	}
	c := w.Login("eve").Call()
	defer c.Close()
	f, ref := fleet.Of(c), client.DeviceRef{ID: d.ID}
	for method, call := range map[string]func() error{
		"RosterService/GetResource":    func() error { _, err := c.Get(t.Context(), manifest.Device, d.ID); return err },
		"RosterService/DeleteResource": func() error { _, err := c.Delete(t.Context(), manifest.Device, d.ID); return err },
		"RosterService/WriteResources": func() error {
			_, err := c.Write(t.Context(), []*manifest.Resource{manifest.New(d, 0)}, true)
			return err
		},
		"TrustService/RegisterDevice": func() error {
			_, err := c.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "NEW", Owner: "alice"})
			return err
		},
		"TrustService/CreateEnrollToken": func() error { _, err := f.EnrollToken(t.Context(), ref, "eve", 0); return err },
		"TrustService/UnenrollDevice":    func() error { _, err := c.Unenroll(t.Context(), ref); return err },
		"FleetService/SetBaseline":       func() error { _, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{}); return err },
		"FleetService/AcceptDevice":      func() error { _, _, err := f.Accept(t.Context(), ref); return err },
		"FleetService/GetEndorsement":    func() error { _, err := f.Endorsement(t.Context(), ref, ""); return err },
		"FleetService/ListDevices":       func() error { _, _, err := f.List(t.Context(), fleet.Listing{}); return err },
	} {
		had := len(w.Events(event.Auth))
		err := call()
		if method == "FleetService/ListDevices" { // it shows what may be seen
			if n := len(w.Events(event.Auth)); err != nil || n != had {
				t.Errorf("%s: %v, %d events", method, err, n-had)
			}
			continue
		}
		if !fault.Is(err, fault.Denied) {
			t.Errorf("%s: %v", method, err)
			continue
		}
		list := w.Events(event.Auth)
		if len(list) != had+1 {
			t.Errorf("%s: %d events", method, len(list)-had)
			continue
		}
		if last := list[had]; last.Success || last.User != "eve" || last.Session.Reason != fault.Of(err).Reason || last.Session.Addr == "" ||
			last.Action == nil || last.Action.Verb != method {
			t.Errorf("%s: recorded %+v", method, last)
		}
	}
	// Who registers what is there already learns no more than that.
	have, err := fleet.Of(c).Import(t.Context(), []device.Device{{OSType: device.Linux, AssetTag: "HERS", Owner: "eve"}}, "csv", true)
	if err != nil || have[0] != (fleet.Imported{Outcome: "exists", Reason: "its tag is taken"}) {
		t.Errorf("%+v %v", have, err)
	}
	mine, err := c.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "MINE", Owner: "eve"})
	if err != nil {
		t.Fatal(err)
	}
	have, err = fleet.Of(c).Import(t.Context(), []device.Device{{OSType: device.Linux, AssetTag: "MINE", Owner: "eve"}}, "csv", true)
	if err != nil || have[0] != (fleet.Imported{Outcome: "exists", DeviceID: mine.ID}) {
		t.Errorf("%+v %v", have, err)
	}
	// Use cases that record their refusals themselves do so alone.
	had, changes := len(w.Events(event.Auth)), len(w.Events(event.UserUpdate))
	if err := c.ChangePassword(t.Context(), "wrong", "correct horse battery 2", ""); err == nil {
		t.Error("a wrong old password")
	}
	if n := len(w.Events(event.UserUpdate)); n != changes+1 {
		t.Errorf("%d events of a password change", n-changes)
	}
	if n := len(w.Events(event.Auth)); n != had {
		t.Errorf("a password change was recorded twice")
	}
}

// TestA72PROXYLine sends a PROXY line from an address that may not.
func TestA72PROXYLine(t *testing.T) {
	w := world.New(t, nil)
	conn, err := net.Dial("tcp", w.State.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("PROXY TCP4 8.8.8.8 10.0.0.1 1 2\r\nSSH-2.0-x\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if b, _ := io.ReadAll(conn); len(b) != 0 {
		t.Fatalf("it was answered with %q", b)
	}
}

// TestA78Secrets looks for what was secret in logs, and for files that others may read.
func TestA78Secrets(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	l := w.Login("alice")
	if _, err := w.TryLogin("alice", "wrong-and-secret"); err == nil {
		t.Fatal("a wrong password")
	}
	i, err := w.Admin.AddToken(t.Context(), []string{"node"}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "LAP"})
	if err != nil {
		t.Fatal(err)
	}
	made, err := fleet.Of(w.Admin).EnrollToken(t.Context(), client.DeviceRef{ID: d.ID}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	var audit strings.Builder
	if err := w.Admin.Export(t.Context(), &audit); err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"password": world.Password, "wrong password": "wrong-and-secret", "join token": i.Token, "enrollment token": made.Secret, "dial ticket": l.DialTicket}
	err = filepath.WalkDir(filepath.Join(w.Dir, "data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if st.Mode()&0o077 != 0 && st.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("%s is readable by others: %v", path, st.Mode())
		}
		if !e.Type().IsRegular() {
			return nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for name, s := range secrets {
			if strings.Contains(string(raw), s) {
				t.Errorf("%s holds the %s", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range secrets {
		if strings.Contains(w.Log.String(), s) || strings.Contains(audit.String(), s) {
			t.Errorf("the log holds the %s", name)
		}
	}
}

// TestLockCutsSSH runs a session in this process and locks its user: it ends within a second, with the reason.
func TestLockCutsSSH(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access")
	l := w.Login("alice")
	conn := dial(t, func(ticket, target string) (net.Conn, error) {
		return w.Address().Stream(t.Context(), tunnel.Dial{Target: target, Door: tunnel.DoorSSH, Ticket: ticket})
	}, l.DialTicket)
	signer, err := ssh.NewSignerFromSigner(l.TLS.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(l.SSH, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := session.Dial(t.Context(), conn, session.Config{Login: "root", Signer: cert, HostAuthorities: l.HostAuthorities, Target: "web", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	started := make(chan struct{})
	var said strings.Builder
	ended := make(chan error, 1)
	go func() {
		ended <- c.Run(context.Background(), session.Job{Command: "echo up; sleep 60", In: strings.NewReader(""), Out: &signal{ch: started}, Err: &said})
	}()
	<-started
	began := time.Now()
	w.Write(&lock.Lock{Name: "l1", Target: lock.Target{User: "alice"}, Message: "gone"})
	err = <-ended
	t.Logf("cut after %s: %v", time.Since(began), err)
	if err == nil || !strings.Contains(said.String()+err.Error(), `lock targeting User:"alice" is in force`) {
		t.Fatalf("%v, having said %q", err, said.String())
	}
}

type signal struct {
	once sync.Once
	ch   chan struct{}
}

func (s *signal) Write(p []byte) (int, error) {
	s.once.Do(func() { close(s.ch) })
	return len(p), nil
}

func TestMain(m *testing.M) { os.Exit(m.Run()) }
