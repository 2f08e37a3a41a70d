package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"errors"
	"math/big"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"golang.org/x/crypto/cryptobyte"

	"github.com/sallyport/sallyport/internal/device"
)

// maxStructure bounds a public area, an attestation or a signature of a TPM.
const maxStructure = 1 << 10

// Area is a TPM key's public area that was found to be exactly of its template.
type Area struct {
	Name []byte // TPM 2.0 Part 1, 16: the name algorithm and the digest of the area, computed here
	SPKI []byte

	key *ecdsa.PublicKey
}

// ParseAK takes the TPMT_PUBLIC of an attestation key: P-256, ECDSA with SHA-256, name algorithm SHA-256, attributes
// fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA, restricted and sign, and no policy.
func ParseAK(area []byte) (Area, error) { return parseArea(area, true) }

// ParseSession takes the TPMT_PUBLIC of a session key: the same without restricted.
func ParseSession(area []byte) (Area, error) { return parseArea(area, false) }

// parseArea compares the whole area with the template, the point apart.
func parseArea(area []byte, restricted bool) (Area, error) {
	if key, err := plainArea(area, restricted); err == nil {
		return newArea(area, key)
	}
	return explainArea(area, restricted)
}

// prefixes are what an area has ahead of its point: of a session key, of an AK.
var prefixes = sync.OnceValue(func() [2][]byte {
	var out [2][]byte
	for i, restricted := range []bool{false, true} {
		whole := tpm2.Marshal(template(restricted, tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{})))
		out[i] = whole[:len(whole)-4] // the lengths of two coordinates, which are 0
	}
	return out
})

var errNotPlain = errors.New("not the template with a point")

// plainArea takes an area that is the template with a point behind it, byte for byte, which all good ones are: it costs
// a tenth of reading it structure by structure.
func plainArea(area []byte, restricted bool) (*ecdsa.PublicKey, error) {
	i := 0
	if restricted {
		i = 1
	}
	prefix := prefixes()[i]
	rest := cryptobyte.String(area)
	var head []byte
	var x, y cryptobyte.String
	if !rest.ReadBytes(&head, len(prefix)) || !bytes.Equal(head, prefix) || !rest.ReadUint16LengthPrefixed(&x) ||
		!rest.ReadUint16LengthPrefixed(&y) || !rest.Empty() {
		return nil, errNotPlain
	}
	return p256(&tpm2.TPMSECCPoint{X: tpm2.TPM2BECCParameter{Buffer: x}, Y: tpm2.TPM2BECCParameter{Buffer: y}})
}

// newArea names an area that was found in order (TPM 2.0 Part 1, 16).
func newArea(area []byte, key *ecdsa.PublicKey) (Area, error) {
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Area{}, refuse("device_key_area", "the key cannot be written")
	}
	sum := sha256.Sum256(area)
	return Area{Name: append([]byte{byte(tpm2.TPMAlgSHA256 >> 8), byte(tpm2.TPMAlgSHA256)}, sum[:]...), SPKI: spki, key: key}, nil
}

// template is what keys are made of.
func template(restricted bool, point tpm2.TPMUPublicID) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
			NoDA: true, Restricted: restricted, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Symmetric: tpm2.TPMTSymDefObject{Algorithm: tpm2.TPMAlgNull},
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
			KDF:     tpm2.TPMTKDFScheme{Scheme: tpm2.TPMAlgNull},
		}),
		Unique: point,
	}
}

// explainArea reads an area structure by structure, to say what is wrong with it.
func explainArea(area []byte, restricted bool) (Area, error) {
	what := "session key"
	if restricted {
		what = "attestation key"
	}
	pub, err := unmarshal[tpm2.TPMTPublic](area)
	if err != nil {
		return Area{}, refuse("device_key_area", "the public area of the %s cannot be read", what)
	}
	point, err := pub.Unique.ECC()
	if err != nil || pub.Type != tpm2.TPMAlgECC {
		return Area{}, refuse("device_key_area", "the %s is on no curve", what)
	}
	if !bytes.Equal(area, tpm2.Marshal(template(restricted, pub.Unique))) {
		return Area{}, refuse("device_key_template", "the %s is not made as it has to be", what)
	}
	key, err := p256(point)
	if err != nil {
		return Area{}, err
	}
	return newArea(area, key)
}

// p256 takes a point, whose coordinates a TPM may write without leading zeros, and checks that it is on the curve.
func p256(point *tpm2.TPMSECCPoint) (*ecdsa.PublicKey, error) {
	x, y := point.X.Buffer, point.Y.Buffer
	if len(x) > 32 || len(y) > 32 {
		return nil, refuse("device_key_area", "the key is no point of P-256")
	}
	b := make([]byte, 65)
	b[0] = 4
	copy(b[33-len(x):33], x)
	copy(b[65-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
	if err != nil {
		return nil, refuse("device_key_area", "the key is no point of P-256")
	}
	return key, nil
}

// unmarshal reads a TPM structure that has one form and nothing behind it; go-tpm alone takes what follows it.
func unmarshal[T tpm2.Marshallable, P interface {
	*T
	tpm2.Unmarshallable
}](b []byte) (*T, error) {
	if len(b) == 0 || len(b) > maxStructure {
		return nil, refuse("tpm_structure", "a TPM structure of %d bytes", len(b))
	}
	v, err := tpm2.Unmarshal[T, P](b)
	if err != nil {
		return nil, refuse("tpm_structure", "a TPM structure cannot be read")
	}
	if !bytes.Equal(tpm2.Marshal(*v), b) {
		return nil, refuse("tpm_structure", "a TPM structure is not in its one form")
	}
	return v, nil
}

// attest reads a statement of the AK over qualifying data: magic, type, data and signature (TPM 2.0 Part 2, 10.12).
func attest(ak Area, kind tpm2.TPMST, qualifying, statement, signature []byte) (*tpm2.TPMSAttest, error) {
	if ak.key == nil {
		return nil, refuse("device_key_area", "no attestation key")
	}
	a, err := unmarshal[tpm2.TPMSAttest](statement)
	if err != nil {
		return nil, refuse("device_statement", "the TPM's statement cannot be read")
	}
	if a.Magic != tpm2.TPMGeneratedValue {
		return nil, refuse("device_statement", "the statement was not made by a TPM")
	}
	if a.Type != kind {
		return nil, refuse("device_statement_type", "the TPM's statement is of another type")
	}
	if len(qualifying) != sha256.Size || subtle.ConstantTimeCompare(a.ExtraData.Buffer, qualifying) != 1 {
		return nil, refuse("device_transcript", "the TPM's statement is on another login")
	}
	sig, err := unmarshal[tpm2.TPMTSignature](signature)
	if err != nil {
		return nil, refuse("device_signature", "the TPM's signature cannot be read")
	}
	s, err := sig.Signature.ECDSA()
	if err != nil || sig.SigAlg != tpm2.TPMAlgECDSA || s.Hash != tpm2.TPMAlgSHA256 {
		return nil, refuse("device_signature", "the TPM's signature is of another scheme")
	}
	sum := sha256.Sum256(statement)
	r, t := new(big.Int).SetBytes(s.SignatureR.Buffer), new(big.Int).SetBytes(s.SignatureS.Buffer)
	if !ecdsa.Verify(ak.key, sum[:], r, t) {
		return nil, refuse("device_signature", "the TPM's statement was not signed by the device's key")
	}
	return a, nil
}

// VerifyCertify checks a TPM2_Certify of the session key by the AK over qualifying data (TPM 2.0 Part 3, 18.2), and
// returns the statement's clock figures, which the TPM obfuscates per key.
func VerifyCertify(ak, session Area, qualifying, statement, signature []byte) (*device.Clock, error) {
	a, err := attest(ak, tpm2.TPMSTAttestCertify, qualifying, statement, signature)
	if err != nil {
		return nil, err
	}
	info, err := a.Attested.Certify()
	if err != nil {
		return nil, refuse("device_statement_type", "the TPM's statement is of another type")
	}
	if len(session.Name) == 0 || !bytes.Equal(info.Name.Buffer, session.Name) {
		return nil, refuse("device_session_key", "the TPM certified another key")
	}
	return &device.Clock{Time: a.ClockInfo.Clock, ResetCount: a.ClockInfo.ResetCount, RestartCount: a.ClockInfo.RestartCount,
		Firmware: a.FirmwareVersion}, nil
}

// quotedPCRs is the one selection that a quote may have: device.QuotedPCRs, as a bitmap (TPM 2.0 Part 2, 10.6.1).
var quotedPCRs = func() []byte {
	b := make([]byte, 3)
	for _, pcr := range device.QuotedPCRs {
		b[pcr/8] |= 1 << (pcr % 8)
	}
	return b
}()

// VerifyQuote checks a TPM2_Quote by the AK over qualifying data, and that the PCR values that came along are the
// ones quoted (TPM 2.0 Part 3, 18.4).
func VerifyQuote(ak Area, qualifying []byte, q device.Quote) error {
	a, err := attest(ak, tpm2.TPMSTAttestQuote, qualifying, q.Statement, q.Signature)
	if err != nil {
		return err
	}
	info, err := a.Attested.Quote()
	if err != nil {
		return refuse("device_statement_type", "the TPM's statement is of another type")
	}
	s := info.PCRSelect.PCRSelections
	if len(s) != 1 || s[0].Hash != tpm2.TPMAlgSHA256 || !bytes.Equal(s[0].PCRSelect, quotedPCRs) {
		return refuse("device_quote_selection", "the quote is not on the SHA-256 PCRs %v", device.QuotedPCRs)
	}
	if len(q.PCRs) != len(device.QuotedPCRs)*sha256.Size {
		return refuse("device_quote_pcrs", "the quote came with %d bytes of PCRs", len(q.PCRs))
	}
	sum := sha256.Sum256(q.PCRs)
	if !bytes.Equal(info.PCRDigest.Buffer, sum[:]) {
		return refuse("device_quote_pcrs", "the PCRs are not the ones quoted")
	}
	return nil
}
