package attestation

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/device"
)

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

// maker is a TPM maker's authority.
type maker struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

var ekKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

func newMaker(t *testing.T, name string, parent *maker) *maker {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	m := &maker{key: key}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0), KeyUsage: x509.KeyUsageCertSign}
	by := m
	if parent != nil {
		by = parent
	} else {
		m.cert = template
	}
	m.cert = issue(t, by, template, key.Public())
	return m
}

func issue(t *testing.T, by *maker, template *x509.Certificate, pub crypto.PublicKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, pub, by.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *maker) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: m.cert.Raw})
}

func listed(t *testing.T, makers ...*maker) *Roots {
	t.Helper()
	var text []byte
	for _, m := range makers {
		text = append(text, m.pem()...)
	}
	r, err := ParseRoots(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// san is a subject alternative name of directory names, each attribute in an RDN of its own.
func san(t *testing.T, critical bool, attributes ...pkix.AttributeTypeAndValue) pkix.Extension {
	t.Helper()
	var rdns pkix.RDNSequence
	for _, a := range attributes {
		rdns = append(rdns, pkix.RelativeDistinguishedNameSET{a})
	}
	name, err := asn1.Marshal(rdns)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: name}})
	if err != nil {
		t.Fatal(err)
	}
	return pkix.Extension{Id: oidSAN, Critical: critical, Value: value}
}

func attr(oid asn1.ObjectIdentifier, v any) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: oid, Value: v}
}

func goodSAN(t *testing.T) pkix.Extension {
	return san(t, true, attr(oidManufacturer, "id:49465800"), attr(oidModel, "SLB9670"), attr(oidVersion, "id:0D0B"))
}

// ekTemplate is a certificate that is in order.
func ekTemplate(t *testing.T) *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(42), NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(9, 0, 0),
		UnknownExtKeyUsage: []asn1.ObjectIdentifier{oidEKUsage}, KeyUsage: x509.KeyUsageKeyEncipherment,
		ExtraExtensions: []pkix.Extension{goodSAN(t)}}
}

// TestA40_EKCertificates judges certificates with one thing wrong in each.
func TestA40_EKCertificates(t *testing.T) {
	root := newMaker(t, "root", nil)
	inter := newMaker(t, "intermediate", root)
	stranger := newMaker(t, "root", nil) // the same name, another key
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	type c = x509.Certificate
	rows := []struct {
		name   string
		change func(*c)
		want   string
	}{
		{"in order", func(*c) {}, "accepted"},
		{"SAN not critical, with a subject", func(x *c) {
			x.Subject.CommonName = "unknown"
			x.ExtraExtensions[0].Critical = false
		}, "accepted"},
		{"expired", func(x *c) { x.NotAfter = now.Add(-time.Second) }, "ekcert_expired"},
		{"not valid yet", func(x *c) { x.NotBefore = now.Add(time.Second) }, "ekcert_expired"},
		{"no extended usage", func(x *c) { x.UnknownExtKeyUsage = nil }, "ekcert_usage"},
		{"usage of an AK", func(x *c) { x.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}} }, "ekcert_usage"},
		{"usage of a TLS client", func(x *c) {
			x.UnknownExtKeyUsage, x.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, "ekcert_usage"},
		{"any usage", func(x *c) {
			x.UnknownExtKeyUsage, x.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}, "ekcert_usage"},
		{"an authority's", func(x *c) { x.IsCA, x.BasicConstraintsValid = true, true }, "ekcert_usage"},
		{"no SAN", func(x *c) { x.ExtraExtensions = nil }, "ekcert_san"},
		{"DNS name for SAN", func(x *c) { x.ExtraExtensions, x.DNSNames = nil, []string{"tpm"} }, "ekcert_san"},
		{"SAN without model", func(x *c) {
			x.ExtraExtensions[0] = san(t, true, attr(oidManufacturer, "id:1"), attr(oidVersion, "1"))
		}, "ekcert_san"},
		{"SAN with two makers", func(x *c) {
			x.ExtraExtensions[0] = san(t, true, attr(oidManufacturer, "a"), attr(oidManufacturer, "b"), attr(oidModel, "m"), attr(oidVersion, "1"))
		}, "ekcert_san"},
		{"SAN with a number", func(x *c) {
			x.ExtraExtensions[0] = san(t, true, attr(oidManufacturer, 7), attr(oidModel, "m"), attr(oidVersion, "1"))
		}, "ekcert_san"},
		{"SAN with an escape", func(x *c) {
			x.ExtraExtensions[0] = san(t, true, attr(oidManufacturer, "a"), attr(oidModel, "m\x1b[31m"), attr(oidVersion, "1"))
		}, "ekcert_san"},
		{"SAN with bytes behind", func(x *c) { x.ExtraExtensions[0].Value = append(x.ExtraExtensions[0].Value, 5, 0) }, "malformed or san"},
		{"unknown critical extension", func(x *c) {
			x.ExtraExtensions = append(x.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}})
		}, "ekcert_malformed"},
	}
	roots := listed(t, root, inter)
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			template := ekTemplate(t)
			r.change(template)
			cert := issue2(t, inter, template, ekKey().Public())
			j := NewJudge(roots, false, now)
			area, _ := softAK(t)
			got, err := j.Enroll(device.Evidence{Kind: device.TPM2, EKName: device.EKRSA2048, EKCert: cert, KeyArea: area})
			if r.want == "malformed or san" {
				if w := reason(err); w != "ekcert_malformed" && w != "ekcert_san" {
					t.Error(w)
				}
				return
			}
			want(t, err, r.want)
			if err == nil && (got.Attestation != device.LevelTPMTrusted || got.EKCertSerial != "42" || got.TPM.Manufacturer != "IFX") {
				t.Errorf("%+v", got)
			}
		})
	}
	area, _ := softAK(t)
	good := issue2(t, inter, ekTemplate(t), ekKey().Public())
	e := device.Evidence{Kind: device.TPM2, EKName: device.EKRSA2048, EKCert: good, KeyArea: area}
	for name, row := range map[string]struct {
		roots *Roots
		want  string
	}{"root and intermediate": {roots, "accepted"}, "intermediate alone": {listed(t, inter), "accepted"},
		"root alone": {listed(t, root), "ekcert_untrusted"}, "a stranger of the same name": {listed(t, stranger), "ekcert_untrusted"}} {
		_, err := NewJudge(row.roots, false, now).Enroll(e)
		t.Log(name)
		want(t, err, row.want)
	}
	// A certificate that is not of the EK: another algorithm, and another key beside it.
	e.EKName = device.EKP256
	_, err = NewJudge(roots, false, now).Enroll(e)
	want(t, err, "ek_key")
	e.EKName, e.EKPublic = device.EKRSA2048, must(x509.MarshalPKIXPublicKey(p256.Public()))
	_, err = NewJudge(roots, false, now).Enroll(e)
	want(t, err, "ek_mismatch")
	e.EKPublic = must(x509.MarshalPKIXPublicKey(ekKey().Public()))
	_, err = NewJudge(roots, false, now).Enroll(e)
	want(t, err, "accepted")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// issue2 signs without reading the result again, which may be refused.
func issue2(t *testing.T, by *maker, template *x509.Certificate, pub crypto.PublicKey) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, pub, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestA40_Bytes cuts, pads, and overgrows a certificate.
func TestA40_Bytes(t *testing.T) {
	good := issue2(t, newMaker(t, "root", nil), ekTemplate(t), ekKey().Public())
	for n := range good {
		if _, err := ParseEKCert(good[:n]); err == nil {
			t.Fatalf("cut to %d bytes it is taken", n)
		}
	}
	for _, fill := range []byte{0x00, 0xff} { // as NV leaves it
		padded := append(bytes.Clone(good), bytes.Repeat([]byte{fill}, 300)...)
		if c, err := ParseEKCert(padded); err != nil || c.Serial != "42" {
			t.Errorf("padding %x: %v", fill, err)
		}
	}
	_, err := ParseEKCert(append(bytes.Clone(good), make([]byte, MaxEKCert)...))
	want(t, err, "ekcert_size")
	_, err = ParseEKCert([]byte{0x30, 0x84, 0xff, 0xff, 0xff, 0xff, 0})
	want(t, err, "ekcert_malformed")
}

// TestOAEPKey reads an RSA key that its certificate calls id-RSAES-OAEP.
func TestOAEPKey(t *testing.T) {
	key := ekKey()
	der := issue2(t, newMaker(t, "root", nil), ekTemplate(t), key.Public())
	plain, oaep := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 7}
	if bytes.Count(der, plain) != 1 {
		t.Fatal("the key's algorithm is not where it is looked for")
	}
	c, err := ParseEKCert(bytes.Replace(der, plain, oaep, 1))
	if err != nil {
		t.Fatal(err)
	}
	if k, ok := c.public.(*rsa.PublicKey); !ok || !k.Equal(key.Public()) {
		t.Errorf("got %T", c.public)
	}
}

func TestParseRoots(t *testing.T) {
	m := newMaker(t, "root", nil)
	leaf := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: issue2(t, m, ekTemplate(t), ekKey().Public())})
	for name, row := range map[string]struct {
		text []byte
		ok   bool
	}{"nothing": {nil, true}, "one": {m.pem(), true}, "two": {append(m.pem(), m.pem()...), true}, "text behind": {append(m.pem(), "x"...), false},
		"a leaf": {leaf, false}, "a key": {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}), false}} {
		if _, err := ParseRoots(row.text); (err == nil) != row.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzEKCert(f *testing.F) {
	for _, r := range recordings(f) {
		if r.purpose == "enroll" {
			f.Add(r.hello[6])
		}
	}
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseEKCert(b)
		if err != nil {
			return
		}
		if c.Manufacturer == "" || c.public == nil || len(b) > MaxEKCert {
			t.Error("took nonsense")
		}
		_, _ = c.Level(nil, now)
		for _, n := range []device.EKName{device.EKRSA2048, device.EKP256, device.EKP384} {
			_, _, _ = deriveEK(n, c.public)
		}
	})
}
