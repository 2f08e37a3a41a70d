package software

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

func TestDevice(t *testing.T) {
	dir := t.TempDir()
	d := Open(filepath.Join(dir, "device"))
	if _, err := d.Enrollment(); !fault.Because(err, "device_key_not_found") {
		t.Error(err)
	}
	if _, err := d.Login(nil); !fault.Because(err, "device_key_not_found") {
		t.Error(err)
	}
	k, err := d.NewSession(filepath.Join(dir, "alice.key"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := hwkey.ReadFile(filepath.Join(dir, "alice.key"))
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(f)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(nil)
	sig, err := again.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil || !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Errorf("the loaded key is another: %v", err)
	}
	a, err := d.Enroll(k)
	if err != nil {
		t.Fatal(err)
	}
	e, err := a.Evidence()
	if err != nil || e.Kind != device.Software || len(e.Key) == 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := d.Enrollment(); err == nil {
		t.Error("enrolled before it was welcomed")
	}
	if err := a.Keep(hwkey.Enrollment{CredentialID: "c", Kind: device.TPM2}); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Enrollment(); err != nil || got.CredentialID != "c" || got.Kind != device.Software {
		t.Errorf("%+v, %v", got, err)
	}
	l, err := d.Login(k)
	if err != nil {
		t.Fatal(err)
	}
	p, err := l.Prove(sum, false)
	pub, _ := x509.ParsePKIXPublicKey(e.Key)
	if err != nil || !ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), sum[:], p.Signature) {
		t.Errorf("login by another key: %v", err)
	}
	if e, err := l.Evidence(); err != nil || len(e.Key) != 0 {
		t.Errorf("login brings %+v, %v", e, err)
	}
	if _, err := l.Prove(sum, true); err == nil {
		t.Error("quoted without a TPM")
	}
	if _, err := l.Activate(nil, nil); err == nil {
		t.Error("activated without a TPM")
	}
}

func TestLoadRefuses(t *testing.T) {
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	der, _ := x509.MarshalPKCS8PrivateKey(p384)
	for name, f := range map[string]hwkey.File{"kind": {Kind: device.TPM2, Private: der}, "curve": {Kind: device.Software, Private: der},
		"bytes": {Kind: device.Software, Private: []byte{1}}} {
		if _, err := Load(f); !fault.Because(err, "key_damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	dir := t.TempDir()
	if _, err := NewKey(filepath.Join(dir, "k")); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, "k"))
	if err != nil || !bytes.Contains(b, []byte(`"kind":"software"`)) {
		t.Errorf("%s, %v", b, err)
	}
}
