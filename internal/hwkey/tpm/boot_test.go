package tpm_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/bootlog"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// quoted logs in with a quote.
func quoted(t *testing.T, m *machine, c device.Credential) *device.Quote {
	t.Helper()
	k := m.session(t)
	b := binding(t, ceremony.Login, k)
	x := exchange{prover: b, verifier: b, key: must(m.Login(k))(t), judge: attestation.NewJudge(nil, false, time.Now()),
		ask: ceremony.Ask{Credential: &c, Quote: true}, intro: ceremony.Introduction{CredentialID: c.ID}}
	return must(x.run())(t).Quote
}

// TestBoot takes a machine whose firmware measured into its TPM through the whole ceremony.
func TestBoot(t *testing.T) {
	m := newMachine(t, swtpm.Options{})
	c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
	for _, b := range []firmware.Boot{{SecureBoot: true, Loader: "shim"}, {Loader: "shim"}, {SecureBoot: true, Loader: "shim", DBX: 300 << 10}} {
		m.boot(t, b)
		q := quoted(t, m, c)
		v, err := bootlog.Judge(q.Log, q.PCRs)
		if err != nil || v.SecureBoot == nil || *v.SecureBoot != b.SecureBoot || len(v.Values) != len(device.QuotedPCRs) {
			t.Errorf("%+v: %+v %v (%s)", b, v, err, q.NoLog)
		}
		m.clean(t)
	}
	if err := m.emulator.Restart(); err != nil { // the log of the start before
		t.Fatal(err)
	}
	q := quoted(t, m, c)
	if _, err := bootlog.Judge(q.Log, q.PCRs); !fault.Because(err, "eventlog_replay") {
		t.Error(err)
	}
}

// TestNoEventLog: a log that cannot be had is told, and the proof stands.
func TestNoEventLog(t *testing.T) {
	m := newMachine(t, swtpm.Options{})
	c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, make([]byte, device.MaxEventLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(t.TempDir(), "none"): "there is no ", big: "has more than 1048576 bytes"} {
		t.Setenv("TSH_EVENTLOG", path)
		if q := quoted(t, m, c); len(q.Log) != 0 || !strings.Contains(q.NoLog, want) {
			t.Errorf("%s: %q", path, q.NoLog)
		}
	}
}

// TestNoSHA256Bank: a TPM that keeps no SHA-256 PCRs proves its key and says why it quotes nothing.
func TestNoSHA256Bank(t *testing.T) {
	m := newMachine(t, swtpm.Options{})
	c := enroll(t, m, attestation.NewJudge(nil, false, time.Now()))
	// TPM2_PCR_Allocate (TPM 2.0 Part 3, 22.5), platform authorization, banks SHA-1 all and SHA-256 none.
	command := []byte{0x80, 0x02, 0, 0, 0, 43, 0, 0, 0x01, 0x2b, 0x40, 0, 0, 0x0c, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0,
		0, 0, 0, 2, 0, 4, 3, 0xff, 0xff, 0xff, 0, 0x0b, 3, 0, 0, 0}
	if err := m.emulator.Raw(func(conn *swtpm.Conn) error {
		answer, err := conn.Send(command)
		if err == nil && (len(answer) < 10 || binary.BigEndian.Uint32(answer[6:]) != 0) {
			t.Fatalf("TPM2_PCR_Allocate: %x", answer)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if err := m.emulator.Restart(); err != nil {
		t.Fatal(err)
	}
	q := quoted(t, m, c)
	if q == nil || len(q.Statement)+len(q.PCRs)+len(q.Log) != 0 || !strings.Contains(q.NoLog, "no SHA-256 PCRs") {
		t.Errorf("%+v", q)
	}
	m.clean(t)
}
