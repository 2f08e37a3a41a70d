package trust

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/software"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

var errKilled = errors.New("killed")

// bench is the use case over a real store; its picture does not move. fails makes changes fail.
type bench struct {
	*Service
	t      *testing.T
	store  *sqlite.Store
	fails  bool
	events []event.Event
}

func newBench(t *testing.T) *bench {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(t.TempDir(), "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	b := &bench{t: t, store: s}
	b.Service = &Service{Inventory: inventory.New(s), Records: records.New(s), Audit: b, Pictures: b, ClusterCA: bytes.Repeat([]byte{1}, 32), Now: time.Now}
	b.write(&identity.Account{Name: "alice", Kind: identity.Human})
	return b
}

func (b *bench) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	return b.RecordAll(ctx, []event.Event{ev}, ops...)
}

func (b *bench) RecordAll(ctx context.Context, evs []event.Event, ops ...store.Op) (uint64, error) {
	if b.fails && len(ops) > 0 {
		return 0, errKilled
	}
	if len(ops) == 0 {
		b.events = append(b.events, evs...)
		return 0, nil
	}
	revision, err := b.store.Txn(ctx, ops)
	if err == nil {
		b.events = append(b.events, evs...)
	}
	return revision, err
}

func (b *bench) Current() (*snapshot.Picture, time.Duration) {
	s := cluster.Default()
	s.DeviceTrust.AllowSoftwareKeys = true
	return &snapshot.Picture{Settings: s}, 0
}

func (b *bench) Reached(context.Context, uint64) {}

func (b *bench) write(spec any) {
	b.t.Helper()
	op, err := records.Put(manifest.New(spec, 0))
	if err == nil {
		_, err = b.store.Txn(b.t.Context(), []store.Op{op})
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// last is the newest event.
func (b *bench) last() event.Event { return b.events[len(b.events)-1] }

var admin = identity.Caller{Local: true, Addr: netip.IPv6Loopback()}

// token registers a device and makes a token for it.
func (b *bench) token(tag string) (id, token string) {
	b.t.Helper()
	res, err := b.Register(b.t.Context(), admin, device.Device{OSType: device.Linux, AssetTag: tag})
	if err != nil {
		b.t.Fatal(err)
	}
	id = res.Spec.(*device.Device).ID
	token, _, _, err = b.Token(b.t.Context(), admin, Ref{ID: id}, "", 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return id, token
}

// machine is a device with a software key on the other end. stop breaks the connection at a step, before is called
// ahead of the proof.
type machine struct {
	b       *bench
	token   string
	stop    string
	before  func()
	key     hwkey.Key
	await   *ceremony.AwaitingChallenge
	welcome *ceremony.AwaitingWelcome
	done    ceremony.Welcome
	from    identity.Caller
	sent    [][]byte // what the machine said
	replay  [][]byte // what it says in place of that
}

func (b *bench) machine(token string) *machine {
	b.t.Helper()
	dir := b.t.TempDir()
	key, err := software.NewKey(filepath.Join(dir, "session.key"))
	if err != nil {
		b.t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("certificate"))
	return &machine{b: b, token: token, key: key, from: identity.Caller{Addr: netip.MustParseAddr("203.0.113.7"), Certificate: sum[:],
		User: &identity.User{Name: "alice", Validity: identity.Validity{IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)}}}}
}

func (m *machine) say(msg []byte) []byte {
	m.sent = append(m.sent, msg)
	if n := len(m.sent); n <= len(m.replay) && m.replay[n-1] != nil {
		return m.replay[n-1]
	}
	return msg
}

func (m *machine) Receive(context.Context) ([]byte, error) {
	if m.stop == "hello" {
		return nil, fault.New(fault.Invalid, "broken off").WithReason("broken_off")
	}
	attestor, err := software.Open(m.b.t.TempDir()).Enroll(m.key)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(m.key.Public())
	if err != nil {
		return nil, err
	}
	prover, err := ceremony.NewProver(ceremony.Binding{Purpose: ceremony.Enroll, ClusterCA: m.b.ClusterCA, User: "alice", Upgraded: m.from.Certificate, SessionKey: spki}, attestor)
	if err != nil {
		return nil, err
	}
	msg, await, err := prover.Hello(ceremony.Introduction{Token: m.token, Claims: device.Data{OSType: device.Linux, ReportedAssetTag: "LAP"}})
	m.await = await
	return m.say(msg), err
}

func (m *machine) Exchange(_ context.Context, challenge []byte) ([]byte, error) {
	if m.stop == "challenge" {
		return nil, fault.New(fault.Invalid, "broken off").WithReason("broken_off")
	}
	if m.before != nil {
		m.before()
	}
	msgs, await, err := m.await.Proof(challenge)
	if err != nil {
		return nil, err
	}
	m.welcome = await
	return m.say(msgs[0]), nil
}

func (m *machine) Send(_ context.Context, welcome []byte) error {
	if m.stop == "welcome" {
		return fault.New(fault.Invalid, "broken off").WithReason("broken_off")
	}
	var err error
	m.done, err = m.welcome.Welcome(welcome)
	return err
}

func (m *machine) enroll() error { return m.enrollAs(m.key.Public()) }

func (m *machine) enrollAs(key crypto.PublicKey) error {
	return m.b.Enroll(m.b.t.Context(), m.from, EnrollStart{Key: key, WithToken: true}, func(context.Context, bool) error { return nil }, m)
}

func because(t *testing.T, err error, reason string) {
	t.Helper()
	if !fault.Because(err, reason) {
		t.Fatalf("got %v, want reason %q", err, reason)
	}
}

// TestTokenIsSpentWithItsDevice breaks an enrollment at every step: the token is spent if and only if the device is
// enrolled, and whatever happens is on record.
func TestTokenIsSpentWithItsDevice(t *testing.T) {
	for _, c := range []struct {
		name     string
		stop     string
		fails    bool
		enrolled bool
	}{
		{"nothing was said", "hello", false, false},
		{"no proof", "challenge", false, false},
		{"killed at the commit", "", true, false},
		{"the welcome is lost", "welcome", false, true},
		{"all is well", "", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			id, token := b.token("LAP")
			m := b.machine(token)
			m.stop, b.fails = c.stop, c.fails
			err := m.enroll()
			b.fails = false
			if (err == nil) != (c.name == "all is well") {
				t.Fatal(err)
			}
			d, _, gerr := b.Inventory.Get(t.Context(), id)
			if gerr != nil || d.Enrolled() != c.enrolled {
				t.Fatalf("enrolled %v, %v", d.Enrolled(), gerr)
			}
			if _, _, terr := b.Inventory.Token(t.Context(), token); fault.Because(terr, "invalid_device_token") != c.enrolled {
				t.Fatalf("the token: %v", terr)
			}
			spent := 0
			for _, ev := range b.events {
				if ev.Kind == event.DeviceTokenSpent {
					spent++
				}
			}
			if (spent == 1) != c.enrolled {
				t.Fatalf("%d tokens spent by the log", spent)
			}
			if ev := b.last(); err != nil && (ev.Kind != event.DeviceEnroll || ev.Success || ev.User != "alice") {
				t.Fatalf("recorded %+v", ev)
			}
			if !c.enrolled { // and so it can be tried again
				if err := b.machine(token).enroll(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// TestLockedWhileEnrolling takes the user's standing away between the first message and the proof.
func TestLockedWhileEnrolling(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *bench)
		reason string
	}{
		{"locked", func(b *bench) { b.write(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}) }, "locked"},
		{"what was issued before", func(b *bench) {
			b.write(&lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: time.Now()})
		}, "locked"},
		{"removed", func(b *bench) {
			if _, err := b.store.Txn(b.t.Context(), []store.Op{records.Delete(manifest.User, "alice")}); err != nil {
				b.t.Error(err)
			}
		}, "changed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			id, token := b.token("LAP")
			m := b.machine(token)
			m.before = func() { c.change(b) }
			because(t, m.enroll(), c.reason)
			if d, _, err := b.Inventory.Get(t.Context(), id); err != nil || d.Enrolled() {
				t.Fatalf("enrolled %v, %v", d.Enrolled(), err)
			}
			if ev := b.last(); ev.Kind != event.DeviceEnroll || ev.Success || ev.Session.Reason != c.reason {
				t.Fatalf("recorded %+v", ev)
			}
		})
	}
}

// TestA7Replay says what another enrollment said, and proves a key for another session key.
func TestA7Replay(t *testing.T) {
	b := newBench(t)
	_, token := b.token("LAP")
	first := b.machine(token)
	if err := first.enroll(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Unenroll(t.Context(), admin, Ref{Tag: "LAP"}); err != nil {
		t.Fatal(err)
	}
	fresh := func() string {
		token, _, _, err := b.Token(t.Context(), admin, Ref{Tag: "LAP"}, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	for _, c := range []struct {
		name   string
		replay func(m *machine)
	}{
		{"hello and proof", func(m *machine) { m.replay = first.sent }},
		{"proof", func(m *machine) { m.replay = [][]byte{nil, first.sent[1]} }},
		{"hello twice", func(m *machine) { m.replay = [][]byte{nil, first.sent[0]} }},
		{"nothing", func(m *machine) { m.replay = [][]byte{nil, {}} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := b.machine(fresh())
			c.replay(m)
			if err := m.enroll(); err == nil {
				t.Fatal("it enrolled")
			}
			if ev := b.last(); ev.Kind != event.DeviceEnroll || ev.Success || ev.Session.Reason == "" {
				t.Fatalf("recorded %+v", ev)
			}
		})
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.machine(fresh()).enrollAs(key.Public()); err == nil {
		t.Fatal("a proof for another session key")
	}
	if err := b.machine(fresh()).enroll(); err != nil {
		t.Fatalf("unenrolled and enrolled again: %v", err)
	}
}

// TestMovedDevice renames an enrolled device: what was issued under the old name ends, and the device logs in again.
func TestMovedDevice(t *testing.T) {
	b := newBench(t)
	id, token := b.token("LAP")
	if err := b.machine(token).enroll(); err != nil {
		t.Fatal(err)
	}
	before, revision, err := b.Inventory.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	after := *before
	after.AssetTag = "OTHER"
	if _, err := b.Change(t.Context(), admin, before, &after, revision); err != nil {
		t.Fatal(err)
	}
	locks, err := lockList(t, b)
	if err != nil || len(locks) != 1 || locks[0].IssuedBefore.IsZero() || locks[0].Target.DeviceCredential != before.Credentials[0].ID {
		t.Fatalf("locks %+v, %v", locks, err)
	}
	if _, err := b.Unenroll(t.Context(), admin, Ref{ID: id}); err != nil {
		t.Fatal(err)
	}
	locks, err = lockList(t, b)
	if err != nil || len(locks) != 2 || !(locks[0].IssuedBefore.IsZero() || locks[1].IssuedBefore.IsZero()) {
		t.Fatalf("locks %+v, %v", locks, err)
	}
}

func lockList(t *testing.T, b *bench) ([]lock.Lock, error) {
	t.Helper()
	set, err := b.Records.Locks(t.Context())
	var out []lock.Lock
	for l := range set.All() {
		out = append(out, *l)
	}
	return out, err
}
