package attestation

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/sallyport/sallyport/internal/device"
)

// MaxEKCert bounds an EK certificate as read from NV, padding included.
const MaxEKCert = 8 << 10

// Object identifiers of the TCG EK Credential Profile 2.x, 3.1, and of RFC 5280 and RFC 4055.
var (
	oidEKUsage      = asn1.ObjectIdentifier{2, 23, 133, 8, 1} // tcg-kp-EKCertificate
	oidManufacturer = asn1.ObjectIdentifier{2, 23, 133, 2, 1}
	oidModel        = asn1.ObjectIdentifier{2, 23, 133, 2, 2}
	oidVersion      = asn1.ObjectIdentifier{2, 23, 133, 2, 3}
	oidSAN          = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidRSAESOAEP    = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 7}
)

// Roots are the authorities of `ekcert_allowed_cas`: each of them is trusted by itself. A nil Roots lists none.
type Roots struct {
	pool  *x509.CertPool
	certs []*x509.Certificate
}

// ParseRoots reads PEM certificates, of roots and intermediates alike. Anything else in it is an error.
func ParseRoots(text []byte) (*Roots, error) {
	r := &Roots{pool: x509.NewCertPool()}
	for rest := bytes.TrimSpace(text); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return nil, fmt.Errorf("certificate %d: no PEM", len(r.certs)+1)
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("certificate %d: PEM block of type %q", len(r.certs)+1, block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(r.certs)+1, err)
		}
		if !c.BasicConstraintsValid || !c.IsCA {
			return nil, fmt.Errorf("certificate %d (%s): not an authority's", len(r.certs)+1, c.Subject)
		}
		r.pool.AddCert(c)
		r.certs = append(r.certs, c)
	}
	return r, nil
}

// Empty reports whether no authority is listed.
func (r *Roots) Empty() bool { return r == nil || len(r.certs) == 0 }

// EKCert is an endorsement key's certificate, read and of the right usage, not yet verified by anyone.
type EKCert struct {
	Serial       string // decimal
	Manufacturer string // of the SAN, as text where it is the hex of text
	Model        string
	Version      string

	cert   *x509.Certificate
	public any // *rsa.PublicKey or *ecdsa.PublicKey
}

// ParseEKCert reads the certificate at the start of what NV held; bytes behind its DER are padding. It checks what the
// EK Credential Profile asks of every EK certificate: extended key usage 2.23.133.8.1, a SAN that names manufacturer,
// model and version, and no authority.
func ParseEKCert(nv []byte) (*EKCert, error) {
	if len(nv) > MaxEKCert {
		return nil, refuse("ekcert_size", "the EK certificate has %d bytes, at most %d", len(nv), MaxEKCert)
	}
	var der cryptobyte.String
	rest := cryptobyte.String(nv)
	if !rest.ReadASN1Element(&der, cbasn1.SEQUENCE) {
		return nil, refuse("ekcert_malformed", "the EK certificate is no DER, or cut")
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, refuse("ekcert_malformed", "the EK certificate cannot be read: %v", err)
	}
	if c.IsCA {
		return nil, refuse("ekcert_usage", "the EK certificate is an authority's")
	}
	if !slices.ContainsFunc(c.UnknownExtKeyUsage, oidEKUsage.Equal) {
		return nil, refuse("ekcert_usage", "the EK certificate is not for endorsement keys")
	}
	e := &EKCert{Serial: c.SerialNumber.String(), cert: c}
	if err := e.readSAN(c); err != nil {
		return nil, err
	}
	if e.public, err = certKey(c); err != nil {
		return nil, err
	}
	return e, nil
}

// readSAN reads manufacturer, model and version of the SAN's directory name, and takes the extension, which Go does
// not know in that form, off the unhandled ones.
func (e *EKCert) readSAN(c *x509.Certificate) error {
	i := slices.IndexFunc(c.Extensions, func(x pkix.Extension) bool { return x.Id.Equal(oidSAN) })
	if i < 0 {
		return refuse("ekcert_san", "the EK certificate names no TPM")
	}
	var names cryptobyte.String
	input := cryptobyte.String(c.Extensions[i].Value)
	if !input.ReadASN1(&names, cbasn1.SEQUENCE) || !input.Empty() {
		return refuse("ekcert_san", "the EK certificate's SAN cannot be read")
	}
	const directoryName = cbasn1.Tag(4 | 0xa0) // [4] EXPLICIT Name, RFC 5280 4.2.1.6
	for !names.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !names.ReadAnyASN1(&value, &tag) {
			return refuse("ekcert_san", "the EK certificate's SAN cannot be read")
		}
		if tag != directoryName {
			continue
		}
		var rdns pkix.RDNSequence
		if rest, err := asn1.Unmarshal(value, &rdns); err != nil || len(rest) != 0 {
			return refuse("ekcert_san", "the EK certificate's SAN cannot be read")
		}
		if err := e.readNames(rdns); err != nil {
			return err
		}
	}
	if e.Manufacturer == "" || e.Model == "" || e.Version == "" {
		return refuse("ekcert_san", "the EK certificate does not name manufacturer, model and version")
	}
	c.UnhandledCriticalExtensions = slices.DeleteFunc(c.UnhandledCriticalExtensions, oidSAN.Equal)
	return nil
}

func (e *EKCert) readNames(rdns pkix.RDNSequence) error {
	for _, rdn := range rdns {
		for _, a := range rdn {
			var to *string
			switch {
			case a.Type.Equal(oidManufacturer):
				to = &e.Manufacturer
			case a.Type.Equal(oidModel):
				to = &e.Model
			case a.Type.Equal(oidVersion):
				to = &e.Version
			default:
				continue
			}
			s, ok := a.Value.(string)
			if !ok || *to != "" || len(s) > 64 || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
				return refuse("ekcert_san", "the EK certificate's SAN has no plain names")
			}
			*to = s
		}
	}
	e.Manufacturer = vendor(e.Manufacturer)
	return nil
}

// vendor reads `id:` and eight hex digits as the four letters of the TCG Vendor ID Registry, where they are letters.
func vendor(s string) string {
	b, err := hex.DecodeString(strings.TrimPrefix(s, "id:"))
	if err != nil || len(b) != 4 {
		return s
	}
	b = bytes.TrimRight(b, "\x00 ")
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return s
		}
	}
	if len(b) == 0 {
		return s
	}
	return string(b)
}

// certKey is the certificate's key. Some TPMs' certificates give an RSA key the algorithm id-RSAES-OAEP (RFC 4055,
// 4.1), which crypto/x509 does not take.
func certKey(c *x509.Certificate) (any, error) {
	switch k := c.PublicKey.(type) {
	case *rsa.PublicKey, *ecdsa.PublicKey:
		return k, nil
	}
	var spki struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	rest, err := asn1.Unmarshal(c.RawSubjectPublicKeyInfo, &spki)
	if err != nil || len(rest) != 0 || !spki.Algorithm.Algorithm.Equal(oidRSAESOAEP) {
		return nil, refuse("ekcert_key", "the EK certificate's key is of no kind that is known")
	}
	k, err := x509.ParsePKCS1PublicKey(spki.Key.RightAlign())
	if err != nil {
		return nil, refuse("ekcert_key", "the EK certificate's key cannot be read")
	}
	return k, nil
}

// Level verifies the certificate at a moment: tpm_ekcert_trusted where it chains to a listed authority, tpm_ekcert
// where none is listed. Otherwise, and when it is not valid, it is refused.
func (e *EKCert) Level(roots *Roots, now time.Time) (device.Level, error) {
	if now.Before(e.cert.NotBefore) || now.After(e.cert.NotAfter) {
		return "", refuse("ekcert_expired", "the EK certificate is valid from %s to %s",
			e.cert.NotBefore.UTC().Format(time.DateOnly), e.cert.NotAfter.UTC().Format(time.DateOnly))
	}
	if len(e.cert.UnhandledCriticalExtensions) > 0 {
		return "", refuse("ekcert_malformed", "the EK certificate has a critical extension that is not known")
	}
	if roots.Empty() {
		return device.LevelTPMCert, nil
	}
	_, err := e.cert.Verify(x509.VerifyOptions{Roots: roots.pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return "", refuse("ekcert_untrusted", "%s", e.untrusted(roots, err))
	}
	return device.LevelTPMTrusted, nil
}
