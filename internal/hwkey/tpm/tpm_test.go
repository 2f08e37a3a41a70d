package tpm_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
)

func verify(t *testing.T, k hwkey.Key) {
	t.Helper()
	sum := sha256.Sum256([]byte("hello"))
	sig := must(k.Sign(rand.Reader, sum[:], crypto.SHA256))(t)
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Error("the signature does not verify")
	}
}

// TestLifecycle enrolls, logs in, reissues and signs on TPMs of each make, and finds nothing left in them.
func TestLifecycle(t *testing.T) {
	rows := []struct {
		name  string
		o     swtpm.Options
		level device.Level
	}{
		{"EK certificate of a listed authority", swtpm.Options{EKCert: true}, device.LevelTPMTrusted},
		{"persistent EK without certificate", swtpm.Options{EK: true}, device.LevelTPMPub},
		{"fresh TPM", swtpm.Options{}, device.LevelTPMPub},
		{"persistent RSA parent", swtpm.Options{PersistentRSAParent: true}, device.LevelTPMPub},
		{"owner password and persistent RSA parent", swtpm.Options{EKCert: true, PersistentRSAParent: true, OwnerAuth: "pw"},
			device.LevelTPMTrusted},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, r.o)
			var listed *attestation.Roots
			if r.o.EKCert {
				listed = roots(t, m.emulator.CA)
			}
			_, err := m.Enrollment()
			wantReason(t, err, "device_key_not_found")
			c := enroll(t, m, attestation.NewJudge(listed, false, time.Now()))
			m.clean(t)
			if c.Attestation != r.level || c.Kind != device.TPM2 || c.TPM == nil || c.Clock == nil || len(c.EKHash) != 64 {
				t.Errorf("credential %+v", c)
			}
			if r.o.EKCert != (c.EKCertSerial != "") {
				t.Errorf("serial %q", c.EKCertSerial)
			}
			if tag := must(m.Tag())(t); tag != "ek-"+c.EKHash[:16] {
				t.Errorf("tag %s, hash %s", tag, c.EKHash)
			}
			for _, p := range []ceremony.Purpose{ceremony.Login, ceremony.Reissue} {
				before := m.emulator.Count(tpm2.TPMCCCertify)
				res, k, err := login(t, m, p, c)
				if err != nil {
					t.Fatal(err)
				}
				if n := m.emulator.Count(tpm2.TPMCCCertify) - before; n != 1 {
					t.Errorf("%s took %d TPM2_Certify, want 1", p, n)
				}
				if res.Credential.ID != c.ID || res.Credential.Clock.Firmware != c.Clock.Firmware {
					t.Errorf("%s: firmware figure changed or credential lost: %+v", p, res.Credential)
				}
				verify(t, k)
			}
			before := m.emulator.Count(tpm2.TPMCCSign)
			verify(t, must(local.LoadKey(filepath.Join(m.home, "alice.key"), m.emulator.Socket))(t))
			if n := m.emulator.Count(tpm2.TPMCCSign) - before; n != 1 {
				t.Errorf("one signature took %d TPM2_Sign", n)
			}
			if e := must(m.Enrollment())(t); e.CredentialID != c.ID || e.Kind != device.TPM2 {
				t.Errorf("kept %+v", e)
			}
			m.clean(t)
		})
	}
}

// TestTag reads the tag before an enrollment, from each place where the EK can be.
func TestTag(t *testing.T) {
	for name, o := range map[string]swtpm.Options{"certificate": {EKCert: true}, "persistent": {EK: true}, "made": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o)
			tag := must(m.Tag())(t)
			if made := m.emulator.Count(tpm2.TPMCCCreatePrimary) > 0; made != (name == "made") {
				t.Errorf("EK made: %v", made)
			}
			c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
			if tag != "ek-"+c.EKHash[:16] {
				t.Errorf("tag %s, hash %s", tag, c.EKHash)
			}
		})
	}
}

// TestHierarchyPasswords meets passwords on the TPM's hierarchies with a fault that names them, and never counts
// towards lockout.
func TestHierarchyPasswords(t *testing.T) {
	t.Run("owner", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, swtpm.Options{OwnerAuth: "pw"})
		_, err := m.NewSession(filepath.Join(m.home, "k"))
		wantReason(t, err, "tpm_owner_auth")
		m.clean(t)
		m.noLockout(t)
	})
	for name, o := range map[string]swtpm.Options{
		"endorsement, EK made":       {EndorsementAuth: "pw"},
		"endorsement, EK persistent": {EndorsementAuth: "pw", EK: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o)
			k := m.session(t)
			b := binding(t, ceremony.Enroll, k)
			x := exchange{prover: b, verifier: b, key: must(m.Enroll(k))(t), judge: attestation.NewJudge(nil, false, time.Now())}
			_, err := x.run()
			wantReason(t, err, "tpm_endorsement_auth")
			m.clean(t)
			m.noLockout(t)
		})
	}
	t.Run("endorsement, set after enrollment", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, swtpm.Options{})
		c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
		if err := m.emulator.SetAuth(tpm2.TPMRHEndorsement, "pw"); err != nil {
			t.Fatal(err)
		}
		_, k, err := login(t, m, ceremony.Login, c)
		if err != nil {
			t.Fatal(err)
		}
		verify(t, k)
	})
}

func (m *machine) noLockout(t *testing.T) {
	t.Helper()
	err := m.emulator.Raw(func(c *swtpm.Conn) error {
		rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(tpm2.TPMPTLockoutCounter),
			PropertyCount: 1}.Execute(c)
		if err != nil {
			return err
		}
		p, err := rsp.CapabilityData.Data.TPMProperties()
		if err != nil || len(p.TPMProperty) != 1 || p.TPMProperty[0].Value != 0 {
			return errors.New("the lockout counter moved")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBusy has the TPM ask for patience, and be in lockout.
func TestBusy(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	n := 0
	m.emulator.Intercept(func(cc tpm2.TPMCC) (tpm2.TPMRC, bool) {
		n++
		switch {
		case n%4 == 1:
			return tpm2.TPMRCRetry, true
		case n%4 == 2:
			return tpm2.TPMRCTesting, true
		}
		return 0, false
	})
	verify(t, m.session(t))
	m.emulator.Intercept(func(cc tpm2.TPMCC) (tpm2.TPMRC, bool) { return tpm2.TPMRCLockout, cc == tpm2.TPMCCCreate })
	_, err := m.NewSession(filepath.Join(m.home, "k"))
	wantReason(t, err, "tpm_lockout")
	m.emulator.Intercept(nil)
	m.clean(t)
}

// TestConcurrent has many sign at once: the emulator serves one client at a time.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	m.session(t)
	k := must(local.LoadKey(filepath.Join(m.home, "alice.key"), m.emulator.Direct()))(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 4 {
				verify(t, k)
			}
		})
	}
	wg.Wait()
	m.clean(t)
}

// TestCleared clears the TPM, and resets the machine, which is not the same.
func TestCleared(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]swtpm.Options{"storage primary": {}, "persistent parent": {PersistentRSAParent: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o)
			c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
			k := m.session(t)
			if err := m.emulator.Restart(); err != nil {
				t.Fatal(err)
			}
			verify(t, k)
			res, _, err := login(t, m, ceremony.Login, c)
			if err != nil {
				t.Fatal(err)
			}
			if res.Credential.Clock.ResetCount != c.Clock.ResetCount+1 || res.Credential.Clock.Firmware != c.Clock.Firmware {
				t.Errorf("a reset moved the figures from %+v to %+v", c.Clock, res.Credential.Clock)
			}
			if err := m.emulator.Clear(); err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(nil)
			_, err = k.Sign(nil, sum[:], crypto.SHA256)
			wantReason(t, err, "tpm_cleared")
			_, _, err = login(t, m, ceremony.Login, c)
			wantReason(t, err, "tpm_cleared")
			m.clean(t)
		})
	}
}

// TestOpenFaults names what stands in the way of a TPM.
func TestOpenFaults(t *testing.T) {
	dir := t.TempDir()
	plain, dead := filepath.Join(dir, "plain"), filepath.Join(dir, "s")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = l.Close()
	for name, path := range map[string]string{"missing": filepath.Join(dir, "none"), "plain file": plain, "dead socket": dead} {
		t.Run(name, func(t *testing.T) {
			_, err := tpm.Open(dir, path).NewSession(filepath.Join(dir, "k"))
			wantReason(t, err, "tpm_open")
		})
	}
}

// TestQuote asks for the machine's start too.
func TestQuote(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	j := attestation.NewJudge(nil, false, time.Now())
	c := enroll(t, m, j)
	k := m.session(t)
	b := binding(t, ceremony.Login, k)
	x := exchange{prover: b, verifier: b, key: must(m.Login(k))(t), judge: j, ask: ceremony.Ask{Credential: &c, Quote: true},
		intro: ceremony.Introduction{CredentialID: c.ID}}
	must(x.run())(t)
	m.clean(t)

	digest := b.Digest(x.hello, x.challenge)
	p := must(must(m.Login(k))(t).Prove(digest, true))(t)
	p.Quote.PCRs[3] ^= 1
	wantReason(t, j.Quote(c, digest, *p.Quote), "device_quote_pcrs")
	p.Quote.PCRs = p.Quote.PCRs[:32]
	wantReason(t, j.Quote(c, digest, *p.Quote), "device_quote_pcrs")
}

// TestSignRefuses has only SHA-256 digests signed.
func TestSignRefuses(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	k := m.session(t)
	_, err := k.Sign(nil, make([]byte, 48), crypto.SHA384)
	if err == nil {
		t.Error("signed a SHA-384 digest")
	}
	_, err = k.Sign(nil, make([]byte, 20), crypto.SHA256)
	if err == nil {
		t.Error("signed 20 bytes")
	}
}
