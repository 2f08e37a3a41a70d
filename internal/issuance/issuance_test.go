package issuance

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
	"github.com/sallyport/sallyport/internal/target"
)

// log is an audit log for the tests.
type log struct {
	store store.Store
	mu    sync.Mutex
	all   []event.Event
}

func (l *log) Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, ev)
	if len(ops) == 0 {
		return 0, nil
	}
	return l.store.Txn(ctx, ops)
}

type pictures struct{ *snapshot.Picture }

func (p pictures) Current() (*snapshot.Picture, time.Duration) { return p.Picture, 0 }

type fixture struct {
	*Service
	t       *testing.T
	log     *log
	picture *snapshot.Picture
	public  ca.Public
}

func open(t *testing.T) *fixture {
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
	f := &fixture{t: t, log: &log{store: s}, picture: &snapshot.Picture{}}
	authority := ca.New(keys, "example.com", f.log, time.Now)
	f.Service = &Service{Records: records.New(s), Store: s, CA: authority, Pictures: pictures{f.picture}}
	if f.public, err = authority.Public(t.Context()); err != nil {
		t.Fatal(err)
	}
	return f
}

func agent(name string) identity.Host {
	return identity.Host{ID: uuid.NewString(), Role: identity.RoleDB, Name: name, Cluster: "example.com"}
}

func key(t *testing.T) crypto.PublicKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k.Public()
}

func (f *fixture) certify(h identity.Host, names ...string) (Served, *x509.Certificate) {
	f.t.Helper()
	out, err := f.Certify(f.t.Context(), h, key(f.t), names)
	if err != nil {
		f.t.Fatal(err)
	}
	c, err := x509.ParseCertificate(out.TLS)
	if err != nil {
		f.t.Fatal(err)
	}
	return out, c
}

// TestA13Names: a name is its first agent's until that is removed; others get it by a token that names them alike, or
// where an administrator created the resource for them.
func TestA13Names(t *testing.T) {
	f := open(t)
	first, other := agent("a"), agent("b")
	out, cert := f.certify(first, "orders", "Old_DB")
	if !slices.Equal(out.Names, []string{"orders", "Old_DB"}) || len(out.Refused) != 0 {
		t.Fatalf("%+v", out)
	}
	roots := x509.NewCertPool()
	roots.AddCert(f.public.TLSHost)
	for _, name := range []string{"orders.db.example.com", target.SNIName("Old_DB") + ".db.example.com", first.ID + ".db.example.com"} {
		if _, err := cert.Verify(x509.VerifyOptions{DNSName: name, Roots: roots}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it is a client's certificate too")
	}
	if life := time.Until(cert.NotAfter); life > ca.ServedLife {
		t.Errorf("it lives %s", life)
	}
	out, cert = f.certify(other, "orders", "mine")
	if !slices.Equal(out.Names, []string{"mine"}) || !strings.Contains(out.Refused["orders"], first.ID) {
		t.Errorf("%+v", out)
	}
	if slices.Contains(cert.DNSNames, "orders.db.example.com") {
		t.Error("another's name is certified")
	}
	twin := agent("a") // only a token gives one name to several
	if out, _ = f.certify(twin, "orders"); len(out.Refused) != 0 {
		t.Errorf("%+v", out)
	}
	nameless, nameless2 := agent(""), agent("")
	f.certify(nameless, "x")
	if out, _ = f.certify(nameless2, "x"); len(out.Refused) != 1 {
		t.Error("two without a name share one")
	}
	// Removed, it frees its names, and those alone.
	ops, err := f.Records.FreeNames(t.Context(), first.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Store.Txn(t.Context(), ops); err != nil {
		t.Fatal(err)
	}
	if out, _ = f.certify(other, "orders", "x"); !slices.Equal(out.Names, []string{"orders"}) {
		t.Errorf("%+v", out)
	}
	// What was created belongs to its agents, whoever served the name before.
	f.picture.Databases = map[string]*target.DatabaseServer{"orders": {Name: "orders", Agents: []string{twin.ID}}, "free": {Name: "free"}}
	if out, _ = f.certify(other, "orders", "free"); !slices.Equal(out.Names, []string{"free"}) {
		t.Errorf("%+v", out)
	}
	if out, _ = f.certify(twin, "orders", "free"); len(out.Refused) != 0 {
		t.Errorf("%+v", out)
	}
}

func TestNamesRefused(t *testing.T) {
	f := open(t)
	many := make([]string, target.MaxServed+1)
	for i := range many {
		many[i] = uuid.NewString()
	}
	for name, names := range map[string][]string{"empty": {""}, "a slash": {"a/b"}, "a space": {"a b"}, "a comma": {"a,b"}, "look-alikes": {"оrders"}, "NUL": {"a\x00"}, "twice": {"a", "a"}, "too many": many, "long": {strings.Repeat("x", 129)}} {
		if _, err := f.Certify(t.Context(), agent("a"), key(t), names); !fault.Because(err, "served_names") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, role := range []identity.HostRole{identity.RoleNode, identity.RoleProxy, identity.RoleAuth} {
		h := agent("a")
		h.Role = role
		if _, err := f.Certify(t.Context(), h, key(t), []string{"orders"}); err == nil {
			t.Errorf("a %s serves", role)
		}
	}
}

// TestA63DatabaseCertificates: an agent is a user of the databases that it serves, for five minutes, and each database has
// an authority of its own.
func TestA63DatabaseCertificates(t *testing.T) {
	f := open(t)
	h, other := agent("a"), agent("b")
	f.certify(h, "orders")
	f.certify(other, "secrets")
	issue := func(h identity.Host, db, user string) (ca.DatabaseCertificate, error) {
		return f.DatabaseClient(t.Context(), h, ca.DatabaseRequest{Database: db, DBUser: user, Key: key(t), Hosts: []string{"evil"}, Life: time.Hour})
	}
	got, err := issue(h, "orders", "alice")
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(got.TLS)
	own, _ := x509.ParseCertificate(got.Authority)
	verify := func(ca *x509.Certificate) error {
		pool := x509.NewCertPool()
		pool.AddCert(ca)
		_, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		return err
	}
	if verify(own) != nil || cert.Subject.CommonName != "alice" || len(cert.DNSNames) != 0 || time.Until(cert.NotAfter) > ca.DatabaseClientLife {
		t.Errorf("%v %v %s", cert.Subject, cert.DNSNames, time.Until(cert.NotAfter))
	}
	secrets, err := issue(other, "secrets", "alice")
	if err != nil {
		t.Fatal(err)
	}
	foreign, _ := x509.ParseCertificate(secrets.Authority)
	for name, ca := range map[string]*x509.Certificate{"another database's authority": foreign, "the users'": f.public.TLSUser, "the hosts'": f.public.TLSHost} {
		if verify(ca) == nil {
			t.Errorf("%s vouches for it", name)
		}
	}
	for name, err := range map[string]error{
		"another agent's database": second(issue(h, "secrets", "alice")), "nobody's": second(issue(h, "nosuch", "alice")),
		"no user": second(issue(h, "orders", "")), "two users": second(issue(h, "orders", "alice,bob")), "NUL": second(issue(h, "orders", "al\x00ice")),
		"a node": second(issue(identity.Host{ID: h.ID, Name: h.Name, Role: identity.RoleNode, Cluster: h.Cluster}, "orders", "alice")),
	} {
		if err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	last := f.log.all[len(f.log.all)-1]
	if last.Kind != event.CertCreate || last.Resource.ResourceName != "secrets" || last.Action.DBUser != "alice" || last.User != "host:"+other.ID {
		t.Errorf("%+v", last)
	}
}

func second[T any](_ T, err error) error { return err }

// TestDatabaseServer certifies the server under its hosts, and nothing without one.
func TestDatabaseServer(t *testing.T) {
	f := open(t)
	admin := identity.Caller{Local: true}
	if _, err := f.DatabaseServer(t.Context(), admin, ca.DatabaseRequest{Database: "orders", Key: key(t), Hosts: []string{""}}); !fault.Because(err, "no_host") {
		t.Error(err)
	}
	got, err := f.DatabaseServer(t.Context(), admin, ca.DatabaseRequest{Database: "orders", DBUser: "alice", Key: key(t), Hosts: []string{"db.internal", "10.0.0.5"}, Life: 1e6 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(got.TLS)
	own, _ := x509.ParseCertificate(got.Authority)
	pool := x509.NewCertPool()
	pool.AddCert(own)
	for _, host := range []string{"db.internal", "10.0.0.5"} {
		if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
			t.Error(err)
		}
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err == nil {
		t.Error("it is a client's too")
	}
	if life := time.Until(cert.NotAfter); life > ca.DatabaseServerLongest {
		t.Errorf("it lives %s", life)
	}
	for _, bad := range []string{"a b", "db\x00", "*.inter nal"} {
		if _, err := f.DatabaseServer(t.Context(), admin, ca.DatabaseRequest{Database: "orders", Key: key(t), Hosts: []string{bad}}); err == nil {
			t.Errorf("%q is certified", bad)
		}
	}
}
