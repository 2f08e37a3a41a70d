package tpm_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-attestation/attest"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/swtpm"
)

// TestStrangers has go-attestation and tpm2-tools, which share no code with us, judge what our device says, and our
// device open what they make.
func TestStrangers(t *testing.T) {
	t.Parallel()
	peer.Need(t, "tpm2_checkquote", "tpm2_makecredential", "tpm2_print")
	m := newMachine(t, swtpm.Options{})
	session := m.session(t)
	a := must(m.Enroll(session))(t)
	e := must(a.Evidence())(t)
	ak := must(attestation.ParseAK(e.KeyArea))(t)
	digest := sha256.Sum256([]byte("transcript"))
	p := must(a.Prove(digest, true))(t)
	akPublic := must(x509.ParsePKIXPublicKey(ak.SPKI))(t)

	t.Run("go-attestation verifies the certified session key", func(t *testing.T) {
		c := attest.CertificationParameters{Public: session.Area(), CreateAttestation: p.Statement, CreateSignature: p.Signature}
		if err := c.Verify(attest.VerifyOpts{Public: akPublic.(*ecdsa.PublicKey), Hash: crypto.SHA256}); err != nil {
			t.Error(err)
		}
		c.Public = e.KeyArea
		if err := c.Verify(attest.VerifyOpts{Public: akPublic.(*ecdsa.PublicKey), Hash: crypto.SHA256}); err == nil {
			t.Error("the stranger takes anything")
		}
	})
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tool := func(t *testing.T, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
		return string(out)
	}
	akPEM := write("ak.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: ak.SPKI}))

	t.Run("tpm2_checkquote verifies the quote", func(t *testing.T) {
		tool(t, "tpm2_checkquote", "-u", akPEM, "-m", write("quote", p.Quote.Statement),
			"-s", write("quote.sig", p.Quote.Signature), "-q", hex.EncodeToString(digest[:]), "-g", "sha256")
	})
	t.Run("tpm2_print reads the statement", func(t *testing.T) { // it knows no certifications
		out := tool(t, "tpm2_print", "-t", "TPMS_ATTEST", filepath.Join(dir, "quote"))
		for _, want := range []string{"magic: ff544347", "type: 8018", "extraData: " + hex.EncodeToString(digest[:])} {
			if !bytes.Contains([]byte(out), []byte(want)) {
				t.Errorf("%s\nhas no %q", out, want)
			}
		}
	})
	t.Run("the device opens a credential of tpm2_makecredential", func(t *testing.T) {
		ek := write("ek.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: e.EKPublic}))
		secret := []byte("0123456789abcdef0123456789abcdef")
		tool(t, "tpm2_makecredential", "-T", "none", "-u", ek, "-G", "rsa", "-s", write("secret", secret),
			"-n", hex.EncodeToString(ak.Name), "-o", "credential")
		b := must(os.ReadFile(filepath.Join(dir, "credential")))(t)[8:] // behind magic and version
		n := binary.BigEndian.Uint16(b)
		blob, rest := b[2:2+n], b[2+n:]
		got, err := a.Activate(blob, rest[2:2+binary.BigEndian.Uint16(rest)])
		if err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%x, %v", got, err)
		}
	})
	m.clean(t)
}
