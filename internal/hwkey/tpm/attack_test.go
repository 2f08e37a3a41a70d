package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/hwkey/software"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
)

func open(t *testing.T) attestation.Judge {
	t.Helper()
	return attestation.NewJudge(nil, false, time.Now())
}

// TestA2_CopiedHome copies all key files to a machine with another TPM of the same make.
func TestA2_CopiedHome(t *testing.T) {
	for name, o := range map[string]swtpm.Options{"storage primary": {}, "persistent RSA parent": {PersistentRSAParent: true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			victim, thief := newMachine(t, o), newMachine(t, o)
			c := enroll(t, victim, open(t))
			if err := os.CopyFS(filepath.Join(thief.home, "stolen"), os.DirFS(victim.home)); err != nil {
				t.Fatal(err)
			}
			for _, f := range []string{"stolen/alice.key", "stolen/device/device.key"} {
				if err := os.Chmod(filepath.Join(thief.home, f), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			stolen := must(local.LoadKey(filepath.Join(thief.home, "stolen/alice.key"), thief.emulator.Socket))(t)
			sum := sha256.Sum256(nil)
			_, err := stolen.Sign(nil, sum[:], crypto.SHA256)
			wantReason(t, err, "tpm_cleared")

			copied := must(local.Open(local.Options{Dir: filepath.Join(thief.home, "stolen/device"), TPM: thief.emulator.Socket}))(t)
			for name, session := range map[string]hwkey.Key{"stolen": stolen, "fresh": thief.session(t)} {
				a := must(copied.Login(session))(t)
				b := binding(t, ceremony.Login, session)
				x := exchange{prover: b, verifier: b, key: a, judge: open(t), ask: ceremony.Ask{Credential: &c},
					intro: ceremony.Introduction{CredentialID: c.ID}}
				if _, err := x.run(); reason(err) != "tpm_cleared" {
					t.Errorf("login with a %s session key: %v", name, err)
				}
			}
			thief.clean(t)
		})
	}
}

// relay is the key of somebody who passes on what the victim's device says.
type relay struct {
	hwkey.Attestor
	evidence func(device.Evidence) device.Evidence
	prove    func([sha256.Size]byte) (device.Proof, error)
	secret   []byte
}

func (r relay) Evidence() (device.Evidence, error) {
	e, err := r.Attestor.Evidence()
	if r.evidence != nil {
		e = r.evidence(e)
	}
	return e, err
}

func (r relay) Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error) {
	if r.prove != nil {
		return r.prove(digest)
	}
	return r.Attestor.Prove(digest, quote)
}

func (r relay) Activate(blob, enc []byte) ([]byte, error) {
	if r.secret != nil {
		return r.secret, nil
	}
	return r.Attestor.Activate(blob, enc)
}

// TestA3_Relay relays a login's challenge to the real device, which even signs whatever it is given.
func TestA3_Relay(t *testing.T) {
	t.Parallel()
	victim, thief := newMachine(t, swtpm.Options{}), newMachine(t, swtpm.Options{})
	c := enroll(t, victim, open(t))
	theirs, mine := victim.session(t), thief.session(t)
	device1 := must(victim.Login(theirs))(t)
	soft := must(software.NewKey(filepath.Join(thief.home, "soft.key")))(t)
	areaOf := func(k hwkey.Key) func(device.Evidence) device.Evidence {
		return func(e device.Evidence) device.Evidence { e.SessionArea = k.Area(); return e }
	}
	rows := []struct {
		name string
		key  hwkey.Key // for which the thief wants certificates
		by   relay
		want string
	}{
		{"a key of the thief's TPM, under its own area", mine, relay{Attestor: device1, evidence: areaOf(mine)}, "device_session_key"},
		{"a key of the thief's TPM, under the victim's area", mine, relay{Attestor: device1}, "device_session_key"},
		{"a key in a file, under the victim's area", soft, relay{Attestor: device1}, "device_session_key"},
	}
	for _, r := range rows {
		b := binding(t, ceremony.Login, r.key)
		x := exchange{prover: b, verifier: b, key: r.by, judge: open(t), ask: ceremony.Ask{Credential: &c},
			intro: ceremony.Introduction{CredentialID: c.ID}}
		_, err := x.run()
		t.Log(r.name)
		wantReason(t, err, r.want)
	}
	// The victim's tsh speaks for its own session key alone: the transcripts differ.
	x := exchange{prover: binding(t, ceremony.Login, theirs), verifier: binding(t, ceremony.Login, mine),
		key: relay{Attestor: device1, evidence: areaOf(mine)}, judge: open(t), ask: ceremony.Ask{Credential: &c},
		intro: ceremony.Introduction{CredentialID: c.ID}}
	_, err := x.run()
	wantReason(t, err, "device_transcript")
}

// TestA5_ForeignTPM enrolls TPMs that no listed authority vouches for.
func TestA5_ForeignTPM(t *testing.T) {
	t.Parallel()
	good := newMachine(t, swtpm.Options{EKCert: true})
	rs := roots(t, good.emulator.CA)
	listed := func() attestation.Judge { return attestation.NewJudge(rs, false, time.Now()) }
	enroll(t, good, listed())
	for name, r := range map[string]struct {
		o    swtpm.Options
		want string
	}{
		"certificate of another maker": {swtpm.Options{EKCert: true}, "ekcert_untrusted"},
		"no certificate":               {swtpm.Options{EK: true}, "ekcert_missing"},
		"fresh":                        {swtpm.Options{}, "ekcert_missing"},
	} {
		m := newMachine(t, r.o)
		k := m.session(t)
		b := binding(t, ceremony.Enroll, k)
		a := must(m.Enroll(k))(t)
		x := exchange{prover: b, verifier: b, key: a, judge: listed()}
		_, err := x.run()
		t.Log(name)
		wantReason(t, err, r.want)

		// with the good machine's certificate, which all may read
		other := must(must(good.Enroll(good.session(t)))(t).Evidence())(t)
		x.key = relay{Attestor: a, evidence: func(e device.Evidence) device.Evidence {
			e.EKName, e.EKCert, e.EKPublic = other.EKName, other.EKCert, nil
			return e
		}, secret: make([]byte, 32)}
		_, err = x.run()
		wantReason(t, err, "device_activation")
	}
	soft := software.Open(t.TempDir())
	k := must(soft.NewSession(filepath.Join(t.TempDir(), "k")))(t)
	b := binding(t, ceremony.Enroll, k)
	x := exchange{prover: b, verifier: b, key: must(soft.Enroll(k))(t), judge: listed()}
	_, err := x.run()
	wantReason(t, err, "device_software_refused")
}

// TestA6_MixedTPMs takes the AK of one TPM and the EK of another, and session keys that the AK does not certify.
func TestA6_MixedTPMs(t *testing.T) {
	t.Parallel()
	a, b := newMachine(t, swtpm.Options{}), newMachine(t, swtpm.Options{})
	ka, kb := a.session(t), b.session(t)
	ata, atb := must(a.Enroll(ka))(t), must(b.Enroll(kb))(t)
	eb := must(atb.Evidence())(t)
	bind := binding(t, ceremony.Enroll, ka)
	mixed := func(e device.Evidence) device.Evidence { e.EKName, e.EKPublic = eb.EKName, eb.EKPublic; return e }

	x := exchange{prover: bind, verifier: bind, key: relay{Attestor: ata, evidence: mixed}, judge: open(t)}
	if _, err := x.run(); err == nil {
		t.Error("TPM A opened a credential for the EK of B")
	}
	x.key = relay{Attestor: ata, evidence: mixed, secret: make([]byte, 32)}
	_, err := x.run()
	wantReason(t, err, "device_activation")
	x.key = crossed{relay{Attestor: ata, evidence: mixed}, atb}
	if _, err := x.run(); err == nil {
		t.Error("TPM B opened a credential for the AK of A")
	}

	// A session key that the AK did not certify: another one of the same TPM.
	c := enroll(t, a, open(t))
	k1, k2 := a.session(t), a.session(t)
	bind = binding(t, ceremony.Login, k2)
	x = exchange{prover: bind, verifier: bind, judge: open(t), ask: ceremony.Ask{Credential: &c},
		intro: ceremony.Introduction{CredentialID: c.ID}, key: relay{Attestor: must(a.Login(k1))(t),
			evidence: func(e device.Evidence) device.Evidence { e.SessionArea = k2.Area(); return e }}}
	_, err = x.run()
	wantReason(t, err, "device_session_key")

	// An AK that is not the enrolled one.
	fresh := must(a.Enroll(k2))(t)
	x.key = relay{Attestor: fresh, evidence: func(device.Evidence) device.Evidence {
		return device.Evidence{Kind: device.TPM2, SessionArea: k2.Area()}
	}}
	_, err = x.run()
	wantReason(t, err, "device_signature")
	a.clean(t)
	b.clean(t)
}

// crossed activates with another TPM.
type crossed struct {
	relay
	other hwkey.Attestor
}

func (c crossed) Activate(blob, enc []byte) ([]byte, error) { return c.other.Activate(blob, enc) }

// TestA7_Replay sends a TPM's statements again, and in the place of others.
func TestA7_Replay(t *testing.T) {
	t.Parallel()
	m := newMachine(t, swtpm.Options{})
	c := enroll(t, m, open(t))
	k := m.session(t)
	a := must(m.Login(k))(t)
	b := binding(t, ceremony.Login, k)
	var old device.Proof
	run := func(verifier ceremony.Binding, key ceremony.Key, quote bool) error {
		x := exchange{prover: b, verifier: verifier, key: key, judge: open(t), ask: ceremony.Ask{Credential: &c, Quote: quote},
			intro: ceremony.Introduction{CredentialID: c.ID}}
		_, err := x.run()
		return err
	}
	keep := relay{Attestor: a, prove: func(d [sha256.Size]byte) (p device.Proof, err error) {
		old, err = a.Prove(d, true)
		p = old
		p.Quote = nil
		return p, err
	}}
	wantReason(t, run(b, keep, false), "accepted")
	wantReason(t, run(b, relay{Attestor: a, prove: func([sha256.Size]byte) (device.Proof, error) {
		return device.Proof{Statement: old.Statement, Signature: old.Signature}, nil
	}}, false), "device_transcript")
	wantReason(t, run(b, relay{Attestor: a, prove: func(d [sha256.Size]byte) (device.Proof, error) {
		p, err := a.Prove(d, true)
		p.Quote = old.Quote
		return p, err
	}}, true), "device_transcript")
	wantReason(t, run(b, relay{Attestor: a, prove: func(d [sha256.Size]byte) (device.Proof, error) {
		p, err := a.Prove(d, true)
		return device.Proof{Statement: p.Quote.Statement, Signature: p.Quote.Signature}, err
	}}, false), "device_statement_type")
	for name, change := range map[string]func(*ceremony.Binding){
		"user":        func(b *ceremony.Binding) { b.User = "bob" },
		"cluster":     func(b *ceremony.Binding) { s := sha256.Sum256(nil); b.ClusterCA = s[:] },
		"certificate": func(b *ceremony.Binding) { s := sha256.Sum256(nil); b.Upgraded = s[:] },
	} {
		other := b
		change(&other)
		t.Log(name)
		wantReason(t, run(other, a, false), "device_transcript")
	}
}

// TestSecondKey refuses a session key that is not of the TPM, before anything is asked of it.
func TestSecondKey(t *testing.T) {
	t.Parallel()
	k := must(software.NewKey(filepath.Join(t.TempDir(), "k")))(t)
	m := newMachine(t, swtpm.Options{})
	_, err := m.Enroll(k)
	wantReason(t, err, "key_damaged")
	_, err = tpm.Open(t.TempDir(), m.emulator.Socket).Login(m.session(t))
	wantReason(t, err, "device_key_not_found")
}
