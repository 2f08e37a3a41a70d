package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

func reason(err error) string {
	switch f := fault.Of(err); {
	case err == nil:
		return "accepted"
	case f.Reason != "":
		return f.Reason
	default:
		return err.Error()
	}
}

func want(t *testing.T, err error, word string) {
	t.Helper()
	if got := reason(err); got != word {
		t.Errorf("got %s, want %s (%v)", got, word, fault.Of(err))
	}
}

// recorded is what a TPM emulator said in the device protocol's test vectors.
type recorded struct {
	hello, proof            [][]byte // fields
	digest, key, area       []byte
	session                 device.Session
	ekHash, serial, purpose string
}

func recordings(t testing.TB) (out []recorded) {
	t.Helper()
	b, err := os.ReadFile("../ceremony/testdata/device-v1.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []map[string]string
	if err := json.Unmarshal(b, &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		octets := func(name string) []byte {
			b, err := hex.DecodeString(r[name])
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		if r["device_key_area"] == "" {
			continue
		}
		out = append(out, recorded{hello: fields(octets("hello")[3:]), proof: fields(octets("proof")[1:]),
			digest: octets("digest"), key: octets("device_key"), area: octets("device_key_area"),
			session: device.Session{Key: octets("session_key"), Area: octets("session_area")},
			ekHash:  r["ek_hash"], serial: r["ekcert_serial"], purpose: r["purpose"]})
	}
	if len(out) != 3 {
		t.Fatalf("%d recordings of a TPM", len(out))
	}
	return out
}

func fields(b []byte) (out [][]byte) {
	for len(b) >= 2 {
		n := int(b[0])<<8 | int(b[1])
		out, b = append(out, b[2:2+n]), b[2+n:]
	}
	return out
}

func (r recorded) credential() device.Credential {
	return device.Credential{Kind: device.TPM2, PublicKey: r.key, AKArea: r.area}
}

func (r recorded) prove(change func(*device.Credential, *device.Session, *[32]byte, *device.Proof)) error {
	c, s, d := r.credential(), r.session, [32]byte(r.digest)
	p := device.Proof{Statement: r.proof[1], Signature: r.proof[2]}
	if change != nil {
		change(&c, &s, &d, &p)
	}
	_, err := Judge{}.Prove(c, s, d, p)
	return err
}

// TestRecorded judges what a TPM emulator said.
func TestRecorded(t *testing.T) {
	pem, err := os.ReadFile("../ceremony/testdata/ekcert-cas.pem")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := ParseRoots(pem)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recordings(t) {
		want(t, r.prove(nil), "accepted")
		if len(r.proof[3]) > 0 {
			ak, _ := ParseAK(r.area)
			want(t, VerifyQuote(ak, r.digest, device.Quote{Statement: r.proof[3], Signature: r.proof[4], PCRs: r.proof[5]}), "accepted")
		}
		if r.purpose != "enroll" {
			continue
		}
		e := device.Evidence{Kind: device.TPM2, EKName: device.EKName(r.hello[5]), EKCert: r.hello[6], KeyArea: r.area}
		cert, err := ParseEKCert(e.EKCert)
		if err != nil {
			t.Fatal(err)
		}
		if cert.Model != "swtpm" || cert.Version != "id:20191023" || cert.Manufacturer != "id:00001014" {
			t.Errorf("%+v", cert)
		}
		now := cert.cert.NotBefore.Add(time.Hour)
		c, err := NewJudge(listed, false, now).Enroll(e)
		want(t, err, "accepted")
		if c.EKHash != r.ekHash || c.EKCertSerial != r.serial || c.Attestation != device.LevelTPMTrusted {
			t.Errorf("%+v", c)
		}
		c, err = NewJudge(nil, false, now).Enroll(e)
		want(t, err, "accepted")
		if c.Attestation != device.LevelTPMCert {
			t.Errorf("level %s without a list", c.Attestation)
		}
		_, err = NewJudge(nil, false, cert.cert.NotBefore.Add(-time.Second)).Enroll(e)
		want(t, err, "ekcert_expired")
		_, err = Judge{}.Enroll(e)
		want(t, err, "ekcert_expired") // the zero Judge
	}
}

// TestA6_Areas flips each bit of a real AK's and session key's area, and cuts and extends them.
func TestA6_Areas(t *testing.T) {
	r := recordings(t)[0]
	for _, k := range []struct {
		name  string
		area  []byte
		parse func([]byte) (Area, error)
		other func([]byte) (Area, error)
	}{{"AK", r.area, ParseAK, ParseSession}, {"session key", r.session.Area, ParseSession, ParseAK}} {
		if _, err := k.parse(k.area); err != nil {
			t.Fatal(err)
		}
		if _, err := k.other(k.area); reason(err) != "device_key_template" {
			t.Errorf("%s in the place of the other: %v", k.name, err)
		}
		for i := range len(k.area) * 8 {
			bad := bytes.Clone(k.area)
			bad[i/8] ^= 1 << (i % 8)
			if _, err := k.parse(bad); err == nil {
				t.Errorf("%s with bit %d of byte %d flipped is taken", k.name, i%8, i/8)
			}
		}
		for n := range k.area {
			if _, err := k.parse(k.area[:n]); err == nil {
				t.Errorf("%s cut to %d bytes is taken", k.name, n)
			}
		}
		if _, err := k.parse(append(bytes.Clone(k.area), 0)); err == nil {
			t.Errorf("%s with a byte more is taken", k.name)
		}
	}
}

// TestA6_Attributes makes each key that is not exactly as it has to be.
func TestA6_Attributes(t *testing.T) {
	base, err := tpm2.Unmarshal[tpm2.TPMTPublic](recordings(t)[0].area)
	if err != nil {
		t.Fatal(err)
	}
	rsaParms := tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{KeyBits: 2048})
	scheme := func(alg tpm2.TPMAlgID, hash tpm2.TPMAlgID) func(*tpm2.TPMTPublic) {
		return func(p *tpm2.TPMTPublic) {
			s := tpm2.TPMTECCScheme{Scheme: alg}
			if alg == tpm2.TPMAlgECDSA {
				s.Details = tpm2.NewTPMUAsymScheme(alg, &tpm2.TPMSSigSchemeECDSA{HashAlg: hash})
			}
			p.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{CurveID: tpm2.TPMECCNistP256, Scheme: s})
		}
	}
	rows := map[string]func(*tpm2.TPMTPublic){
		"as it is":                 func(*tpm2.TPMTPublic) {},
		"not fixedTPM":             func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedTPM = false },
		"not fixedParent":          func(p *tpm2.TPMTPublic) { p.ObjectAttributes.FixedParent = false },
		"not sensitiveDataOrigin":  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SensitiveDataOrigin = false },
		"not userWithAuth":         func(p *tpm2.TPMTPublic) { p.ObjectAttributes.UserWithAuth = false },
		"not noDA":                 func(p *tpm2.TPMTPublic) { p.ObjectAttributes.NoDA = false },
		"not restricted":           func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Restricted = false },
		"not sign":                 func(p *tpm2.TPMTPublic) { p.ObjectAttributes.SignEncrypt = false },
		"decrypt too":              func(p *tpm2.TPMTPublic) { p.ObjectAttributes.Decrypt = true },
		"adminWithPolicy":          func(p *tpm2.TPMTPublic) { p.ObjectAttributes.AdminWithPolicy = true },
		"stClear":                  func(p *tpm2.TPMTPublic) { p.ObjectAttributes.STClear = true },
		"a policy":                 func(p *tpm2.TPMTPublic) { p.AuthPolicy.Buffer = make([]byte, 32) },
		"name algorithm SHA-1":     func(p *tpm2.TPMTPublic) { p.NameAlg = tpm2.TPMAlgSHA1 },
		"scheme ECDSA SHA-1":       scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA1),
		"scheme ECDSA SHA-384":     scheme(tpm2.TPMAlgECDSA, tpm2.TPMAlgSHA384),
		"no scheme":                scheme(tpm2.TPMAlgNull, 0),
		"an RSA key":               func(p *tpm2.TPMTPublic) { p.Type, p.Parameters = tpm2.TPMAlgRSA, rsaParms },
		"the point at infinity":    func(p *tpm2.TPMTPublic) { p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}) },
		"a point off the curve":    func(p *tpm2.TPMTPublic) { p.Unique = point(make([]byte, 32), []byte{1}) },
		"a coordinate of 33 bytes": func(p *tpm2.TPMTPublic) { p.Unique = point(make([]byte, 33), make([]byte, 32)) },
	}
	for name, change := range rows {
		p := *base
		change(&p)
		if name == "an RSA key" {
			p.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: make([]byte, 256)})
		}
		if _, err := ParseAK(tpm2.Marshal(p)); (err == nil) != (name == "as it is") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func point(x, y []byte) tpm2.TPMUPublicID {
	return tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
}

// TestA7_Statements changes a recorded statement and what it is to be about.
func TestA7_Statements(t *testing.T) {
	rs := recordings(t)
	r, other := rs[1], rs[2]
	rows := map[string]struct {
		change func(*device.Credential, *device.Session, *[32]byte, *device.Proof)
		want   string
	}{
		"another transcript": {func(_ *device.Credential, _ *device.Session, d *[32]byte, _ *device.Proof) { d[0]++ }, "device_transcript"},
		"another session key": {func(_ *device.Credential, s *device.Session, _ *[32]byte, _ *device.Proof) { *s = other.session },
			"device_session_key"},
		"certificates for another key": {func(_ *device.Credential, s *device.Session, _ *[32]byte, _ *device.Proof) {
			s.Key = other.session.Key
		}, "device_session_key"},
		"area of another session key": {func(_ *device.Credential, s *device.Session, _ *[32]byte, _ *device.Proof) {
			s.Area = other.session.Area
		}, "device_session_key"},
		"AK for session key": {func(_ *device.Credential, s *device.Session, _ *[32]byte, _ *device.Proof) { s.Area = r.area },
			"device_key_template"},
		"another device's key": {func(c *device.Credential, _ *device.Session, _ *[32]byte, _ *device.Proof) {
			c.AKArea, c.PublicKey = softAK(t)
		}, "device_signature"},
		"area apart from the key": {func(c *device.Credential, _ *device.Session, _ *[32]byte, _ *device.Proof) { c.PublicKey = nil },
			"device_key_area"},
		"another login's statement": {func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) {
			p.Statement, p.Signature = other.proof[1], other.proof[2]
		}, "device_transcript"},
		"no statement": {func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) { p.Statement = nil }, "device_statement"},
		"no signature": {func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) { p.Signature = nil }, "device_signature"},
		"a quote": {func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) {
			p.Statement, p.Signature = r.proof[3], r.proof[4]
		}, "device_statement_type"},
		"kind unknown": {func(c *device.Credential, _ *device.Session, _ *[32]byte, _ *device.Proof) { c.Kind = "" }, "device_kind"},
		"software":     {func(c *device.Credential, _ *device.Session, _ *[32]byte, _ *device.Proof) { c.Kind = device.Software }, "device_software_refused"},
		"enclave": {func(c *device.Credential, _ *device.Session, _ *[32]byte, _ *device.Proof) {
			c.Kind = device.SecureEnclave
		},
			"device_statement"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) { want(t, r.prove(row.change), row.want) })
	}
	for i := range len(r.proof[1]) * 8 {
		bad := bytes.Clone(r.proof[1])
		bad[i/8] ^= 1 << (i % 8)
		if r.prove(func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) { p.Statement = bad }) == nil {
			t.Errorf("a statement with bit %d flipped is taken", i)
		}
	}
	if r.prove(func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) {
		p.Statement = append(bytes.Clone(p.Statement), 0)
	}) == nil {
		t.Error("a statement with a byte more is taken")
	}
	if r.prove(func(_ *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) {
		p.Signature = append(bytes.Clone(p.Signature), 0)
	}) == nil {
		t.Error("a signature with a byte more is taken")
	}
}

// TestA6_ForgedStatement has a software key of the AK's template sign statements that no TPM made.
func TestA6_ForgedStatement(t *testing.T) {
	r := recordings(t)[1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	area, spki := areaOf(t, key)
	base, err := tpm2.Unmarshal[tpm2.TPMSAttest](r.proof[1])
	if err != nil {
		t.Fatal(err)
	}
	session, err := ParseSession(r.session.Area)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		change func(*tpm2.TPMSAttest)
		want   string
	}{
		"all in order":   {func(*tpm2.TPMSAttest) {}, "accepted"}, // so the rows below are refused for their own reason
		"another magic":  {func(a *tpm2.TPMSAttest) { a.Magic = 0x12345678 }, "device_statement"},
		"qualified name": {func(a *tpm2.TPMSAttest) { a.Attested = certified(session.Name[:33]) }, "device_session_key"},
		"empty name":     {func(a *tpm2.TPMSAttest) { a.Attested = certified(nil) }, "device_session_key"},
		"another name":   {func(a *tpm2.TPMSAttest) { a.Attested = certified(bytes.Repeat([]byte{0}, 34)) }, "device_session_key"},
		"no data":        {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = nil }, "device_transcript"},
		"short data":     {func(a *tpm2.TPMSAttest) { a.ExtraData.Buffer = a.ExtraData.Buffer[:31] }, "device_transcript"},
	}
	for name, row := range rows {
		a := *base
		row.change(&a)
		statement := tpm2.Marshal(a)
		got := r.prove(func(c *device.Credential, _ *device.Session, _ *[32]byte, p *device.Proof) {
			c.AKArea, c.PublicKey = area, spki
			p.Statement, p.Signature = statement, signTPM(t, key, statement)
		})
		if reason(got) != row.want {
			t.Errorf("%s: %s, want %s", name, reason(got), row.want)
		}
	}
}

func certified(name []byte) tpm2.TPMUAttest {
	return tpm2.NewTPMUAttest(tpm2.TPMSTAttestCertify, &tpm2.TPMSCertifyInfo{Name: tpm2.TPM2BName{Buffer: name}})
}

func signTPM(t *testing.T, key *ecdsa.PrivateKey, statement []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(statement)
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(tpm2.TPMTSignature{SigAlg: tpm2.TPMAlgECDSA, Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgECDSA,
		&tpm2.TPMSSignatureECC{Hash: tpm2.TPMAlgSHA256, SignatureR: tpm2.TPM2BECCParameter{Buffer: r.Bytes()},
			SignatureS: tpm2.TPM2BECCParameter{Buffer: s.Bytes()}})})
}

// areaOf is a software key in the AK's template.
func areaOf(t *testing.T, key *ecdsa.PrivateKey) (area, spki []byte) {
	t.Helper()
	p, err := tpm2.Unmarshal[tpm2.TPMTPublic](recordings(t)[0].area)
	if err != nil {
		t.Fatal(err)
	}
	b, err := key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	p.Unique = point(b[1:33], b[33:])
	spki, err = x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.Marshal(*p), spki
}

func softAK(t *testing.T) (area, spki []byte) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return areaOf(t, key)
}

// TestSoftware judges device keys that sign the transcript themselves.
func TestSoftware(t *testing.T) {
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	spki, _ := x509.MarshalPKIXPublicKey(key.Public())
	digest := sha256.Sum256([]byte("transcript"))
	sig, _ := key.Sign(rand.Reader, digest[:], crypto.SHA256)
	on, off := NewJudge(nil, true, time.Time{}), NewJudge(nil, false, time.Time{})
	for _, kind := range []device.Kind{device.Software, device.SecureEnclave} {
		c, err := on.Enroll(device.Evidence{Kind: kind, Key: spki})
		want(t, err, "accepted")
		if c.Attestation.Hardware() != (kind == device.SecureEnclave) {
			t.Errorf("%s is at level %s", kind, c.Attestation)
		}
		_, err = on.Prove(c, device.Session{Key: spki}, digest, device.Proof{Signature: sig})
		want(t, err, "accepted")
		_, err = on.Prove(c, device.Session{Key: spki}, sha256.Sum256(nil), device.Proof{Signature: sig})
		want(t, err, "device_signature")
		_, err = on.Prove(c, device.Session{Key: []byte("no key")}, digest, device.Proof{Signature: sig})
		want(t, err, "device_key")
		_, err = on.Enroll(device.Evidence{Kind: kind, Key: append(bytes.Clone(spki), 0)})
		want(t, err, "device_key")
	}
	_, err := off.Enroll(device.Evidence{Kind: device.Software, Key: spki})
	want(t, err, "device_software_refused")
	_, err = off.Prove(device.Credential{Kind: device.Software, PublicKey: spki}, device.Session{Key: spki}, digest, device.Proof{Signature: sig})
	want(t, err, "device_software_refused")
	big, _ := rsa.GenerateKey(rand.Reader, 2048)
	other, _ := x509.MarshalPKIXPublicKey(big.Public())
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	wrong, _ := x509.MarshalPKIXPublicKey(p384.Public())
	for _, b := range [][]byte{nil, other, wrong, spki[:40]} {
		_, err = on.Enroll(device.Evidence{Kind: device.Software, Key: b})
		want(t, err, "device_key")
	}
	_, err = on.Enroll(device.Evidence{})
	want(t, err, "device_kind")
}

// TestProtect makes credentials for each EK; real TPMs open them in package hwkey/tpm.
func TestProtect(t *testing.T) {
	area, _ := softAK(t)
	big, _ := rsa.GenerateKey(rand.Reader, 2048)
	bigger, _ := rsa.GenerateKey(rand.Reader, 3072)
	p256k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384k, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	keys := map[device.EKName]any{device.EKRSA2048: big.Public(), device.EKP256: p256k.Public(), device.EKP384: p384k.Public(),
		"rsa3072": bigger.Public()}
	for name := range keys {
		for of, k := range keys {
			spki, err := x509.MarshalPKIXPublicKey(k)
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = Judge{}.Protect(rand.Reader, device.Evidence{Kind: device.TPM2, EKName: name, EKPublic: spki, KeyArea: area},
				make([]byte, 32))
			if (err == nil) != (name == of && name != "rsa3072") {
				t.Errorf("%s key as %s: %v", of, name, err)
			}
		}
	}
	spki, _ := x509.MarshalPKIXPublicKey(p256k.Public())
	_, _, err := Judge{}.Protect(io.LimitReader(rand.Reader, 1), device.Evidence{Kind: device.TPM2, EKName: device.EKP256,
		EKPublic: spki, KeyArea: area[:10]}, make([]byte, 32))
	want(t, err, "device_key_area")
}

func FuzzArea(f *testing.F) {
	for _, r := range recordings(f) {
		f.Add(r.area)
		f.Add(r.session.Area)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, restricted := range []bool{false, true} {
			a, err := parseArea(b, restricted)
			slow, serr := explainArea(b, restricted) // by go-tpm, structure by structure
			if (err == nil) != (serr == nil) || err == nil && (!bytes.Equal(a.Name, slow.Name) || !a.key.Equal(slow.key)) {
				t.Fatalf("%v, and structure by structure %v", err, serr)
			}
			if err != nil {
				continue
			}
			pub, err := tpm2.Unmarshal[tpm2.TPMTPublic](b)
			if err != nil {
				t.Fatal(err)
			}
			if name, err := tpm2.ObjectName(pub); err != nil || !bytes.Equal(name.Buffer, a.Name) {
				t.Errorf("named %x, go-tpm names it %x, %v", a.Name, name.Buffer, err)
			}
		}
	})
}

func FuzzStatement(f *testing.F) {
	rs := recordings(f)
	for _, r := range rs {
		f.Add(r.proof[1], r.proof[2])
		f.Add(r.proof[3], r.proof[4])
	}
	ak, _ := ParseAK(rs[1].area)
	session, _ := ParseSession(rs[1].session.Area)
	f.Fuzz(func(t *testing.T, statement, signature []byte) {
		_, err := VerifyCertify(ak, session, rs[1].digest, statement, signature)
		if err == nil && !bytes.Equal(statement, rs[1].proof[1]) {
			t.Error("took another statement")
		}
		_ = VerifyQuote(ak, rs[1].digest, device.Quote{Statement: statement, Signature: signature})
	})
}

// TestA42_Quotes has a software key of the AK's template quote PCRs that are not the ones wanted.
func TestA42_Quotes(t *testing.T) {
	r := recordings(t)[1]
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	area, _ := areaOf(t, key)
	ak, err := ParseAK(area)
	if err != nil {
		t.Fatal(err)
	}
	base, err := tpm2.Unmarshal[tpm2.TPMSAttest](r.proof[3])
	if err != nil {
		t.Fatal(err)
	}
	info, err := base.Attested.Quote()
	if err != nil {
		t.Fatal(err)
	}
	selection := func(hash tpm2.TPMAlgID, pcrs ...byte) tpm2.TPMSPCRSelection {
		return tpm2.TPMSPCRSelection{Hash: hash, PCRSelect: pcrs}
	}
	whole := selection(tpm2.TPMAlgSHA256, 0xff, 0x43, 0)
	rows := map[string]struct {
		selections []tpm2.TPMSPCRSelection
		pcrs       []byte
		want       string
	}{
		"in order":       {[]tpm2.TPMSPCRSelection{whole}, r.proof[5], "accepted"},
		"a PCR flipped":  {[]tpm2.TPMSPCRSelection{whole}, append([]byte{^r.proof[5][0]}, r.proof[5][1:]...), "device_quote_pcrs"},
		"a PCR missing":  {[]tpm2.TPMSPCRSelection{whole}, r.proof[5][:10*32], "device_quote_pcrs"},
		"SHA-1 bank":     {[]tpm2.TPMSPCRSelection{selection(tpm2.TPMAlgSHA1, 0xff, 0x43, 0)}, r.proof[5], "device_quote_selection"},
		"without PCR 7":  {[]tpm2.TPMSPCRSelection{selection(tpm2.TPMAlgSHA256, 0x7f, 0x43, 0)}, r.proof[5], "device_quote_selection"},
		"resettable PCR": {[]tpm2.TPMSPCRSelection{selection(tpm2.TPMAlgSHA256, 0xff, 0x43, 1)}, r.proof[5], "device_quote_selection"},
		"PCRs 0 to 7":    {[]tpm2.TPMSPCRSelection{selection(tpm2.TPMAlgSHA256, 0xff, 0, 0)}, r.proof[5][:8*32], "device_quote_selection"},
		"two banks":      {[]tpm2.TPMSPCRSelection{whole, selection(tpm2.TPMAlgSHA1, 0xff, 0x43, 0)}, r.proof[5], "device_quote_selection"},
		"none":           {nil, r.proof[5], "device_quote_selection"},
	}
	for name, row := range rows {
		a := *base
		q := *info
		q.PCRSelect.PCRSelections = row.selections
		a.Attested = tpm2.NewTPMUAttest(tpm2.TPMSTAttestQuote, &q)
		statement := tpm2.Marshal(a)
		err := VerifyQuote(ak, r.digest, device.Quote{Statement: statement, Signature: signTPM(t, key, statement), PCRs: row.pcrs})
		if reason(err) != row.want {
			t.Errorf("%s: %s, want %s", name, reason(err), row.want)
		}
	}
}
