package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
)

// finding is what an examination found under a name; "" and nil where it found nothing.
func finding(t *testing.T, m *machine, name string) hwkey.Finding {
	t.Helper()
	for _, f := range m.Examine() {
		if f.Name == name {
			return f
		}
	}
	return hwkey.Finding{}
}

// wantFinding looks for one fault, with a remedy, and for no other that is not minor.
func wantFinding(t *testing.T, m *machine, name, want string) hwkey.Finding {
	t.Helper()
	var out hwkey.Finding
	for _, f := range m.Examine() {
		switch {
		case f.Name == name:
			out = f
			if !fault.Because(f.Err, want) || fault.Of(f.Err).Fix == "" {
				t.Errorf("%s: %v, want %s", name, f.Err, want)
			}
		case f.Err != nil && !f.Minor:
			t.Errorf("%s: %v", f.Name, f.Err)
		}
	}
	if out.Name == "" {
		t.Errorf("nothing was found of %s", name)
	}
	m.clean(t)
	m.noLockoutOr(t, name)
	return out
}

func (m *machine) noLockoutOr(t *testing.T, name string) {
	t.Helper()
	if name != "lockout" {
		m.noLockout(t)
	}
}

// TestExamine looks at TPMs that work.
func TestExamine(t *testing.T) {
	for name, o := range map[string]swtpm.Options{"fresh": {}, "persistent": {EK: true, PersistentRSAParent: true}, "certificate": {EKCert: true},
		"owner password, persistent parent": {PersistentRSAParent: true, OwnerAuth: "pw"}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, o)
			before := m.emulator.Count(tpm2.TPMCCCreatePrimary)
			wantFinding(t, m, "device key", "device_key_not_found")
			if n := m.emulator.Count(tpm2.TPMCCCreatePrimary) - before; n > 3 {
				t.Errorf("made %d primaries", n)
			}
			enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
			for _, f := range m.Examine() {
				if f.Err != nil && !f.Minor || f.Err == nil && f.Says == "" {
					t.Errorf("%+v", f)
				}
			}
			if ek := finding(t, m, "endorsement key").Says; strings.Contains(ek, "with a certificate by") != o.EKCert || strings.Contains(ek, "persistent") != (o.EK && !o.EKCert) {
				t.Error(ek)
			}
			m.clean(t)
			if left, err := os.ReadDir(filepath.Join(m.home, "device")); err != nil || len(left) != 1 {
				t.Errorf("an examination left %v, %v", left, err)
			}
		})
	}
}

// TestExamineFaults names what stands in the way, each with a remedy.
func TestExamineFaults(t *testing.T) {
	j := attestation.NewJudge(nil, false, time.Now())
	t.Run("endorsement password", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, swtpm.Options{EK: true})
		enroll(t, m, j)
		if err := m.emulator.SetAuth(tpm2.TPMRHEndorsement, "pw"); err != nil {
			t.Fatal(err)
		}
		if f := wantFinding(t, m, "endorsement password", "tpm_endorsement_auth"); !f.Minor {
			t.Error("a login would work")
		}
	})
	t.Run("owner password", func(t *testing.T) {
		t.Parallel()
		wantFinding(t, newMachine(t, swtpm.Options{OwnerAuth: "pw"}), "storage key", "tpm_owner_auth")
	})
	t.Run("firmware", func(t *testing.T) {
		t.Parallel()
		m := newMachine(t, swtpm.Options{})
		enroll(t, m, j)
		path := filepath.Join(m.home, "device", hwkey.DeviceFile)
		f := must(hwkey.ReadFile(path))(t)
		if f.Enrollment.TPM == nil || f.Enrollment.TPM.Firmware == "" || f.Enrollment.EKHash == "" {
			t.Fatalf("%+v", f.Enrollment)
		}
		f.Enrollment.TPM.Firmware = "1.2.3.4"
		if err := hwkey.WriteFile(path, f); err != nil {
			t.Fatal(err)
		}
		got := wantFinding(t, m, "firmware", "tpm_firmware_changed")
		if !got.Minor || !strings.Contains(fault.Of(got.Err).Cause, "1.2.3.4 then") {
			t.Error(got)
		}
	})
	t.Run("event log", func(t *testing.T) {
		m := newMachine(t, swtpm.Options{})
		enroll(t, m, j)
		t.Setenv("TSH_EVENTLOG", filepath.Join(t.TempDir(), "none"))
		if f := finding(t, m, "event log"); !f.Minor || !fault.Because(f.Err, "eventlog_unreadable") {
			t.Errorf("%+v", f)
		}
	})
	t.Run("no TPM", func(t *testing.T) {
		found := tpm.Open(t.TempDir(), filepath.Join(t.TempDir(), "none")).Examine()
		if len(found) != 1 || !fault.Because(found[0].Err, "tpm_open") {
			t.Errorf("%+v", found)
		}
	})
}

// TestReplaced clears a TPM, or has another in its place, and says which.
func TestReplaced(t *testing.T) {
	t.Parallel()
	for name, r := range map[string]struct {
		o     swtpm.Options
		clear bool
		want  string
	}{
		"cleared":               {swtpm.Options{}, true, "it was cleared"},
		"cleared, certificate":  {swtpm.Options{EKCert: true}, true, "it was cleared"},
		"replaced":              {swtpm.Options{}, false, "it was replaced"},
		"replaced, certificate": {swtpm.Options{EKCert: true}, false, "it was replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t, r.o)
			c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
			if r.clear {
				if err := m.emulator.Clear(); err != nil {
					t.Fatal(err)
				}
			} else { // another chip on the same board: the files stay
				other := swtpm.Start(t, r.o)
				m.Device, m.emulator = tpm.Open(filepath.Join(m.home, "device"), other.Socket), other
			}
			_, _, err := login(t, m, "login", c)
			wantReason(t, err, "tpm_cleared")
			if f := fault.Of(err); !strings.Contains(f.Cause, r.want) || f.Fix != "tsh device enroll --current-device" {
				t.Errorf("%+v", f)
			}
			if f := wantFinding(t, m, "device key", "tpm_cleared"); !strings.Contains(fault.Of(f.Err).Cause, r.want) {
				t.Errorf("%+v", f)
			}
			c = enroll(t, m, attestation.NewJudge(nil, false, time.Now())) // the command that mends it
			if _, _, err := login(t, m, "login", c); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestLockout has somebody guess passwords until the TPM counts no more: our keys have none, and go on.
func TestLockout(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
	if err := m.emulator.LockOut(); err != nil {
		t.Fatal(err)
	}
	f := wantFinding(t, m, "lockout", "tpm_lockout")
	if !f.Minor || !strings.Contains(fault.Of(f.Err).Cause, "wrong passwords were counted") {
		t.Errorf("%+v", fault.Of(f.Err))
	}
	if _, k, err := login(t, m, "login", c); err != nil {
		t.Error(err)
	} else {
		verify(t, k)
	}
}

// TestBusyForever gives up on a TPM that never gets to a command, with a reason. It is not parallel.
func TestBusyForever(t *testing.T) {
	m := newMachine(t, swtpm.Options{})
	k := m.session(t)
	old := platform.Patience
	platform.Patience = 100 * time.Millisecond
	defer func() { platform.Patience = old }()
	sum := sha256.Sum256(nil)
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCRetry, tpm2.TPMRCYielded, tpm2.TPMRCTesting, tpm2.TPMRCNVRate} {
		m.emulator.Intercept(func(cc tpm2.TPMCC) (tpm2.TPMRC, bool) { return rc, cc != tpm2.TPMCCFlushContext })
		_, err := k.Sign(nil, sum[:], crypto.SHA256)
		wantReason(t, err, "tpm_busy")
		_, err = m.NewSession(filepath.Join(m.home, "other"))
		wantReason(t, err, "tpm_busy")
		if f := finding(t, m, "TPM"); !fault.Because(f.Err, "tpm_busy") || fault.Of(f.Err).Fix == "" {
			t.Errorf("%+v", f)
		}
	}
	m.emulator.Intercept(nil)
	platform.Patience = old
	m.clean(t)
	verify(t, k)
}
