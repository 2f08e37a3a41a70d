package login

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

const password = "correct horse battery"

var home = netip.MustParseAddr("203.0.113.7")

// bench is the use case over a real store; its picture moves only when a test says so.
type bench struct {
	*Service
	t     *testing.T
	store *sqlite.Store
	key   *ecdsa.PrivateKey

	mu     sync.Mutex
	events []event.Event // guarded by mu
}

func newBench(t *testing.T, settings cluster.Settings) *bench {
	t.Helper()
	dir := t.TempDir()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(dir, "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	keys, err := keystore.Open(t.Context(), s, filepath.Join(dir, "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, store: s}
	if b.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	mirror := snapshot.NewMirror(func() time.Duration { return 0 })
	mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: []*manifest.Resource{manifest.New(&settings, 0),
		manifest.New(&role.Role{Name: "access", Allow: role.Conditions{Logins: []string{"{{internal.logins}}"}}}, 0),
		manifest.New(&role.Role{Name: "short", Options: role.Options{MaxSessionTTL: role.Duration(time.Hour), PinSourceIP: true}}, 0)}})
	b.Service = &Service{Records: records.New(s), CA: ca.New(keys, "example.com", b, time.Now), Audit: b, Pictures: mirror, Devices: noDevices{},
		Passwords: NewPasswords(), Throttle: NewThrottle(time.Now), Now: time.Now}
	return b
}

func passwordAlone() cluster.Settings {
	s := cluster.Default()
	s.SecondFactors = []string{}
	return s
}

// Record commits as the audit log does.
func (b *bench) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(ops) == 0 {
		b.events = append(b.events, ev)
		return 0, nil
	}
	revision, err := b.store.Txn(ctx, ops)
	if err == nil {
		b.events = append(b.events, ev)
	}
	return revision, err
}

// recorded are the events of a kind so far.
func (b *bench) recorded(kind event.Kind) []event.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []event.Event
	for _, ev := range b.events {
		if ev.Kind == kind {
			out = append(out, ev)
		}
	}
	return out
}

func (b *bench) put(ops ...store.Op) {
	b.t.Helper()
	if _, err := b.store.Txn(b.t.Context(), ops); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) write(spec any) {
	b.t.Helper()
	op, err := records.Put(manifest.New(spec, 0))
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(op)
}

// user makes a user with the password, and a one-time-code secret where one is given.
func (b *bench) user(a identity.Account, otp []byte) {
	b.t.Helper()
	hash, err := b.Passwords.Hash(b.t.Context(), password)
	if err != nil {
		b.t.Fatal(err)
	}
	ops, err := records.PutSecret(a.Name, records.Secret{Password: hash, OTP: otp}, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(ops...)
	b.write(&a)
}

func alice(roles ...string) identity.Account {
	return identity.Account{Name: "alice", Kind: identity.Human, Roles: roles, Traits: map[string][]string{"logins": {"root"}}}
}

// talk answers prompts; before is called when the device is asked for.
type talk struct {
	password string
	code     func() string
	newCode  func(url string) string
	before   func()
	hello    []byte
	refused  *fault.Error
}

func (c *talk) Ask(_ context.Context, p Prompt) (string, error) {
	switch p.Kind {
	case AskPassword, AskNewPassword:
		return c.password, nil
	case AskOTP:
		return c.code(), nil
	case AskNewOTP:
		return c.newCode(p.URL), nil
	}
	return "", errors.New("unknown prompt")
}

func (c *talk) Hello(context.Context, string) ([]byte, string, error) {
	if c.before != nil {
		c.before()
	}
	return c.hello, "none", nil
}

func (c *talk) Exchange(context.Context, []byte) ([]byte, error) {
	return nil, errors.New("nobody there")
}
func (c *talk) Receive(context.Context) ([]byte, error) {
	return nil, errors.New("nobody there")
}
func (c *talk) Send(context.Context, []byte) error { return nil }
func (c *talk) Refuse(_ context.Context, f *fault.Error) error {
	c.refused = f
	return nil
}

type noDevices struct{}

func (noDevices) Authenticate(context.Context, ceremony.Binding, []byte, Conversation) (*identity.Device, []string, error) {
	return nil, nil, fault.New(fault.Denied, "unauthorized device").WithReason("unknown_device_credential")
}

func (b *bench) login(c *talk) (Result, error) {
	return b.Login(b.t.Context(), identity.Caller{Addr: home}, Start{User: "alice", Key: b.key.Public()}, c)
}

// because fails the test unless err is a fault with the reason.
func because(t *testing.T, err error, reason string) {
	t.Helper()
	if !fault.Because(err, reason) {
		t.Fatalf("got %v, want reason %q", err, reason)
	}
}
