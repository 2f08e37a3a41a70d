package keystore

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

func openStore(t *testing.T) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Dir: t.TempDir(), Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func openKeys(t *testing.T, s store.Store, file string) *Keys {
	t.Helper()
	k, err := Open(t.Context(), s, file)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSignerIsKept(t *testing.T) {
	s, file := openStore(t), filepath.Join(t.TempDir(), "seal.key")
	a, b := openKeys(t, s, file), openKeys(t, s, file)
	for _, use := range []Use{SSHUser, SSHHost, TLSUser, TLSHost, OpenSSH, DB("orders"), AuditHeads, DialTickets} {
		one, id1, err1 := a.Signer(t.Context(), use)
		two, id2, err2 := b.Signer(t.Context(), use)
		if err1 != nil || err2 != nil || id1 != id2 || len(id1) != 32 {
			t.Fatalf("%s: %s %v, %s %v", use, id1, err1, id2, err2)
		}
		if !one.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(two.Public()) {
			t.Errorf("%s: two keys", use)
		}
		_, isEd := one.Public().(ed25519.PublicKey)
		if ec, ok := one.Public().(*ecdsa.PublicKey); isEd != (use == AuditHeads || use == DialTickets) || ok && ec.Curve != elliptic.P256() {
			t.Errorf("%s: key is %T", use, one.Public())
		}
	}
	for _, use := range []Use{"", "ssh-users", "db/", "db/a/b", "db/a b"} {
		if _, _, err := a.Signer(t.Context(), use); err == nil {
			t.Errorf("%q got a key", use)
		}
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("seal key file is %v", info.Mode())
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".seal-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestServersThatRaceShareAKey(t *testing.T) {
	s, file := openStore(t), filepath.Join(t.TempDir(), "seal.key")
	var all sync.WaitGroup
	var mu sync.Mutex
	certs, ids := make(map[string]bool), make(map[string]bool)
	for i := range 8 {
		all.Go(func() {
			k, err := Open(t.Context(), s, file)
			if err != nil {
				t.Error(err)
				return
			}
			a, err := k.Authority(t.Context(), TLSHost, func(crypto.Signer) ([]byte, error) { return fmt.Appendf(nil, "cert %d", i), nil })
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			certs[string(a.Cert)], ids[a.ID] = true, true
		})
	}
	all.Wait()
	if len(certs) != 1 || len(ids) != 1 {
		t.Errorf("certificates %v, ids %v", certs, ids)
	}
}

func TestAuthorityCertifiesAKeyThatIsThere(t *testing.T) {
	s, file := openStore(t), filepath.Join(t.TempDir(), "seal.key")
	k := openKeys(t, s, file)
	_, id, err := k.Signer(t.Context(), TLSUser)
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	certify := func(crypto.Signer) ([]byte, error) { calls++; return []byte("der"), nil }
	for range 2 {
		a, err := k.Authority(t.Context(), TLSUser, certify)
		if err != nil || a.ID != id || string(a.Cert) != "der" || calls != 1 {
			t.Fatalf("%+v, %v, certified %d times", a, err, calls)
		}
	}
	a, err := openKeys(t, s, file).Authority(t.Context(), TLSUser, certify)
	if err != nil || a.ID != id || calls != 1 {
		t.Errorf("%+v, %v, certified %d times", a, err, calls)
	}
	boom := errors.New("boom")
	if _, err := k.Authority(t.Context(), TLSHost, func(crypto.Signer) ([]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if _, err := s.Get(t.Context(), "keys/tls-host"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a key without its certificate was stored: %v", err)
	}
}

func TestSealKeyFile(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(file string) error
		reason string
	}{
		"missing":  {os.Remove, "seal_key_missing"},
		"replaced": {func(f string) error { return os.WriteFile(f, bytes.Repeat([]byte("ab"), 32), 0o600) }, "seal_key_wrong"},
		"torn":     {func(f string) error { return os.Truncate(f, 20) }, "seal_key_damaged"},
		"no hex":   {func(f string) error { return os.WriteFile(f, bytes.Repeat([]byte("zz"), 32), 0o600) }, "seal_key_damaged"},
		"readable": {func(f string) error { return os.Chmod(f, 0o640) }, "seal_key_exposed"},
	} {
		s, file := openStore(t), filepath.Join(t.TempDir(), "seal.key")
		openKeys(t, s, file)
		if err := c.spoil(file); err != nil {
			t.Fatal(err)
		}
		left, _ := os.ReadFile(file)
		_, err := Open(t.Context(), s, file)
		if !fault.Because(err, c.reason) || !strings.Contains(fault.Of(err).Lines(), file) || fault.Of(err).Fix == "" {
			t.Errorf("%s: %v", name, err)
		}
		if len(left) > 8 && strings.Contains(fmt.Sprintf("%+v", err), string(left[:8])) {
			t.Errorf("%s: the error quotes the file: %v", name, err)
		}
	}
}

// TestTamperedRecords changes what is stored: a key for another use, another certificate, another id.
func TestTamperedRecords(t *testing.T) {
	s, file := openStore(t), filepath.Join(t.TempDir(), "seal.key")
	k := openKeys(t, s, file)
	certify := func(crypto.Signer) ([]byte, error) { return []byte("der"), nil }
	if _, err := k.Authority(t.Context(), TLSUser, certify); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), "keys/tls-user")
	if err != nil {
		t.Fatal(err)
	}
	put := func(use Use, value []byte) error {
		if _, err := s.Txn(t.Context(), []store.Op{store.Put("keys/"+string(use), value)}); err != nil {
			t.Fatal(err)
		}
		_, _, err := openKeys(t, s, file).Signer(context.Background(), use)
		return err
	}
	if err := put(TLSHost, r.Value); !fault.Because(err, "signing_key_damaged") {
		t.Errorf("a user authority became a host authority: %v", err)
	}
	for name, change := range map[string]func(*sealed){
		"certificate": func(r *sealed) { r.Cert = []byte("evil") }, "id": func(r *sealed) { r.ID = strings.Repeat("0", 32) },
		"key": func(r *sealed) { r.Key[30] ^= 1 }, "short key": func(r *sealed) { r.Key = r.Key[:10] },
	} {
		var rec sealed
		if err := json.Unmarshal(r.Value, &rec); err != nil {
			t.Fatal(err)
		}
		change(&rec)
		value, _ := json.Marshal(rec)
		if err := put(TLSUser, value); !fault.Because(err, "signing_key_damaged") {
			t.Errorf("%s changed: %v", name, err)
		}
	}
}

func TestStateHoldsNoPlainKey(t *testing.T) {
	s := openStore(t)
	k := openKeys(t, s, filepath.Join(t.TempDir(), "seal.key"))
	signer, _, err := k.Signer(t.Context(), SSHUser)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := x509.MarshalPKCS8PrivateKey(signer)
	raw, _ := signer.(*ecdsa.PrivateKey).Bytes()
	p, err := s.List(t.Context(), store.Range{})
	if err != nil || len(p.Records) != 2 {
		t.Fatalf("%d records, %v", len(p.Records), err)
	}
	for _, r := range p.Records {
		if bytes.Contains(r.Value, der) || bytes.Contains(r.Value, raw) {
			t.Errorf("%s holds the key", r.Key)
		}
	}
	var rec sealed
	if err := json.Unmarshal(p.Records[0].Value, &rec); err != nil || bytes.Contains(rec.Key, raw) {
		t.Errorf("the sealed key is plain, %v", err)
	}
}
