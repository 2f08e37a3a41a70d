// Package attestation judges what a device sends about its hardware.
//
// It takes bytes and returns values: no clock, no file, no connection. Judge is what the device protocol's Verifier
// asks (ceremony.Judge); the functions below it each judge one kind of evidence.
package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"io"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Judge judges evidence at one moment under one cluster's settings. Its zero value trusts no authority, has no software
// keys, and takes every certificate for not valid yet.
type Judge struct {
	roots    *Roots
	software bool
	now      time.Time
	monitor  bool
	approved func(ekHash string) bool
}

// NewJudge takes the cluster's `ekcert_allowed_cas` (nil or empty: none is listed), `allow_software_keys`, and the time.
func NewJudge(allowed *Roots, software bool, now time.Time) Judge {
	return Judge{roots: allowed, software: software, now: now}
}

// Monitoring is a judge that lets pass, and names in the credential, what it would refuse for want of a trusted EK
// certificate.
func (j Judge) Monitoring() Judge {
	j.monitor = true
	return j
}

// Approving is a judge that lets pass endorsement keys that an administrator approved by their hash. Their level stays
// what is proven.
func (j Judge) Approving(approved func(ekHash string) bool) Judge {
	j.approved = approved
	return j
}

// passes reports whether a TPM may enroll in spite of a refusal for want of a trusted EK certificate.
func (j Judge) passes(c *device.Credential, refusal error) bool {
	if j.approved != nil && j.approved(c.EKHash) {
		return true
	}
	if j.monitor {
		c.WouldRefuse = fault.Of(refusal).Cause
	}
	return j.monitor
}

// Enroll judges an enrollment's evidence: what the credential will be, once the proof is there. Where authorities are
// listed, a TPM without a certificate that chains to one is refused.
func (j Judge) Enroll(e device.Evidence) (device.Credential, error) {
	switch e.Kind {
	case device.TPM2:
		return j.enrollTPM(e)
	case device.SecureEnclave, device.Software:
		if e.Kind == device.Software && !j.software {
			return device.Credential{}, fault.New(fault.Denied, "software device keys are not allowed in this cluster").
				WithReason("device_software_refused").WithCause("cluster_auth_preference: device_trust.allow_software_keys is off")
		}
		if _, err := parseP256(e.Key); err != nil {
			return device.Credential{}, err
		}
		level := device.LevelEnclave
		if e.Kind == device.Software {
			level = device.LevelSoftware
		}
		return device.Credential{Kind: e.Kind, PublicKey: e.Key, Attestation: level}, nil
	}
	return device.Credential{}, refuse("device_kind", "kind of evidence %q is not known", e.Kind)
}

func (j Judge) enrollTPM(e device.Evidence) (device.Credential, error) {
	ak, err := ParseAK(e.KeyArea)
	if err != nil {
		return device.Credential{}, err
	}
	c := device.Credential{Kind: device.TPM2, PublicKey: ak.SPKI, AKArea: e.KeyArea, Attestation: device.LevelTPMPub, TPM: e.TPM}
	ek, cert, err := endorsementKey(e)
	if err != nil {
		return device.Credential{}, err
	}
	c.EKHash = hex.EncodeToString(ek.hash[:])
	if cert != nil {
		if c.Attestation, err = cert.Level(j.roots, j.now); err != nil {
			if !j.passes(&c, err) {
				return device.Credential{}, err
			}
			// Whoever signed it, nobody here believes them: what it says is as good as nothing.
			c.Attestation, cert = device.LevelTPMPub, nil
		}
	}
	if cert != nil {
		c.EKCertSerial = cert.Serial
		info := device.TPMInfo{}
		if e.TPM != nil {
			info = *e.TPM
		}
		info.Manufacturer = cert.Manufacturer
		c.TPM = &info
	}
	if len(e.EKCert) == 0 && !j.roots.Empty() {
		err := refuse("ekcert_missing", "the TPM has no EK certificate, and the cluster lists authorities; its EK hash is %s", c.EKHash)
		if !j.passes(&c, err) {
			return device.Credential{}, err
		}
	}
	return c, nil
}

// Protect makes a credential for the EK and AK of the evidence (TPM 2.0 Part 1, 24, Credential Protection).
func (j Judge) Protect(rand io.Reader, e device.Evidence, secret []byte) (blob, encrypted []byte, err error) {
	ek, _, err := endorsementKey(e)
	if err != nil {
		return nil, nil, err
	}
	ak, err := ParseAK(e.KeyArea)
	if err != nil {
		return nil, nil, err
	}
	return ek.makeCredential(rand, ak.Name, secret)
}

// Prove checks the proof of a credential's device key over the transcript's digest: of a TPM that it certifies the
// session key, of other kinds its signature.
func (j Judge) Prove(c device.Credential, s device.Session, digest [sha256.Size]byte, p device.Proof) (*device.Clock, error) {
	switch c.Kind {
	case device.TPM2:
		return proveTPM(c, s, digest, p)
	case device.SecureEnclave, device.Software:
	default:
		return nil, refuse("device_kind", "kind of credential %q is not known", c.Kind)
	}
	if c.Kind == device.Software && !j.software {
		return nil, fault.New(fault.Denied, "software device keys are not allowed in this cluster").
			WithReason("device_software_refused").WithCause("cluster_auth_preference: device_trust.allow_software_keys is off")
	}
	key, err := parseP256(c.PublicKey)
	if err != nil {
		return nil, err
	}
	if len(p.Statement) != 0 || p.Quote != nil {
		return nil, refuse("device_statement", "a %s key makes no statements", c.Kind)
	}
	if _, err := parseP256(s.Key); err != nil {
		return nil, err
	}
	if !ecdsa.VerifyASN1(key, digest[:], p.Signature) {
		return nil, refuse("device_signature", "the device key did not sign this login")
	}
	return nil, nil
}

func proveTPM(c device.Credential, s device.Session, digest [sha256.Size]byte, p device.Proof) (*device.Clock, error) {
	ak, err := ParseAK(c.AKArea)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(ak.SPKI, c.PublicKey) {
		return nil, refuse("device_key_area", "the credential's area is not of its key")
	}
	session, err := ParseSession(s.Area)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(session.SPKI, s.Key) {
		return nil, refuse("device_session_key", "the session key that is certified is not the one that asks")
	}
	return VerifyCertify(ak, session, digest[:], p.Statement, p.Signature)
}

// Quote checks a quote by the credential's AK over the digest.
func (j Judge) Quote(c device.Credential, digest [sha256.Size]byte, q device.Quote) error {
	ak, err := ParseAK(c.AKArea)
	if err != nil {
		return err
	}
	return VerifyQuote(ak, digest[:], q)
}

// parseP256 takes an SPKI that is exactly a P-256 key's, so that one key has one form.
func parseP256(spki []byte) (*ecdsa.PublicKey, error) {
	if len(spki) > 256 {
		return nil, refuse("device_key", "the key is no P-256 key")
	}
	k, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, refuse("device_key", "the key cannot be read")
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, refuse("device_key", "the key is no P-256 key")
	}
	if again, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(again, spki) {
		return nil, refuse("device_key", "the key is not in its canonical form")
	}
	return pub, nil
}

// refuse is a judgement against the evidence; reason is its stable word.
func refuse(reason, format string, args ...any) error {
	return fault.New(fault.Denied, "device proof refused").WithReason(reason).WithCause(format, args...)
}
