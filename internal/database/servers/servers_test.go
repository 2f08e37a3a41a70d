package servers

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/client/authority"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// auth certifies for the tests.
type auth struct {
	key   *ecdsa.PrivateKey
	ca    *x509.Certificate
	asked atomic.Int32
	err   error
}

func newAuth(t *testing.T) *auth {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &auth{key: key}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "orders"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	a.ca, _ = x509.ParseCertificate(der)
	return a
}

func (a *auth) DatabaseClient(_ context.Context, key crypto.PublicKey, _, dbUser string) (authority.Database, error) {
	a.asked.Add(1)
	if a.err != nil {
		return authority.Database{}, a.err
	}
	ends := time.Now().Add(5 * time.Minute)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: dbUser}, NotAfter: ends}, a.ca, key, a.key)
	return authority.Database{TLS: der, Authority: a.ca.Raw, Expires: ends}, err
}

func db(edit func(*target.DatabaseServer)) *target.DatabaseServer {
	d := &target.DatabaseServer{Name: "orders", Protocol: target.PostgreSQL, URI: "db.internal:5432"}
	if edit != nil {
		edit(d)
	}
	return d
}

// TestCertificates: one certificate a database user, shared by all that need it at once, made anew at half of its life.
func TestCertificates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAuth(t)
		s := New(a)
		var wg sync.WaitGroup
		var first atomic.Pointer[tls.Certificate]
		for range 20 {
			wg.Go(func() {
				c, err := s.TLS(t.Context(), db(nil), "alice")
				if err != nil {
					t.Error(err)
					return
				}
				if c.ServerName != "db.internal" || c.RootCAs == nil || len(c.Certificates) != 1 || c.Certificates[0].Leaf.Subject.CommonName != "alice" {
					t.Errorf("%+v", c)
				}
				first.Store(&c.Certificates[0])
			})
		}
		wg.Wait()
		if n := a.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if c, err := s.TLS(t.Context(), db(nil), "bob"); err != nil || c.Certificates[0].Leaf.Subject.CommonName != "bob" {
			t.Errorf("%v", err)
		}
		time.Sleep(2 * time.Minute)
		if _, err := s.TLS(t.Context(), db(nil), "alice"); err != nil || a.asked.Load() != 2 {
			t.Errorf("%v, asked %d times", err, a.asked.Load())
		}
		time.Sleep(time.Minute)
		c, err := s.TLS(t.Context(), db(nil), "alice")
		if err != nil || a.asked.Load() != 3 || c.Certificates[0].Leaf.Equal(first.Load().Leaf) {
			t.Errorf("%v, asked %d times", err, a.asked.Load())
		}
		if len(s.certs) != 1 {
			t.Errorf("%d certificates are kept", len(s.certs))
		}
		a.err = fault.New(fault.Denied, "not served").WithReason("not_served")
		if _, err := s.TLS(t.Context(), db(nil), "carol"); !fault.Because(err, "not_served") {
			t.Error(err)
		}
		a.err = nil
		if _, err := s.TLS(t.Context(), db(nil), "carol"); err != nil {
			t.Errorf("a failure is kept: %v", err)
		}
	})
}

// TestA78PasswordFile: the file is the agent's alone, and a user without a line in it is shown by a certificate.
func TestA78PasswordFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "passwords")
	if err := os.WriteFile(file, []byte("alice:s3c:ret\r\nbob:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := New(newAuth(t))
	d := db(func(d *target.DatabaseServer) { d.PasswordFile = file })
	for user, want := range map[string]string{"alice": "s3c:ret", "bob": ""} {
		if got, has, err := s.Password(d, user); err != nil || !has || got != want {
			t.Errorf("%s: %q %v %v", user, got, has, err)
		}
	}
	if _, has, err := s.Password(d, "Alice"); has || err != nil {
		t.Errorf("another user's: %v %v", has, err)
	}
	if c, err := s.TLS(t.Context(), d, "alice"); err != nil || len(c.Certificates) != 0 {
		t.Errorf("beside a password a certificate is shown: %v", err)
	}
	if c, err := s.TLS(t.Context(), d, "carol"); err != nil || len(c.Certificates) != 1 {
		t.Errorf("%v", err)
	}
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Password(d, "alice"); !fault.Because(err, "password_file") || fault.Of(err).Fix == "" {
		t.Errorf("one that others may read: %v", err)
	}
	d.PasswordFile = file + ".not"
	if _, _, err := s.Password(d, "alice"); !fault.Because(err, "password_file") {
		t.Errorf("one that is not there: %v", err)
	}
}

// TestRoots: the server is verified by what the resource says, by default its own authority, and never by nothing.
func TestRoots(t *testing.T) {
	a, other := newAuth(t), newAuth(t)
	s := New(a)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.ca.Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	server := func(by *auth) tls.Certificate {
		key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(3), DNSNames: []string{"db.internal"}, NotAfter: time.Now().Add(time.Hour)}, by.ca, key.Public(), by.key)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	shake := func(d *target.DatabaseServer, by *auth) error {
		c, err := s.TLS(t.Context(), d, "alice")
		if err != nil {
			return err
		}
		x, y := net.Pipe()
		defer x.Close()
		defer y.Close()
		go func() { _ = tls.Server(y, &tls.Config{Certificates: []tls.Certificate{server(by)}}).Handshake() }()
		return tls.Client(x, c).Handshake()
	}
	own, by, named := db(nil), db(func(d *target.DatabaseServer) { d.TLS.CAFile = caFile }), db(func(d *target.DatabaseServer) { d.TLS.ServerName = "other.internal" })
	system := db(func(d *target.DatabaseServer) { d.TLS.CAFile = "system" })
	for _, c := range []struct {
		name string
		db   *target.DatabaseServer
		by   *auth
		ok   bool
	}{{"own", own, a, true}, {"own, another's server", own, other, false}, {"a file", by, other, true}, {"a file, another's server", by, a, false},
		{"another name", named, a, false}, {"the system's", system, a, false}} {
		if err := shake(c.db, c.by); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for name, d := range map[string]*target.DatabaseServer{
		"no file": db(func(d *target.DatabaseServer) { d.TLS.CAFile = caFile + "x" }), "no certificate": db(func(d *target.DatabaseServer) { d.TLS.CA = "x" }),
	} {
		if _, err := s.TLS(t.Context(), d, "alice"); !fault.Because(err, "database_ca") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDialFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	if _, err := New(newAuth(t)).Dial(t.Context(), db(func(d *target.DatabaseServer) { d.URI = addr })); !fault.Because(err, "database_unreachable") {
		t.Error(err)
	}
}
