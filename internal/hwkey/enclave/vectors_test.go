//go:build linux

package enclave

import (
	"crypto/rand"
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
)

var update = flag.Bool("update", false, "record the test vectors anew")

const vectorFile = "../../ceremony/testdata/device-v1-enclave.json"

// TestRecordVectors records one ceremony of each purpose with a key of the library that stands in, and keeps them under -update.
func TestRecordVectors(t *testing.T) {
	m := newMac(t)
	var out []map[string]string
	var c device.Credential
	for _, p := range []ceremony.Purpose{ceremony.Enroll, ceremony.Login, ceremony.Reissue} {
		row, r, a := record(t, m, p, c)
		if p == ceremony.Enroll {
			c = r.Credential
			c.ID = "7d9d1f0e-52f8-4a2e-8f4e-2f6a4f1d9b22"
			if err := a.Keep(hwkey.Enrollment{CredentialID: c.ID}); err != nil {
				t.Fatal(err)
			}
		}
		row["level"], row["device_key"] = string(c.Attestation), hex.EncodeToString(c.PublicKey)
		out = append(out, row)
	}
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
}

// record plays one ceremony, and writes down what was said.
func record(t *testing.T, m *mac, p ceremony.Purpose, c device.Credential) (map[string]string, ceremony.Result, hwkey.Attestor) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	k := m.session(t)
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	must(err)
	b := ceremony.Binding{Purpose: p, ClusterCA: pin[:], User: "alice", SessionKey: spki}
	if p == ceremony.Reissue {
		b.Upgraded = pin[:]
	}
	in := ceremony.Introduction{Token: "3f1c0d5e", Claims: device.Data{OSType: device.MacOS, System: device.System{OSID: "macos", OSVersion: "15.1"}, SerialNumber: "C02STANDIN1"}}
	a, err := m.Enroll(k)
	ask := ceremony.Ask{}
	if p != ceremony.Enroll {
		a, err = m.Login(k)
		in.Token, in.CredentialID, ask.Credential = "", c.ID, &c
	}
	must(err)
	prover, err := ceremony.NewProver(b, a)
	must(err)
	verifier, err := ceremony.NewVerifier(b, attestation.NewJudge(nil, false, time.Now()), rand.Reader)
	must(err)
	hello, answer, err := prover.Hello(in)
	must(err)
	_, await, err := verifier.Hello(hello)
	must(err)
	challenge, last, err := await.Challenge(ask)
	must(err)
	proofs, _, err := answer.Proof(challenge)
	must(err)
	r, _, err := last.Proof(proofs[0])
	must(err)
	welcome, err := r.Welcome(ceremony.Welcome{DeviceID: "0b5f2a52-6c1e-4c5d-9d0b-6f0c5f3a8e11", AssetTag: "C02STANDIN1",
		CredentialID: "7d9d1f0e-52f8-4a2e-8f4e-2f6a4f1d9b22", Level: r.Credential.Attestation})
	must(err)
	digest := b.Digest(hello, challenge)
	row := map[string]string{"name": "secure_enclave " + string(p), "purpose": string(p), "user": b.User}
	for key, v := range map[string][]byte{"cluster_ca": b.ClusterCA, "upgraded": b.Upgraded, "session_key": b.SessionKey, "hello": hello,
		"challenge": challenge, "digest": digest[:], "proof": proofs[0], "welcome": welcome} {
		row[key] = hex.EncodeToString(v)
	}
	return row, r, a
}

// TestVectors has today's judge take what was recorded for its digest, and for no other.
func TestVectors(t *testing.T) {
	raw, err := os.ReadFile(filepath.FromSlash(vectorFile))
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	if err := json.Unmarshal(raw, &rows); err != nil || len(rows) != 3 {
		t.Fatal(len(rows), err)
	}
	for _, row := range rows {
		octets := func(name string) []byte {
			b, err := hex.DecodeString(row[name])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		proof := octets("proof") // type; fields with a length of two bytes: secret, statement, signature
		sig := proof[7 : 7+int(proof[5])<<8+int(proof[6])]
		c := device.Credential{Kind: device.SecureEnclave, PublicKey: octets("device_key"), Attestation: device.Level(row["level"])}
		j := attestation.NewJudge(nil, false, time.Now())
		s := device.Session{Key: octets("session_key")}
		digest := [32]byte(octets("digest"))
		if _, err := j.Prove(c, s, digest, device.Proof{Signature: sig}); err != nil {
			t.Errorf("%s: %v", row["name"], err)
		}
		digest[0] ^= 1
		if _, err := j.Prove(c, s, digest, device.Proof{Signature: sig}); err == nil {
			t.Errorf("%s is taken for another digest", row["name"])
		}
	}
}
