package ekroots

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/fault"
)

func authority(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestRead takes files of PEM, bundles, files of DER, and directories of them.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	block := func(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}) }
	makers := filepath.Join(dir, "makers")
	if err := os.MkdirAll(filepath.Join(makers, "sub.pem"), 0o700); err != nil {
		t.Fatal(err)
	}
	write := func(path string, b []byte) string {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bundle := write("bundle", append(block(authority(t)), block(authority(t))...))
	write("makers/a.pem", block(authority(t)))
	write("makers/b.DER", authority(t))
	write("makers/README", []byte("nothing"))
	got, err := Read([]string{bundle, makers})
	if err != nil || len(got) != 3 {
		t.Fatalf("%d %v", len(got), err)
	}
	roots, err := attestation.ParseRoots([]byte(strings.Join(got, "\n")))
	if err != nil || roots.Empty() {
		t.Fatal(err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{"missing": filepath.Join(dir, "x"), "nonsense": write("nonsense.pem", []byte("x")), "an empty directory": empty,
		"large": write("large", make([]byte, maxAuthorities+1))} {
		if _, err := Read([]string{path}); !fault.Because(err, "config") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
