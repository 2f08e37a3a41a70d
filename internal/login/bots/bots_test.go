package bots

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

var (
	home = netip.MustParseAddr("203.0.113.7")
	away = netip.MustParseAddr("198.51.100.9")
)

// bench is the use case over a real store; its machine signs with key.
type bench struct {
	*Service
	login.Conversation
	t      *testing.T
	store  *sqlite.Store
	pin    []byte
	key    *ecdsa.PrivateKey // of the machine
	own    *ecdsa.PrivateKey // of the session
	mirror *snapshot.Mirror
	offer  Offer
	device string // what the machine's device proves to be
	events []event.Event
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func spki(t *testing.T, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	out, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func newBench(t *testing.T) *bench {
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
	b := &bench{t: t, store: s, key: newKey(t), own: newKey(t), mirror: snapshot.NewMirror(func() time.Duration { return 0 })}
	settings := cluster.Default()
	b.mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: []*manifest.Resource{manifest.New(&settings, 0),
		manifest.New(&lock.Lock{Name: "l", Target: lock.Target{User: "stopped"}, Message: "secret reason"}, 0)}})
	people := &login.Service{Records: records.New(s), CA: ca.New(keys, "example.com", b, time.Now), Audit: b, Pictures: b.mirror,
		Passwords: login.NewPasswords(), Throttle: login.NewThrottle(time.Now), Now: time.Now}
	if b.pin, err = people.ClusterCA(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.Service = &Service{People: people, Devices: b}
	return b
}

// Record commits as the audit log does.
func (b *bench) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	b.events = append(b.events, ev)
	if len(ops) == 0 {
		return 0, nil
	}
	return b.store.Txn(ctx, ops)
}

func (b *bench) Machine(context.Context, bool) (Offer, error) { return b.offer, nil }

func (b *bench) Sign(_ context.Context, nonce []byte) ([]byte, []byte, error) {
	public := spki(b.t, b.key)
	digest := ceremony.Binding{Purpose: ceremony.Login, ClusterCA: b.pin, User: b.user(), SessionKey: spki(b.t, b.own)}.BotDigest(public, nonce)
	signature, err := ecdsa.SignASN1(rand.Reader, b.key, digest[:])
	return public, signature, err
}

func (b *bench) user() string { return b.t.Name()[len("TestNothingIsToldBeforeTheProof/"):] }

func (b *bench) Authenticate(context.Context, ceremony.Binding, []byte, login.Conversation) (*identity.Device, []string, error) {
	return &identity.Device{ID: b.device, AssetTag: "RUNNER1", CredentialID: "c1", Level: device.LevelTPMPub, OS: device.Linux}, nil, nil
}

func (b *bench) EnrollBot(context.Context, Enrollment, login.Conversation) (*identity.Device, error) {
	return nil, errors.New("nothing is to be enrolled")
}

// account makes a bot, bound to a machine where one is given.
func (b *bench) account(a identity.Account, m *records.Machine) {
	b.t.Helper()
	op, err := records.Put(manifest.New(&a, 0))
	if err != nil {
		b.t.Fatal(err)
	}
	ops := []store.Op{op}
	if m != nil {
		put, err := records.PutSecret(a.Name, records.Secret{Machine: m}, 0)
		if err != nil {
			b.t.Fatal(err)
		}
		ops = append(ops, put...)
	}
	if _, err := b.store.Txn(b.t.Context(), ops); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) try(from netip.Addr, token string) error {
	_, err := b.Login(b.t.Context(), identity.Caller{Addr: from}, login.Start{User: b.user(), Token: token, Key: b.own.Public()}, b)
	return err
}

// TestNothingIsToldBeforeTheProof: who has proven nothing hears one sentence, counted against them, whatever is behind
// the name; the log has the reason; and who proves to be the bot hears it.
func TestNothingIsToldBeforeTheProof(t *testing.T) {
	bot := func(name string, addresses ...string) identity.Account {
		return identity.Account{Name: name, Kind: identity.Bot, Addresses: addresses}
	}
	locked := bot("locked", "203.0.113.0/24")
	locked.Status.IsLocked = true
	human := bot("human")
	human.Kind, human.Status.IsLocked = identity.Human, true
	for _, c := range []struct {
		account *identity.Account // nil: there is none; its name is the user's
		name    string
		bound   string // "key", "device", ""
		from    netip.Addr
		reason  string // recorded of a stranger
		proven  string // told to the bot; "" where nothing is wrong with it, "-" where it cannot prove anything
	}{
		{nil, "nobody", "", home, "not_found", "-"},
		{&human, "human", "", home, "bad_bot", "-"},
		{new(bot("fresh", "203.0.113.0/24")), "fresh", "", home, "bad_bot", ""},
		{new(bot("fresh-away", "203.0.113.0/24")), "fresh-away", "", away, "bad_bot", "bot_address"},
		{&locked, "locked", "key", home, "bot_other_machine", "user_locked"},
		{new(bot("stopped", "203.0.113.0/24")), "stopped", "key", home, "bot_other_machine", "locked"},
		{new(bot("ranged", "203.0.113.0/24")), "ranged", "key", away, "bot_other_machine", "bot_address"},
		{new(bot("nowhere")), "nowhere", "key", home, "bot_other_machine", "bot_needs_address"},
		{new(bot("good", "203.0.113.0/24")), "good", "key", home, "bot_other_machine", ""},
		{new(bot("tpm")), "tpm", "device", home, "bot_no_proof", ""},
		{new(bot("tpm-away", "203.0.113.0/24")), "tpm-away", "device", away, "bot_no_proof", "bot_address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t)
			var m *records.Machine
			switch c.bound {
			case "key":
				m = &records.Machine{Key: spki(t, b.key)}
			case "device":
				m = &records.Machine{Device: "d1"}
			}
			if c.account != nil {
				b.account(*c.account, m)
			}
			own := b.key
			b.key = newKey(t)
			for i := range 3 {
				err := b.try(c.from, "")
				if f := fault.Of(err); f.Error() != badBot().Error() || f.Reason != "bad_bot" || f.Fix != badBot().Fix {
					t.Fatalf("attempt %d: told %v", i, err)
				}
				last := b.events[len(b.events)-1]
				if last.Kind != event.UserLogin || last.Success || last.Session.Reason != c.reason {
					t.Fatalf("recorded %+v %+v, want %s", last, last.Session, c.reason)
				}
			}
			if err := b.try(c.from, ""); !fault.Because(err, "throttled") {
				t.Fatalf("a fourth guess: %v", err)
			}
			if c.proven == "-" {
				return
			}
			b.People.Throttle = login.NewThrottle(time.Now)
			b.key, b.offer, b.device = own, Offer{Hello: []byte("hello")}, "d1"
			token := ""
			if c.bound == "" {
				token, b.offer = records.NewToken(), Offer{}
				op, err := records.PutInvite(token, records.Invite{User: c.name, Expires: time.Now().Add(time.Hour), Bot: true})
				if err != nil {
					t.Fatal(err)
				}
				if _, err := b.store.Txn(t.Context(), []store.Op{op}); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.try(c.from, token); c.proven != "" && !fault.Because(err, c.proven) || c.proven == "" && err != nil {
				t.Fatalf("proven: %v, want %q", err, c.proven)
			}
		})
	}
}
