package entry

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/client/authority"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// ca is an authority of the test's own.
type ca struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newCA(t *testing.T) *ca {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{t: t, key: key}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	c.cert = tmpl
	c.cert = c.sign(tmpl, key.Public())
	return c
}

func (c *ca) sign(tmpl *x509.Certificate, key crypto.PublicKey) *x509.Certificate {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, tmpl, c.cert, key, c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// leaf makes a certificate over a new key; edit says of what.
func (c *ca) leaf(edit func(*x509.Certificate) error) tls.Certificate {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true}
	if err := edit(tmpl); err != nil {
		c.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{c.sign(tmpl, key.Public()).Raw}, PrivateKey: key}
}

func (c *ca) user(name, cluster string) tls.Certificate {
	return c.leaf(func(t *x509.Certificate) error {
		u := &identity.User{Name: name, Cluster: cluster, Kind: identity.Human, KeyPolicy: identity.KeyAnywhere, Validity: identity.Validity{IssuedAt: time.Now(), Expires: t.NotAfter}}
		return u.X509(t)
	})
}

// pictures is one picture.
type pictures struct{ *snapshot.Picture }

func (p pictures) Current() (*snapshot.Picture, time.Duration) { return p.Picture, 0 }

// place is an entry behind a listener, with what it hands on.
type place struct {
	t     *testing.T
	users *ca
	hosts *ca
	addr  string
	visit chan Visit
	entry *Entry
	stop  context.CancelFunc
}

func newPlace(t *testing.T) *place {
	t.Helper()
	p := &place{t: t, users: newCA(t), hosts: newCA(t), visit: make(chan Visit, 2000)}
	server := p.hosts.leaf(func(c *x509.Certificate) error { c.DNSNames = []string{"orders.db.example.com"}; return nil })
	e, err := New(Config{Cluster: "example.com", Pictures: pictures{&snapshot.Picture{Authorities: snapshot.Authorities{TLSUser: []*x509.Certificate{p.users.cert}}}},
		Certificate: func() *tls.Certificate { return &server }, Protocols: []string{"postgresql"}, Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Resource: func(sni string) (string, bool) { return "orders", sni == "orders.db.example.com" },
		Handle: func(_ context.Context, v Visit) {
			defer v.Conn.Close()
			p.visit <- v
			_, _ = io.Copy(v.Conn, v.Conn)
		}})
	if err != nil {
		t.Fatal(err)
	}
	p.entry = e
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { e.Serve(ctx, c) })
		}
	})
	t.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return p
}

func (p *place) config(cert *tls.Certificate, edit func(*tls.Config)) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(p.hosts.cert)
	c := &tls.Config{RootCAs: roots, ServerName: "orders.db.example.com"}
	if cert != nil {
		c.Certificates = []tls.Certificate{*cert}
	}
	if edit != nil {
		edit(c)
	}
	return c
}

// says connects and has something echoed.
func (p *place) says(config *tls.Config) (*tls.Conn, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", p.addr, config)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		return nil, err
	}
	_, err = io.ReadFull(c, make([]byte, 1))
	return c, err
}

// TestWho lets in users of this cluster by their certificates, and nobody else.
func TestWho(t *testing.T) {
	p := newPlace(t)
	alice := p.users.user("alice", "example.com")
	if _, err := p.says(p.config(&alice, nil)); err != nil {
		t.Fatal(err)
	}
	if v := <-p.visit; v.User.Name != "alice" || v.Resource != "orders" || v.From != netip.MustParseAddr("127.0.0.1") {
		t.Fatalf("%+v", v)
	}
	other := newCA(t)
	foreign, stranger := p.users.user("alice", "other.org"), other.user("alice", "example.com")
	host := p.hosts.leaf(func(c *x509.Certificate) error {
		return identity.Host{ID: uuid.NewString(), Role: identity.RoleDB, Cluster: "example.com"}.X509(c)
	})
	plain := p.users.leaf(func(c *x509.Certificate) error { c.Subject.CommonName = "alice"; return nil })
	asCA := p.users.leaf(func(c *x509.Certificate) error {
		c.IsCA, c.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
		u := &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, KeyPolicy: identity.KeyAnywhere, Validity: identity.Validity{IssuedAt: c.NotBefore, Expires: c.NotAfter}}
		return u.X509(c)
	})
	over := p.users.leaf(func(c *x509.Certificate) error {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Minute)
		u := &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, KeyPolicy: identity.KeyAnywhere, Validity: identity.Validity{IssuedAt: c.NotBefore, Expires: c.NotAfter}}
		return u.X509(c)
	})
	server := p.users.leaf(func(c *x509.Certificate) error {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		u := &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, KeyPolicy: identity.KeyAnywhere, Validity: identity.Validity{IssuedAt: c.NotBefore, Expires: c.NotAfter}}
		return u.X509(c)
	})
	stolen := tls.Certificate{Certificate: alice.Certificate, PrivateKey: stranger.PrivateKey}
	for name, config := range map[string]*tls.Config{
		"A20 an authority":                       p.config(&asCA, nil),
		"A21 a host":                             p.config(&host, nil),
		"A22 another cluster's authority":        p.config(&stranger, nil),
		"A22 our authority for another cluster":  p.config(&foreign, nil),
		"A23 another key than the certificate's": p.config(&stolen, nil),
		"A26 a certificate that is over":         p.config(&over, nil),
		"no certificate":                         p.config(nil, nil),
		"a certificate that says nobody":         p.config(&plain, nil),
		"a certificate for servers":              p.config(&server, nil),
		"A53 another resource":                   p.config(&alice, func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "cache.db.example.com", true }),
		"A53 another cluster":                    p.config(&alice, func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "orders.db.other.org", true }),
		"no name":                                p.config(&alice, func(c *tls.Config) { c.ServerName, c.InsecureSkipVerify = "", true }),
		"TLS 1.2":                                p.config(&alice, func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }),
		"another protocol":                       p.config(&alice, func(c *tls.Config) { c.NextProtos = []string{"h3"} }),
	} {
		if _, err := p.says(config); err == nil {
			t.Errorf("%s is let in", name)
		}
	}
	if len(p.visit) != 0 {
		t.Errorf("%d visits", len(p.visit))
	}
}

// TestA11NoTickets: a session ticket would let in a copy without any key.
func TestA11NoTickets(t *testing.T) {
	p := newPlace(t)
	alice := p.users.user("alice", "example.com")
	cache := tls.NewLRUClientSessionCache(4)
	for range 2 {
		c, err := p.says(p.config(&alice, func(c *tls.Config) { c.ClientSessionCache = cache }))
		if err != nil {
			t.Fatal(err)
		}
		if c.ConnectionState().DidResume {
			t.Fatal("a session was resumed")
		}
	}
	if _, ok := cache.Get("orders.db.example.com"); ok {
		t.Fatal("a ticket was given out")
	}
}

// TestStreams has one connection carry many visits, each with what its header says of it.
func TestStreams(t *testing.T) {
	p := newPlace(t)
	alice := p.users.user("alice", "example.com")
	c, err := tls.Dial("tcp", p.addr, p.config(&alice, func(c *tls.Config) { c.NextProtos = []string{tunnel.ALPNMux} }))
	if err != nil {
		t.Fatal(err)
	}
	mux, err := tunnel.Client(c)
	if err != nil {
		t.Fatal(err)
	}
	defer mux.Close()
	for range 20 {
		s, err := mux.Open(t.Context(), tunnel.Header{Client: netip.MustParseAddrPort("203.0.113.9:1"), Target: "cache", Door: tunnel.DoorDB, DBUser: "bob"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		// What a client says of its address and of the resource counts for nothing: TLS said that.
		if v := <-p.visit; v.Resource != "orders" || v.From != netip.MustParseAddr("127.0.0.1") || v.DBUser != "bob" {
			t.Fatalf("%+v", v)
		}
	}
	p.stop()
	select {
	case <-mux.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("the connection outlives its agent")
	}
}

// TestA30HalfOpen: connections that say nothing are bounded by address, and cost nobody else anything.
func TestA30HalfOpen(t *testing.T) {
	p := newPlace(t)
	var idle []net.Conn
	for range 3 * halfOpen {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		idle = append(idle, c)
	}
	_, _ = idle[0].Write(make([]byte, 128<<10)) // more than a handshake takes
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	time.AfterFunc(200*time.Millisecond, func() {
		for _, c := range idle {
			c.Close()
		}
	})
	alice := p.users.user("alice", "example.com")
	if _, err := p.says(p.config(&alice, nil)); err != nil {
		t.Fatal(err)
	}
}

// certifier is an auth of the test's own.
type certifier struct {
	ca      *ca
	host    identity.Host
	asked   atomic.Int32
	refuse  map[string]string
	life    time.Duration
	failing atomic.Bool
	free    atomic.Bool // nothing is refused any more
}

func (c *certifier) Served(_ context.Context, key crypto.PublicKey, names []string) (authority.Served, error) {
	c.asked.Add(1)
	if c.failing.Load() {
		return authority.Served{}, fault.New(fault.Unavailable, "away")
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(9), NotBefore: time.Now().Add(-time.Second), NotAfter: time.Now().Add(c.life)}
	out := authority.Served{Refused: map[string]string{}}
	for _, n := range names {
		if why := c.refuse[n]; why != "" && !c.free.Load() {
			out.Refused[n] = why
			continue
		}
		out.Names = append(out.Names, n)
		tmpl.DNSNames = append(tmpl.DNSNames, c.host.ServedDNSName(n))
	}
	out.TLS = c.ca.sign(tmpl, key).Raw
	return out, nil
}

// TestCatalog serves what auth allows, follows what is wanted, and ends visits of what is gone or is another now.
func TestCatalog(t *testing.T) {
	host := identity.Host{ID: uuid.NewString(), Role: identity.RoleDB, Cluster: "example.com"}
	cert := &certifier{ca: newCA(t), host: host, refuse: map[string]string{"taken": "held by another"}, life: time.Hour}
	var log bytes.Buffer
	c := NewCatalog(cert, host, slog.New(slog.NewTextHandler(&log, nil)))
	resource := func(name string, labels label.Set) Resource {
		return Resource{Served: target.Served{Name: name, Protocol: target.Redis, Labels: labels}, Spec: name}
	}
	var mu sync.Mutex
	wanted, changed := []Resource{resource("orders", nil), resource("Old DB"[:3]+"-DB", nil), resource("taken", nil)}, make(chan struct{})
	want := func(list ...Resource) {
		mu.Lock()
		defer mu.Unlock()
		wanted = list
		close(changed)
		changed = make(chan struct{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx, func() ([]Resource, <-chan struct{}) { mu.Lock(); defer mu.Unlock(); return wanted, changed }, func() { close(ready) })
	}()
	defer func() { cancel(); <-ended }()
	<-ready
	<-c.Changed()
	names := func() (out []string) {
		for _, s := range c.Serves() {
			out = append(out, s.Name)
		}
		return out
	}
	if got := names(); !slices.Equal(got, []string{"Old-DB", "orders"}) {
		t.Fatalf("serves %v", got)
	}
	for sni, name := range map[string]string{"orders.db.example.com": "orders", "ORDERS.db.example.com": "orders", target.SNIName("Old-DB") + ".db.example.com": "Old-DB",
		"taken.db.example.com": "", "orders.kube.example.com": "", "orders.db.other.org": "", "orders": "", "": ""} {
		if got, _ := c.Resource(sni); got != name {
			t.Errorf("%q is %q, not %q", sni, got, name)
		}
	}
	if _, _, _, ok := c.Open(ctx, "taken"); ok {
		t.Error("what auth refused is served")
	}
	_, stays, done, ok := c.Open(ctx, "orders")
	_, goes, done2, ok2 := c.Open(ctx, "Old-DB")
	if !ok || !ok2 {
		t.Fatal("not served")
	}
	defer done()
	defer done2()
	want(resource("orders", nil))
	<-c.Changed()
	<-goes.Done()
	if !fault.Because(context.Cause(goes), "resource_changed") || stays.Err() != nil {
		t.Errorf("%v %v", context.Cause(goes), stays.Err())
	}
	asked := cert.asked.Load()
	want(resource("orders", label.Set{"env": "prod"})) // other labels decide otherwise
	<-c.Changed()
	<-stays.Done()
	if n := cert.asked.Load(); n != asked {
		t.Errorf("the same names were certified again")
	}
	if !errors.Is(context.Cause(stays), context.Cause(stays)) || !fault.Because(context.Cause(stays), "resource_changed") {
		t.Error(context.Cause(stays))
	}
	cert.failing.Store(true)
	want(resource("orders", label.Set{"env": "prod"}), resource("new", nil))
	for cert.asked.Load() == asked {
		time.Sleep(time.Millisecond)
	}
	if got := names(); !slices.Equal(got, []string{"orders"}) {
		t.Errorf("while auth is away it serves %v", got)
	}
	cert.failing.Store(false)
	<-c.Changed()
	if got := names(); !slices.Equal(got, []string{"new", "orders"}) {
		t.Errorf("serves %v", got)
	}
	cancel()
	<-ended
	// An administrator who created something sees at the agent that it is served.
	var said []string
	for line := range strings.Lines(log.String()) {
		if _, names, is := strings.Cut(line, `msg="what is served" names=`); is {
			said = append(said, strings.TrimSpace(names))
		}
	}
	if want := []string{`"[Old-DB orders]"`, "[orders]", `"[new orders]"`}; !slices.Equal(said, want) {
		t.Errorf("the log says %q, not %q", said, want)
	}
}

// TestCatalogAsksAgain: a name that another agent held is served soon after it is free, not when the certificate is over.
func TestCatalogAsksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host := identity.Host{ID: uuid.NewString(), Role: identity.RoleDB, Cluster: "example.com"}
		cert := &certifier{ca: newCA(t), host: host, refuse: map[string]string{"orders": "held by another"}, life: 24 * time.Hour}
		c := NewCatalog(cert, host, slog.New(slog.DiscardHandler))
		ctx, cancel := context.WithCancel(t.Context())
		changed := make(chan struct{})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			c.Run(ctx, func() ([]Resource, <-chan struct{}) {
				return []Resource{{Served: target.Served{Name: "orders"}, Spec: "orders"}}, changed
			}, nil)
		}()
		synctest.Wait()
		if len(c.Serves()) != 0 {
			t.Fatal("what another holds is served")
		}
		cert.free.Store(true)
		time.Sleep(5*time.Minute + time.Second)
		synctest.Wait()
		if n := cert.asked.Load(); len(c.Serves()) != 1 || n != 2 {
			t.Errorf("serves %v, asked %d times", c.Serves(), n)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := cert.asked.Load(); n != 2 {
			t.Errorf("asked %d times with nothing refused", n)
		}
		cancel()
		<-ended
	})
}

// TestCatalogRenews gets a new certificate before the old one is over.
func TestCatalogRenews(t *testing.T) {
	host := identity.Host{ID: uuid.NewString(), Role: identity.RoleDB, Cluster: "example.com"}
	cert := &certifier{ca: newCA(t), host: host, life: 3 * time.Second}
	c := NewCatalog(cert, host, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	c.Run(ctx, func() ([]Resource, <-chan struct{}) {
		return []Resource{{Served: target.Served{Name: "orders"}, Spec: "orders"}}, nil
	}, nil)
	if n := cert.asked.Load(); n < 3 || time.Now().After(c.Certificate().Leaf.NotAfter) {
		t.Errorf("certified %d times, ends %s", n, time.Until(c.Certificate().Leaf.NotAfter))
	}
	if _, visit, done, ok := c.Open(context.Background(), "orders"); !ok || visit.Err() != nil {
		t.Error("a renewal ended what is served")
	} else {
		done()
	}
}
