// Package servers reaches database servers for an agent: over TLS that is verified, as a database user by a certificate
// of the database's own authority or by a password that the agent alone reads.
package servers

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/client/authority"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// dialTime bounds reaching a server, without TLS.
const dialTime = 10 * time.Second

// Certifier makes this agent a user of a database.
type Certifier interface {
	DatabaseClient(ctx context.Context, key crypto.PublicKey, name, dbUser string) (authority.Database, error)
}

// Servers is a database.Servers. Certificates are kept for half of their lives.
type Servers struct {
	certifier Certifier

	mu    sync.Mutex
	certs map[identity]*entry // guarded by mu
}

type identity struct{ database, user string }

// entry is a certificate, or the one that is being fetched.
type entry struct {
	done      chan struct{} // closed once the rest is there
	cert      *tls.Certificate
	authority *x509.Certificate
	half      time.Time
	err       error
}

// New reaches servers with certificates of c.
func New(c Certifier) *Servers { return &Servers{certifier: c, certs: map[identity]*entry{}} }

// Dial is of database.Servers.
func (s *Servers) Dial(ctx context.Context, db *target.DatabaseServer) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	c, err := (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext(ctx, "tcp", db.URI)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the server of database %q cannot be reached", db.Name).WithReason("database_unreachable").
			WithFix("see whether it runs, and whether the agent reaches %s", db.URI).Wrapping(err)
	}
	return c, nil
}

// TLS is of database.Servers.
func (s *Servers) TLS(ctx context.Context, db *target.DatabaseServer, dbUser string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(db.URI)
	if err != nil {
		return nil, err
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if db.TLS.ServerName != "" {
		c.ServerName = db.TLS.ServerName
	}
	_, hasPassword, err := s.Password(db, dbUser)
	if err != nil {
		return nil, err
	}
	roots, own, err := roots(db.TLS)
	if err != nil {
		return nil, err
	}
	if own || !hasPassword {
		e, err := s.certificate(ctx, identity{db.Name, dbUser})
		if err != nil {
			return nil, err
		}
		if own {
			roots = x509.NewCertPool()
			roots.AddCert(e.authority)
		}
		if !hasPassword {
			c.Certificates = []tls.Certificate{*e.cert}
		}
	}
	c.RootCAs = roots
	return c, nil
}

// roots are whom the server's certificate must be by; own is that of the database's own authority, nil the system's.
func roots(t target.DatabaseTLS) (pool *x509.CertPool, own bool, err error) {
	pem := []byte(t.CA)
	switch {
	case t.CAFile == "system":
		return nil, false, nil
	case t.CAFile != "":
		if pem, err = os.ReadFile(t.CAFile); err != nil {
			return nil, false, fault.New(fault.Unavailable, "the agent cannot read tls.ca_file").WithReason("database_ca").Wrapping(err)
		}
	case t.CA == "":
		return nil, true, nil
	}
	pool = x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, false, fault.New(fault.Invalid, "the database's tls.ca holds no certificate").WithReason("database_ca")
	}
	return pool, false, nil
}

// certificate is one for a database user: that which is there, or a new one, which those that ask meanwhile share.
func (s *Servers) certificate(ctx context.Context, id identity) (*entry, error) {
	for {
		s.mu.Lock()
		e := s.certs[id]
		if e == nil || e.over(time.Now()) {
			e = &entry{done: make(chan struct{})}
			s.sweep(time.Now())
			s.certs[id] = e
			s.mu.Unlock()
			s.fetch(ctx, id, e)
			return e, e.err
		}
		s.mu.Unlock()
		select {
		case <-e.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if e.err == nil {
			return e, nil
		}
		if !errors.Is(e.err, context.Canceled) { // else it was the other's to give up, not ours
			return nil, e.err
		}
	}
}

// over reports whether a certificate that is there is to be replaced.
func (e *entry) over(now time.Time) bool {
	select {
	case <-e.done:
		return e.err != nil || now.After(e.half)
	default:
		return false
	}
}

// sweep forgets what is over, under s.mu.
func (s *Servers) sweep(now time.Time) {
	for id, e := range s.certs {
		if e.over(now) {
			delete(s.certs, id)
		}
	}
}

func (s *Servers) fetch(ctx context.Context, id identity, e *entry) {
	defer close(e.done)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		e.err = err
		return
	}
	got, err := s.certifier.DatabaseClient(ctx, key.Public(), id.database, id.user)
	if err != nil {
		e.err = err
		return
	}
	leaf, err := x509.ParseCertificate(got.TLS)
	if err == nil {
		e.authority, err = x509.ParseCertificate(got.Authority)
	}
	if err != nil {
		e.err = err
		return
	}
	e.cert = &tls.Certificate{Certificate: [][]byte{got.TLS}, PrivateKey: key, Leaf: leaf}
	e.half = leaf.NotAfter.Add(-time.Until(leaf.NotAfter) / 2)
}

// Password is of database.Servers. The file is read anew each time; one that others may read is an error.
func (s *Servers) Password(db *target.DatabaseServer, dbUser string) (string, bool, error) {
	if db.PasswordFile == "" {
		return "", false, nil
	}
	st, err := os.Stat(db.PasswordFile)
	if err != nil {
		return "", false, fault.New(fault.Unavailable, "the agent cannot read the password file of database %q", db.Name).WithReason("password_file").Wrapping(err)
	}
	if st.Mode().Perm()&0o077 != 0 {
		return "", false, fault.New(fault.Unavailable, "the password file of database %q can be read by others", db.Name).WithReason("password_file").
			WithFix("on the agent: chmod 600 %s", db.PasswordFile)
	}
	raw, err := os.ReadFile(db.PasswordFile)
	if err != nil {
		return "", false, fault.New(fault.Unavailable, "the agent cannot read the password file of database %q", db.Name).WithReason("password_file").Wrapping(err)
	}
	for line := range strings.Lines(string(raw)) {
		user, password, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if ok && user == dbUser {
			return password, true, nil
		}
	}
	return "", false, nil
}
