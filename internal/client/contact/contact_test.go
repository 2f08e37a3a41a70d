package contact

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
)

// authority is a cluster's, of the test's own.
func authority(t *testing.T) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestProxy shows an authority over a connection that a stranger's roots do not verify.
func TestProxy(t *testing.T) {
	own, other := authority(t), authority(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/sallyport/v1/ca" {
			_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: own.Raw})
		}
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	for _, c := range []struct {
		name     string
		pins     []string
		insecure bool
		reason   string
	}{
		{"the pin", []string{cluster.Pin(other), " " + strings.ToUpper(cluster.Pin(own))}, false, ""},
		{"another pin", []string{cluster.Pin(other)}, false, "pin_mismatch"},
		{"another pin, insecure", []string{cluster.Pin(other)}, true, "pin_mismatch"},
		{"insecure", nil, true, ""},
		{"neither", nil, false, "first_contact"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cert, err := Proxy(t.Context(), addr, c.pins, c.insecure)
			if c.reason == "" && (err != nil || !cert.Equal(own)) || c.reason != "" && !fault.Because(err, c.reason) {
				t.Fatalf("%v", err)
			}
		})
	}
}
