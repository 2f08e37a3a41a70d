package tpm_test

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

// machine is a TPM with one TSH_HOME.
type machine struct {
	*tpm.Device
	emulator *swtpm.Emulator
	home     string
}

func newMachine(t *testing.T, o swtpm.Options) *machine {
	t.Helper()
	e, home := swtpm.Start(t, o), t.TempDir()
	return &machine{tpm.Open(filepath.Join(home, "device"), e.Socket), e, home}
}

func (m *machine) session(t *testing.T) hwkey.Key {
	t.Helper()
	return must(m.NewSession(filepath.Join(m.home, "alice.key")))(t)
}

// boot starts the machine as a firmware does, and has its event log read.
func (m *machine) boot(t *testing.T, b firmware.Boot) {
	t.Helper()
	if err := m.emulator.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := m.emulator.Raw(func(c *swtpm.Conn) error { return firmware.Extend(c, b.Events()) }); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(m.home, "eventlog")
	if err := os.WriteFile(path, firmware.Log(b.Events()), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TSH_EVENTLOG", path)
}

// clean checks that nothing was left in the TPM.
func (m *machine) clean(t *testing.T) {
	t.Helper()
	if n, err := m.emulator.Loaded(); n != 0 || err != nil {
		t.Errorf("%d objects were left in the TPM, %v", n, err)
	}
}

// must is a value without an error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatalf("%v (cause %q)", err, fault.Of(err).Cause)
		}
		return v
	}
}

// reason is the stable word of a refusal.
func reason(err error) string {
	if err == nil {
		return "accepted"
	}
	f := fault.Of(err)
	if f.Reason == "" {
		return err.Error()
	}
	return f.Reason
}

func wantReason(t *testing.T, err error, want string) {
	t.Helper()
	if got := reason(err); got != want {
		t.Errorf("got %s, want %s (%v)", got, want, err)
	}
}

var pin = sha256.Sum256([]byte("cluster authority"))

func binding(t *testing.T, p ceremony.Purpose, k hwkey.Key) ceremony.Binding {
	t.Helper()
	return ceremony.Binding{Purpose: p, ClusterCA: pin[:], User: "alice",
		SessionKey: must(x509.MarshalPKIXPublicKey(k.Public()))(t)}
}

// roots are the authorities of an emulator's maker.
func roots(t *testing.T, ca *swtpm.CA) *attestation.Roots {
	t.Helper()
	return must(attestation.ParseRoots(must(ca.PEM())(t)))(t)
}

// exchange runs one ceremony between a prover's and a verifier's view of it.
type exchange struct {
	prover, verifier ceremony.Binding
	key              ceremony.Key
	judge            ceremony.Judge
	ask              ceremony.Ask
	intro            ceremony.Introduction

	hello, challenge, proof []byte
	logs                    [][]byte
}

// run speaks until the proof is judged.
func (x *exchange) run() (ceremony.Result, error) {
	p, err := ceremony.NewProver(x.prover, x.key)
	if err != nil {
		return ceremony.Result{}, err
	}
	v, err := ceremony.NewVerifier(x.verifier, x.judge, rand.Reader)
	if err != nil {
		return ceremony.Result{}, err
	}
	hello, answer, err := p.Hello(x.intro)
	if err != nil {
		return ceremony.Result{}, err
	}
	_, await, err := v.Hello(hello)
	if err != nil {
		return ceremony.Result{}, err
	}
	challenge, last, err := await.Challenge(x.ask)
	if err != nil {
		return ceremony.Result{}, err
	}
	answers, _, err := answer.Proof(challenge)
	if err != nil {
		return ceremony.Result{}, err
	}
	x.hello, x.challenge, x.proof, x.logs = hello, challenge, answers[0], answers[1:]
	r, log, err := last.Proof(answers[0])
	for _, l := range answers[1:] {
		if err == nil {
			r, _, err = log.Log(l)
		}
	}
	return r, err
}

// enroll enrolls a machine and returns its stored credential.
func enroll(t *testing.T, m *machine, j ceremony.Judge) device.Credential {
	t.Helper()
	k := m.session(t)
	a := must(m.Enroll(k))(t)
	b := binding(t, ceremony.Enroll, k)
	x := exchange{prover: b, verifier: b, key: a, judge: j, intro: ceremony.Introduction{Token: "token"}}
	r := must(x.run())(t)
	c := r.Credential
	c.ID, c.Owner = "11111111-2222-3333-4444-555555555555", "alice"
	if err := a.Keep(hwkey.Enrollment{DeviceID: "d", AssetTag: "TAG", CredentialID: c.ID, Level: c.Attestation}); err != nil {
		t.Fatal(err)
	}
	return c
}

// login proves the device once.
func login(t *testing.T, m *machine, p ceremony.Purpose, c device.Credential) (ceremony.Result, hwkey.Key, error) {
	t.Helper()
	k := m.session(t)
	a, err := m.Login(k)
	if err != nil {
		return ceremony.Result{}, nil, err
	}
	b := binding(t, p, k)
	x := exchange{prover: b, verifier: b, key: a, judge: attestation.NewJudge(nil, false, time.Now()),
		ask: ceremony.Ask{Credential: &c}, intro: ceremony.Introduction{CredentialID: c.ID}}
	r, err := x.run()
	return r, k, err
}
