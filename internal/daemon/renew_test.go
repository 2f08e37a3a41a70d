package daemon_test

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
	"github.com/sallyport/sallyport/internal/world"
)

// unrecorded is an audit log for a certificate that the test makes.
type unrecorded struct{}

func (unrecorded) Record(context.Context, event.Event, ...store.Op) (uint64, error) { return 0, nil }

// TestHostRenewsByItself gives the node a certificate that is half over: once it runs it has a fresh one, and serves.
func TestHostRenewsByItself(t *testing.T) {
	w := world.New(t, nil)
	file := filepath.Join(w.Dir, "data", "host", "node.json")
	w.Stop()
	var kept map[string]any
	read := func() *x509.Certificate {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var k struct {
			TLS []byte `json:"tls_certificate"`
		}
		if err := json.Unmarshal(raw, &k); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(raw, &kept); err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(k.TLS)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	have := read()
	old := age(t, w, have)
	kept["tls_certificate"] = old
	raw, err := json.Marshal(kept)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := read(); time.Since(got.NotBefore) < ca.HostLife/3 {
		t.Fatal("the certificate is not old: the test proves nothing")
	}
	w.Start()
	deadline := time.Now().Add(20 * time.Second)
	for time.Since(read().NotBefore) > time.Hour {
		if time.Now().After(deadline) {
			t.Fatal("the node did not renew")
		}
		time.Sleep(50 * time.Millisecond)
	}
	was, err := identity.HostFromX509(have)
	if err != nil {
		t.Fatal(err)
	}
	is, err := identity.HostFromX509(read())
	if err != nil || *is != *was {
		t.Fatalf("%+v became %+v, %v", was, is, err)
	}
}

// age issues the same host's certificate as it would have been issued four days ago.
func age(t *testing.T, w *world.World, have *x509.Certificate) []byte {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: filepath.Join(w.Dir, "data", "state"), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	keys, err := keystore.Open(t.Context(), s, filepath.Join(w.Dir, "data", "seal.key"))
	if err != nil {
		t.Fatal(err)
	}
	host, err := identity.HostFromX509(have)
	if err != nil {
		t.Fatal(err)
	}
	issuer := ca.New(keys, host.Cluster, unrecorded{}, func() time.Time { return time.Now().Add(-4 * 24 * time.Hour) })
	p, err := issuer.PrepareHost(ca.HostRequest{Host: *host, TLSKey: crypto.PublicKey(have.PublicKey), SSHKey: ssh.PublicKey(nil)})
	if err != nil {
		t.Fatal(err)
	}
	got, err := p.Issue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return got.TLS
}
