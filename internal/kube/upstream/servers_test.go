package upstream

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// pair is a client's certificate and key, as files have them.
func pair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// TestServers: a certificate, an authority or a kubeconfig that changes is read again; what stays is not opened twice, and what
// is not served any more is let go.
func TestServers(t *testing.T) {
	who := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { who <- r.TLS.PeerCertificates[0].Subject.CommonName }))
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	srv.StartTLS()
	defer srv.Close()
	dir := t.TempDir()
	clock := time.Now()
	write := func(name string, raw []byte) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		clock = clock.Add(time.Minute)
		if err := os.Chtimes(path, clock, clock); err != nil {
			t.Fatal(err)
		}
	}
	renew := func(name string) {
		cert, key := pair(t, name)
		write("cert.pem", cert)
		write("key.pem", key)
	}
	renew("first")
	write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))
	text := config(fmt.Sprintf("{server: %q, certificate-authority: ca.pem, tls-server-name: example.com}", srv.URL), "{client-certificate: cert.pem, client-key: key.pem}")
	write("config", []byte(text))
	now := time.Now()
	s := NewServers(func() time.Time { return now })
	defer s.Close()
	k := &target.KubeCluster{Name: "dev", Kubeconfig: filepath.Join(dir, "config")}
	asks := func() (*Server, string) {
		t.Helper()
		up, err := s.Of(k)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		conn, err := up.Dial(ctx)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		req, _ := http.NewRequest(http.MethodGet, srv.URL, nil)
		if err := req.Write(conn); err != nil {
			t.Fatal(err)
		}
		return up, <-who
	}
	first, name := asks()
	if again, _ := s.Of(&target.KubeCluster{Name: "dev", Kubeconfig: k.Kubeconfig}); again != first || name != "first" {
		t.Error("opened twice, as " + name)
	}
	renew("second")
	if again, _ := s.Of(k); again != first {
		t.Error("it looks at each request")
	}
	now = now.Add(lookAgain)
	if second, name := asks(); second == first || name != "second" {
		t.Error("made as " + name)
	}
	now = now.Add(lookAgain)
	write("config", []byte("{"))
	if _, err := s.Of(k); !fault.Because(err, "kubeconfig") {
		t.Errorf("a broken file: %v", err)
	}
	write("config", []byte(text))
	third, _ := asks()
	if other, err := s.Of(&target.KubeCluster{Name: "dev", Kubeconfig: k.Kubeconfig, Context: "c"}); err != nil || other == third {
		t.Errorf("another context: %v", err)
	}
	s.Keep(map[string]bool{"prod": true})
	if len(s.open) != 0 {
		t.Error("it is kept")
	}
}
