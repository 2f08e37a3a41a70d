package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"io"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/device"
)

// ek is an endorsement key: its public area, derived from the named template, and SHA-256 of its SPKI DER.
type ek struct {
	area tpm2.TPMTPublic
	hash [sha256.Size]byte
}

// endorsementKey is the evidence's EK, from its certificate where there is one.
func endorsementKey(e device.Evidence) (ek, *EKCert, error) {
	var key any
	var cert *EKCert
	var err error
	if len(e.EKCert) > 0 {
		if cert, err = ParseEKCert(e.EKCert); err != nil {
			return ek{}, nil, err
		}
		key = cert.public
	} else {
		if len(e.EKPublic) > 1024 {
			return ek{}, nil, refuse("ek_key", "the EK cannot be read")
		}
		if key, err = x509.ParsePKIXPublicKey(e.EKPublic); err != nil {
			return ek{}, nil, refuse("ek_key", "the EK cannot be read")
		}
	}
	k, spki, err := deriveEK(e.EKName, key)
	if err != nil {
		return ek{}, nil, err
	}
	if len(e.EKPublic) > 0 && !bytes.Equal(spki, e.EKPublic) {
		return ek{}, nil, refuse("ek_mismatch", "the EK certificate is not of the EK")
	}
	return k, cert, nil
}

// deriveEK puts a key into the template of its name (TCG EK Credential Profile 2.3, B.3 and B.4), which says how
// credentials for it are enciphered.
func deriveEK(name device.EKName, key any) (ek, []byte, error) {
	out := ek{}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if name != device.EKRSA2048 || k.N.BitLen() != 2048 || k.E != 65537 {
			return ek{}, nil, refuse("ek_key", "the EK is no %s key", name)
		}
		out.area = tpm2.RSAEKTemplate
		out.area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: k.N.Bytes()})
	case *ecdsa.PublicKey:
		switch {
		case name == device.EKP256 && k.Curve == elliptic.P256():
			out.area = tpm2.ECCEKTemplate
		case name == device.EKP384 && k.Curve == elliptic.P384():
			out.area = p384Area()
		default:
			return ek{}, nil, refuse("ek_key", "the EK is no %s key", name)
		}
		point, err := k.Bytes() // 04 X Y (SEC 1, 2.3.3)
		if err != nil {
			return ek{}, nil, refuse("ek_key", "the EK is not on its curve")
		}
		n := len(point) / 2
		out.area.Unique = tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{
			X: tpm2.TPM2BECCParameter{Buffer: point[1 : 1+n]}, Y: tpm2.TPM2BECCParameter{Buffer: point[1+n:]}})
	default:
		return ek{}, nil, refuse("ek_key", "the EK is of no kind that is known")
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return ek{}, nil, refuse("ek_key", "the EK cannot be written")
	}
	out.hash = sha256.Sum256(spki)
	return out, spki, nil
}

// p384Area has what makeCredential needs of template H-3: SHA-384 names and AES-256. Its policy says nothing here.
func p384Area() tpm2.TPMTPublic {
	a := tpm2.ECCEKTemplate
	a.NameAlg = tpm2.TPMAlgSHA384
	a.Parameters = tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
		Symmetric: tpm2.TPMTSymDefObject{
			Algorithm: tpm2.TPMAlgAES,
			KeyBits:   tpm2.NewTPMUSymKeyBits(tpm2.TPMAlgAES, tpm2.TPMKeyBits(256)),
			Mode:      tpm2.NewTPMUSymMode(tpm2.TPMAlgAES, tpm2.TPMAlgCFB),
		},
		CurveID: tpm2.TPMECCNistP384,
	})
	return a
}

// makeCredential is TPM2_MakeCredential in software.
func (k ek) makeCredential(rand io.Reader, name, secret []byte) (blob, encrypted []byte, err error) {
	key, err := tpm2.ImportEncapsulationKey(&k.area)
	if err != nil {
		return nil, nil, refuse("ek_key", "the EK cannot be used: %v", err)
	}
	return tpm2.CreateCredential(rand, key, name, secret)
}
