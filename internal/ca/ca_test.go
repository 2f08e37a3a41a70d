package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"math/big"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

// log is an audit log that can fail.
type log struct {
	store  *sqlite.Store
	fails  error
	events []event.Event
}

func (l *log) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	if l.fails != nil {
		return 0, l.fails
	}
	if len(ops) > 0 {
		if _, err := l.store.Txn(ctx, ops); err != nil {
			return 0, err
		}
	}
	l.events = append(l.events, ev)
	return 0, nil
}

func newCA(t *testing.T) (*CA, *log) {
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
	l := &log{store: s}
	return New(keys, "example.com", l, time.Now), l
}

func p256(t *testing.T) crypto.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func request(t *testing.T) UserRequest {
	return UserRequest{Key: p256(t), Logins: []string{"root"}, Identity: identity.User{Name: "alice", Kind: identity.Human, Roles: []string{"access"},
		KeyPolicy: identity.KeyAnywhere, LoginIP: netip.MustParseAddr("203.0.113.7"), Validity: identity.Validity{Expires: time.Now().Add(time.Hour)}}}
}

// TestPrepareUserRefuses names, beside each request, what is bad in it.
func TestPrepareUserRefuses(t *testing.T) {
	c, l := newCA(t)
	if _, err := c.PrepareUser(request(t)); err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	modulus := new(big.Int).SetBit(big.NewInt(1), 1023, 1)
	large := new(big.Int).SetBit(big.NewInt(1), 2047, 1)
	for name, spoil := range map[string]func(r *UserRequest){
		"over-long":            func(r *UserRequest) { r.Identity.Validity.Expires = time.Now().Add(identity.MaxLifetime + time.Minute) },
		"over already":         func(r *UserRequest) { r.Identity.Validity.Expires = time.Now() },
		"no key":               func(r *UserRequest) { r.Key = nil },
		"RSA of 1024 bits":     func(r *UserRequest) { r.Key = &rsa.PublicKey{N: modulus, E: 65537} },
		"RSA with exponent 3":  func(r *UserRequest) { r.Key = &rsa.PublicKey{N: large, E: 3} },
		"P-384":                func(r *UserRequest) { r.Key = p384.Public() },
		"half an Ed25519 key":  func(r *UserRequest) { r.Key = ed25519.PublicKey(make([]byte, 16)) },
		"a login with a comma": func(r *UserRequest) { r.Logins = []string{"a,b"} },
		"a login with a NUL":   func(r *UserRequest) { r.Logins = []string{"a\x00"} },
		"a look-alike login":   func(r *UserRequest) { r.Logins = []string{"rооt"} },
		"an empty login":       func(r *UserRequest) { r.Logins = []string{""} },
		"a name with a space":  func(r *UserRequest) { r.Identity.Name = "a b" },
		"no name":              func(r *UserRequest) { r.Identity.Name = "" },
		"half a device":        func(r *UserRequest) { r.Identity.Device = &identity.Device{ID: uuid.NewString()} },
	} {
		r := request(t)
		spoil(&r)
		if _, err := c.PrepareUser(r); err == nil {
			t.Errorf("%s: prepared", name)
		}
	}
	if len(l.events) != 0 {
		t.Errorf("recorded %+v", l.events)
	}
}

func TestPrepareHostRefuses(t *testing.T) {
	c, _ := newCA(t)
	good := func() HostRequest {
		return HostRequest{Host: identity.Host{ID: uuid.NewString(), Role: identity.RoleProxy}, TLSKey: p256(t), PublicAddr: []string{"proxy.example.org:3080", "[::1]:3080"}}
	}
	if _, err := c.PrepareHost(good()); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(r *HostRequest){
		"auth's name":        func(r *HostRequest) { r.PublicAddr = []string{"AUTH.example.com:3080"} },
		"the proxy's":        func(r *HostRequest) { r.PublicAddr = []string{"proxy.example.com:1"} },
		"a database's":       func(r *HostRequest) { r.PublicAddr = []string{"orders.db.example.com:1"} },
		"an application's":   func(r *HostRequest) { r.PublicAddr = []string{"x.app.Example.com"} },
		"no key":             func(r *HostRequest) { r.TLSKey = nil },
		"a name with spaces": func(r *HostRequest) { r.Host.Role, r.Host.Name = identity.RoleNode, "a b" },
		"a public pattern":   func(r *HostRequest) { r.PublicAddr = []string{"*.example.com:3080"} },
		"a pattern":          func(r *HostRequest) { r.Host.Role, r.Host.Name = identity.RoleNode, "*" },
		"half a pattern":     func(r *HostRequest) { r.Host.Role, r.Host.Name = identity.RoleNode, "we?" },
		"no id":              func(r *HostRequest) { r.Host.ID = "" },
		"an unknown role":    func(r *HostRequest) { r.Host.Role = "king" },
	} {
		r := good()
		spoil(&r)
		if _, err := c.PrepareHost(r); err == nil {
			t.Errorf("%s: prepared", name)
		}
	}
}

// TestNothingUnrecorded fails the log, and the condition of an issue.
func TestNothingUnrecorded(t *testing.T) {
	c, l := newCA(t)
	full := errors.New("disk full")
	prepared, err := c.PrepareUser(request(t))
	if err != nil {
		t.Fatal(err)
	}
	host, err := c.PrepareHost(HostRequest{Host: identity.Host{ID: uuid.NewString(), Role: identity.RoleNode}, TLSKey: p256(t)})
	if err != nil {
		t.Fatal(err)
	}
	l.fails = full
	if out, err := prepared.Issue(t.Context()); !errors.Is(err, full) || out.SSH != nil || out.TLS != nil || out.DialTicket != "" {
		t.Fatalf("%+v %v", out, err)
	}
	if out, err := host.Issue(t.Context()); !errors.Is(err, full) || out.TLS != nil {
		t.Fatalf("%+v %v", out, err)
	}
	l.fails = nil
	r := request(t)
	r.Given = []store.Op{store.CheckRevision("user/alice", 7)}
	if prepared, err = c.PrepareUser(r); err != nil {
		t.Fatal(err)
	}
	if out, err := prepared.Issue(t.Context()); !errors.Is(err, store.ErrConflict) || out.SSH != nil || out.TLS != nil {
		t.Fatalf("%+v %v", out, err)
	}
}

func TestCertificates(t *testing.T) {
	c, _ := newCA(t)
	serials := map[string]bool{}
	for range 8 {
		r := request(t)
		r.Logins = nil
		p, err := c.PrepareUser(r)
		if err != nil {
			t.Fatal(err)
		}
		out, err := p.Issue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(out.TLS)
		if err != nil {
			t.Fatal(err)
		}
		serials[leaf.SerialNumber.String()] = true
		if len(out.SSH.ValidPrincipals) != 1 || !strings.HasPrefix(out.SSH.ValidPrincipals[0], "-sallyport-nologin-") {
			t.Fatalf("principals %v", out.SSH.ValidPrincipals)
		}
		if leaf.IsCA || out.SSH.CertType != ssh.UserCert || leaf.NotBefore.After(time.Now().Add(-time.Minute)) {
			t.Fatalf("%+v", leaf)
		}
	}
	if len(serials) != 8 {
		t.Fatalf("%d serials of 8", len(serials))
	}
}

// TestA10ProxyIsNoNode has a proxy say that people type a node's name for it: what it gets is signed by an authority
// that nobody trusts for nodes.
func TestA10ProxyIsNoNode(t *testing.T) {
	c, _ := newCA(t)
	public, err := c.Public(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(p256(t))
	if err != nil {
		t.Fatal(err)
	}
	for role, want := range map[identity.HostRole]ssh.PublicKey{identity.RoleProxy: public.SSHJump, identity.RoleNode: public.SSHHost} {
		p, err := c.PrepareHost(HostRequest{Host: identity.Host{ID: uuid.NewString(), Role: role}, TLSKey: p256(t), SSHKey: key, PublicAddr: []string{"web:3080"}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := p.Issue(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if string(got.SSH.SignatureKey.Marshal()) != string(want.Marshal()) {
			t.Errorf("a %s's certificate is by another authority", role)
		}
	}
	if string(public.SSHJump.Marshal()) == string(public.SSHHost.Marshal()) {
		t.Error("one authority for both")
	}
}
