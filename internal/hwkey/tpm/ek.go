package tpm

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
)

// ekSpec is an endorsement key of the TCG EK Credential Profile: where its certificate is, and its template.
type ekSpec struct {
	name     device.EKName
	cert     tpm2.TPMHandle // NV index
	template tpm2.TPMTPublic
	policy   []tpm2.TPM2BDigest // branches of a PolicyOR behind PolicySecret, of high-range templates
}

// The digests of the high-range SHA-384 templates (EK Credential Profile 2.3, B.6): PolicyB is the PolicyOR of PolicyA,
// which is PolicySecret(endorsement), and PolicyC, which is PolicyAuthorizeNV.
var (
	policyA384 = unhex("8bbf2266537c171cb56e403c4dc1d4b64f432611dc386e6f532050c3278c930e143e8bb1133824ccb431053871c6db53")
	policyB384 = unhex("b26e7d28d11a50bc53d882bcf5fd3a1a074148bb35d3b4e4cb1c0ad9bde419cacb47ba09699646150f9fc000f3f80e12")
	policyC384 = unhex("d6032ce61f2fb3c240eb3cf6a33237ef2b6a16f4293c22b455e261cffd217ad5b4947c2d73e63005eed2dc2b3593d165")
)

func unhex(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil
	}
	return b
}

// ekSpecs lists the endorsement keys in order of choice.
func ekSpecs() []ekSpec {
	p384 := tpm2.ECCEKTemplate
	p384.NameAlg = tpm2.TPMAlgSHA384
	p384.ObjectAttributes.UserWithAuth = true
	p384.AuthPolicy = tpm2.TPM2BDigest{Buffer: policyB384}
	p384.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	})
	p384.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})
	return []ekSpec{
		{name: device.EKRSA2048, cert: 0x01c00002, template: tpm2.RSAEKTemplate},
		{name: device.EKP256, cert: 0x01c0000a, template: tpm2.ECCEKTemplate},
		{name: device.EKP384, cert: 0x01c00016, template: p384,
			policy: []tpm2.TPM2BDigest{{Buffer: policyA384}, {Buffer: policyC384}}},
	}
}

// chooseEK finds the endorsement key of this TPM: the first whose certificate is in NV, else the first with a
// persistent handle, else the first whose template the TPM takes. The key is open then, but for the first case.
func (c *chip) chooseEK() (spec ekSpec, cert []byte, err error) {
	for _, s := range ekSpecs() {
		if cert := c.readCert(s.cert); cert != nil {
			return s, cert, nil
		}
	}
	for _, s := range ekSpecs() {
		if _, _, err := c.persistentEK(s); err == nil {
			return s, nil, nil
		}
	}
	for _, s := range ekSpecs() {
		o, _, oerr := c.openEK(s)
		if oerr == nil {
			return s, nil, c.flush(o)
		}
		if fault.Because(oerr, hwkey.ErrEndorsement.Reason) {
			return s, nil, oerr
		}
		err = errors.Join(err, oerr)
	}
	return ekSpec{}, nil, fmt.Errorf("find endorsement key: %w", err)
}

// persistentEK finds the key of a template among the handles of endorsement keys (TCG registry of reserved handles).
func (c *chip) persistentEK(s ekSpec) (object, *tpm2.TPMTPublic, error) {
	const first, count = 0x81010000, 64
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: count}.Execute(c)
	if err != nil {
		return object{}, nil, fmt.Errorf("list persistent handles: %w", err)
	}
	handles, err := rsp.CapabilityData.Data.Handles()
	if err != nil {
		return object{}, nil, fmt.Errorf("list persistent handles: %w", err)
	}
	for _, h := range handles.Handle {
		if h>>16 != first>>16 {
			continue
		}
		if pub, o, err := c.readPublic(h); err == nil && fits(*pub, s.template) {
			return o, pub, nil
		}
	}
	return object{}, nil, fmt.Errorf("no persistent %s endorsement key", s.name)
}

// fits compares a public area with a template, the key itself apart.
func fits(pub, template tpm2.TPMTPublic) bool {
	template.Unique = pub.Unique
	return pub.Type == template.Type && bytes.Equal(tpm2.Marshal(pub), tpm2.Marshal(template))
}

// openEK opens the persistent key or makes it from its template.
func (c *chip) openEK(s ekSpec) (object, *tpm2.TPMTPublic, error) {
	if o, pub, err := c.persistentEK(s); err == nil {
		return o, pub, nil
	}
	auth, err := platform.EndorsementAuth()
	if err != nil {
		return object{}, nil, err
	}
	o, err := c.primary(tpm2.TPMRHEndorsement, s.template, auth)
	if authFailed(err) {
		return object{}, nil, platform.EndorsementRefused(err)
	}
	if err != nil {
		return object{}, nil, err
	}
	pub, _, err := c.readPublic(o.handle)
	return o, pub, err
}

// readCert reads a certificate by the index's own, empty authorization; nil where there is none to be read so. An
// index that would count a failure towards lockout is left alone.
func (c *chip) readCert(index tpm2.TPMHandle) []byte {
	pub, err := tpm2.NVReadPublic{NVIndex: index}.Execute(c)
	if err != nil {
		return nil
	}
	nv, err := pub.NVPublic.Contents()
	if err != nil || !nv.Attributes.AuthRead || !nv.Attributes.NoDA || nv.DataSize > maxCert {
		return nil
	}
	step := uint16(512)
	if most, err := c.property(tpm2.TPMPTNVBufferMax); err == nil && most < uint32(step) && most > 0 {
		step = uint16(most)
	}
	var out []byte
	for size := nv.DataSize; len(out) < int(size); {
		rsp, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: pub.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: pub.NVName},
			Size:       min(step, size-uint16(len(out))),
			Offset:     uint16(len(out)),
		}.Execute(c)
		if err != nil || len(rsp.Data.Buffer) == 0 {
			return nil
		}
		out = append(out, rsp.Data.Buffer...)
	}
	if len(out) == 0 || out[0] != 0x30 { // a certificate is a DER SEQUENCE
		return nil
	}
	return out
}

// maxCert bounds an EK certificate.
const maxCert = 8 << 10

// activate opens a credential with the endorsement key, which wants PolicySecret of the endorsement hierarchy.
func (c *chip) activate(s ekSpec, ak object, blob, encrypted []byte) ([]byte, error) {
	ek, _, err := c.openEK(s)
	if err != nil {
		return nil, err
	}
	auth, err := platform.EndorsementAuth()
	if err != nil {
		return nil, err
	}
	policy := func(t tpmTransport, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicySecret{
			AuthHandle:    tpm2.AuthHandle{Handle: tpm2.TPMRHEndorsement, Auth: tpm2.PasswordAuth(auth)},
			PolicySession: session,
			NonceTPM:      nonce,
		}.Execute(t)
		if authFailed(err) {
			return platform.EndorsementRefused(err)
		}
		if err != nil || s.policy == nil {
			return err
		}
		_, err = tpm2.PolicyOr{PolicySession: session, PHashList: tpm2.TPMLDigest{Digests: s.policy}}.Execute(t)
		return err
	}
	session, done, err := tpm2.PolicySession(c, s.template.NameAlg, 16)
	if err != nil {
		return nil, fmt.Errorf("start policy session: %w", err)
	}
	if err := policy(c, session.Handle(), session.NonceTPM()); err != nil {
		return nil, errors.Join(err, done())
	}
	rsp, err := tpm2.ActivateCredential{
		ActivateHandle: ak.auth(),
		KeyHandle:      tpm2.AuthHandle{Handle: ek.handle, Name: ek.name, Auth: session},
		CredentialBlob: tpm2.TPM2BIDObject{Buffer: blob},
		Secret:         tpm2.TPM2BEncryptedSecret{Buffer: encrypted},
	}.Execute(c)
	if err != nil {
		_ = done() // a session that served is gone already
		return nil, fmt.Errorf("activate credential: %w", err)
	}
	return rsp.CertInfo.Buffer, done()
}

// ekPublic is the SPKI DER of a TPM's public area.
func ekPublic(pub *tpm2.TPMTPublic) ([]byte, error) {
	k, err := tpm2.Pub(*pub)
	if err != nil {
		return nil, fmt.Errorf("endorsement key: %w", err)
	}
	return x509.MarshalPKIXPublicKey(k)
}

// ekFile is the endorsement key's SPKI DER beside the device key, so that the tag needs no key to be made again.
const ekFile = "ek.pub"

// Tag implements hwkey.Device. The endorsement key is read from where it was kept, from its persistent handle or its
// certificate, and made only where there is neither.
func (d *Device) Tag() (string, error) {
	spki, err := os.ReadFile(filepath.Join(d.dir, ekFile))
	if err == nil && len(spki) > 0 {
		return tag(spki), nil
	}
	err = use(d.path, func(c *chip) (err error) {
		spki, err = c.ekSPKI()
		return err
	})
	if err != nil {
		return "", err
	}
	return tag(spki), hwkey.WriteBytes(filepath.Join(d.dir, ekFile), spki)
}

// ekSPKI is the endorsement key's SPKI DER: of its certificate, of its persistent handle, or of one made for it.
func (c *chip) ekSPKI() ([]byte, error) {
	spec, cert, err := c.chooseEK()
	if err != nil {
		return nil, err
	}
	if spki := certified(cert); spki != nil {
		return spki, nil
	}
	o, pub, err := c.openEK(spec)
	if err != nil {
		return nil, err
	}
	spki, err := ekPublic(pub)
	return spki, errors.Join(err, c.flush(o))
}

// certified is the SPKI DER of the key that a certificate is of; nil where it cannot be read.
func certified(cert []byte) []byte {
	x, err := x509.ParseCertificate(trim(cert))
	if err != nil || x.PublicKey == nil {
		return nil
	}
	spki, err := x509.MarshalPKIXPublicKey(x.PublicKey)
	if err != nil {
		return nil
	}
	return spki
}

// hash is device.Credential's EKHash.
func hash(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

// why tells a TPM that was cleared from one that was replaced, by its endorsement key, which outlives a clear.
func (d *Device) why(err error, e *hwkey.Enrollment) error {
	if !fault.Because(err, hwkey.ErrCleared.Reason) {
		return err
	}
	var spki []byte
	if use(d.path, func(c *chip) (err error) { spki, err = c.ekSPKI(); return err }) != nil {
		return err
	}
	return told(err, e, spki)
}

// told says of a key that does not load what the endorsement key of now means.
func told(err error, e *hwkey.Enrollment, spki []byte) error {
	if e == nil || e.EKHash == "" {
		return err
	}
	if hash(spki) == e.EKHash {
		return fault.Of(err).WithCause("its endorsement key is the one that was enrolled: it was cleared")
	}
	return fault.Of(err).WithCause("its endorsement key is not the one that was enrolled: it was replaced, or the files are another machine's")
}

func tag(spki []byte) string { return "ek-" + hash(spki)[:16] }

// trim cuts the padding that NV leaves behind a certificate's DER.
func trim(cert []byte) []byte {
	if len(cert) > 4 && cert[0] == 0x30 && cert[1] == 0x82 {
		if n := 4 + (int(cert[2])<<8 | int(cert[3])); n <= len(cert) {
			return cert[:n]
		}
	}
	return cert
}
