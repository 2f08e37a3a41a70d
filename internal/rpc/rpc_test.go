package rpc

import (
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
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
)

// hostCertificate makes an authority and a node's certificate by it.
func hostCertificate(t *testing.T, life time.Duration) (authority, leaf *x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	sign := func(c, parent *x509.Certificate) *x509.Certificate {
		raw, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(raw)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	now := time.Now().Truncate(time.Second)
	top := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, NotBefore: now, NotAfter: now.Add(10 * life),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	authority = sign(top, top)
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: now, NotAfter: now.Add(life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := (identity.Host{ID: uuid.NewString(), Role: identity.RoleNode, Name: "web", Cluster: "example.com"}).X509(c); err != nil {
		t.Fatal(err)
	}
	return authority, sign(c, authority)
}

// TestA13ConnectionOutlivesItsCertificate calls over a connection whose certificate is over meanwhile: a host that was
// removed would otherwise wait until its lock ends, and renew.
func TestA13ConnectionOutlivesItsCertificate(t *testing.T) {
	authority, leaf := hostCertificate(t, 7*24*time.Hour)
	var at time.Time
	s := &Server{public: ca.Public{TLSHost: authority, TLSUser: leaf}, now: func() time.Time { return at }, log: slog.New(slog.DiscardHandler)}
	var who identity.Caller
	h := s.identify(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { who = caller(r.Context()) }))
	for _, c := range []struct {
		name   string
		at     time.Time
		status int
		closes bool
	}{
		{"fresh", leaf.NotBefore.Add(time.Hour), http.StatusOK, false},
		{"renewed elsewhere by now", leaf.NotAfter.Add(-time.Hour), http.StatusOK, true},
		{"over", leaf.NotAfter.Add(time.Second), http.StatusForbidden, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			at, who = c.at, identity.Caller{}
			r := httptest.NewRequest(http.MethodPost, "/sallyport.v1.MembershipService/Renew", nil)
			r.TLS = &tls.ConnectionState{VerifiedChains: [][]*x509.Certificate{{leaf, authority}}}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != c.status || (w.Header().Get("Connection") == "close") != c.closes || (who.Host != nil) != (c.status == http.StatusOK) {
				t.Fatalf("status %d, closes %q, host %v", w.Code, w.Header().Get("Connection"), who.Host)
			}
		})
	}
}

// TestCallsThatSayNothing opens a login and sends nothing: it ends.
func TestCallsThatSayNothing(t *testing.T) {
	defer func(old time.Duration) { patience["LoginService/Login"] = old }(patience["LoginService/Login"])
	patience["LoginService/Login"] = 50 * time.Millisecond
	ended := make(chan error, 1)
	srv := httptest.NewUnstartedServer(patient(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		ended <- err
	})))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	body, hold := io.Pipe()
	defer hold.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, srv.URL+"/sallyport.v1.LoginService/Login", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if res, err := srv.Client().Do(req); err == nil {
			res.Body.Close()
		}
	}()
	select {
	case err := <-ended:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the call waits for ever")
	}
}

// TestReachableFromThePinnedAddress: a pin counts for the calls that device modes leave open too.
func TestReachableFromThePinnedAddress(t *testing.T) {
	now, at := time.Now(), netip.MustParseAddr("203.0.113.7")
	c := identity.Caller{Addr: netip.MustParseAddr("::ffff:203.0.113.7"), User: &identity.User{Name: "alice", PinnedIP: at,
		Validity: identity.Validity{IssuedAt: now, Expires: now.Add(time.Hour)}}}
	if err := reachable(lock.Set{}, c, now); err != nil {
		t.Fatal(err)
	}
	c.Addr = at.Next()
	if err := reachable(lock.Set{}, c, now); !fault.Because(err, "wrong_address") {
		t.Fatal(err)
	}
}
