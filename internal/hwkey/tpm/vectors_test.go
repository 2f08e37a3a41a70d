package tpm_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/software"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
)

var update = flag.Bool("update", false, "record the test vectors anew")

const vectorFile = "../../ceremony/testdata/device-v1.json"

// TestRecordVectors records ceremonies with a TPM emulator and with a software key, and keeps them under -update.
func TestRecordVectors(t *testing.T) {
	m := newMachine(t, swtpm.Options{EKCert: true})
	home := t.TempDir()
	m.boot(t, firmware.Boot{SecureBoot: true, Loader: "shim"})
	soft := software.Open(filepath.Join(home, "device"))
	j := attestation.NewJudge(nil, true, time.Now())
	out := record(t, "tpm2", m.Device, j)
	out = append(out, record(t, "software", soft, j)...)
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if !*update {
		return
	}
	if err := os.WriteFile(vectorFile, append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
	ca := must(m.emulator.CA.PEM())(t)
	if err := os.WriteFile("../../ceremony/testdata/ekcert-cas.pem", ca, 0o644); err != nil {
		t.Fatal(err)
	}
}

func record(t *testing.T, name string, d hwkey.Device, j ceremony.Judge) (out []map[string]string) {
	t.Helper()
	var c device.Credential
	for _, p := range []ceremony.Purpose{ceremony.Enroll, ceremony.Login, ceremony.Reissue} {
		k := must(d.NewSession(filepath.Join(t.TempDir(), "k")))(t)
		b := binding(t, p, k)
		if p == ceremony.Reissue {
			b.Upgraded = pin[:]
		}
		x := exchange{prover: b, verifier: b, judge: j, intro: ceremony.Introduction{Token: "3f1c0d5e", Claims: device.Data{
			OSType: device.Linux, System: device.System{OSID: "debian", OSVersion: "12"}}}}
		var a hwkey.Attestor
		if p == ceremony.Enroll {
			a = must(d.Enroll(k))(t)
		} else {
			a = must(d.Login(k))(t)
			x.intro.Token, x.intro.CredentialID = "", c.ID
			x.ask = ceremony.Ask{Credential: &c, Quote: name == "tpm2" && p == ceremony.Login}
		}
		x.key = a
		r := must(x.run())(t)
		w := ceremony.Welcome{DeviceID: "0b5f2a52-6c1e-4c5d-9d0b-6f0c5f3a8e11", AssetTag: "PF1ABC",
			CredentialID: "7d9d1f0e-52f8-4a2e-8f4e-2f6a4f1d9b22", Level: r.Credential.Attestation}
		welcome := must(r.Welcome(w))(t)
		if p == ceremony.Enroll {
			c = r.Credential
			c.ID = w.CredentialID
			if err := a.Keep(hwkey.Enrollment{CredentialID: c.ID}); err != nil {
				t.Fatal(err)
			}
		}
		digest := b.Digest(x.hello, x.challenge)
		row := map[string]string{"name": name + " " + string(p), "purpose": string(p), "user": b.User,
			"level": string(c.Attestation), "ek_hash": c.EKHash, "ekcert_serial": c.EKCertSerial}
		for key, v := range map[string][]byte{"cluster_ca": b.ClusterCA, "upgraded": b.Upgraded, "session_key": b.SessionKey,
			"hello": x.hello, "challenge": x.challenge, "digest": digest[:], "proof": x.proof, "welcome": welcome,
			"device_key": c.PublicKey, "device_key_area": c.AKArea, "session_area": k.Area(), "secret": secretOf(x.proof)} {
			row[key] = hex.EncodeToString(v)
		}
		if len(x.logs) == 1 {
			row["log"] = hex.EncodeToString(x.logs[0])
		}
		if _, err := x509.ParsePKIXPublicKey(c.PublicKey); err != nil {
			t.Fatal(err)
		}
		out = append(out, row)
	}
	return out
}

// secretOf is the first field of a Proof.
func secretOf(proof []byte) []byte {
	n := int(proof[1])<<8 | int(proof[2])
	return proof[3 : 3+n]
}
