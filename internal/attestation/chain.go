package attestation

import (
	"bytes"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/device"
)

// maxChain bounds the authorities above an EK certificate.
const maxChain = 8

// Chain is an EK certificate with the authorities above it, as far as they are known: Links begins with the EK
// certificate. Where the topmost names an issuer that is not there, Missing is its name and MissingURL where its maker
// says that it keeps it. Nothing here is fetched: it is for a person.
type Chain struct {
	Links      []*x509.Certificate
	Trusted    bool
	Missing    string
	MissingURL string
}

// NewChain puts a chain together from what NV held, authorities that are listed, and further ones.
func NewChain(nv []byte, listed, further *Roots, now time.Time) (Chain, error) {
	e, err := ParseEKCert(nv)
	if err != nil {
		return Chain{}, err
	}
	level, err := e.Level(listed, now)
	c := Chain{Links: []*x509.Certificate{e.cert}, Trusted: err == nil && level == device.LevelTPMTrusted}
	for top := e.cert; len(c.Links) <= maxChain && !bytes.Equal(top.RawSubject, top.RawIssuer); {
		up := issuer(top, further, listed)
		if up == nil {
			c.Missing, c.MissingURL = nameOf(top), issuerURL(top)
			break
		}
		c.Links, top = append(c.Links, up), up
	}
	return c, nil
}

// Authorities are those of the chain, PEM, the topmost last; empty where there is none above the EK certificate. A TPM
// brings its own certificate alone, so all of them have to be listed for it to be trusted.
func (c Chain) Authorities() string {
	var out []byte
	for _, l := range c.Links[min(1, len(c.Links)):] {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: l.Raw})...)
	}
	return string(out)
}

// issuer finds who signed a certificate.
func issuer(c *x509.Certificate, lists ...*Roots) *x509.Certificate {
	for _, l := range lists {
		if l == nil {
			continue
		}
		for _, up := range l.certs {
			if bytes.Equal(up.RawSubject, c.RawIssuer) && c.CheckSignatureFrom(up) == nil {
				return up
			}
		}
	}
	return nil
}

// untrusted says why a certificate does not chain to a listed authority.
func (e *EKCert) untrusted(listed *Roots, err error) string {
	if issuer(e.cert, listed) != nil {
		return fmt.Sprintf("the EK certificate does not chain to an authority of ekcert_allowed_cas: %v", err)
	}
	text := fmt.Sprintf("the EK certificate was issued by %s, which is not among ekcert_allowed_cas", nameOf(e.cert))
	if url := issuerURL(e.cert); url != "" {
		text += "; its maker says that it is at " + url
	}
	return text
}

// nameOf is a certificate's issuer as its maker wrote it.
func nameOf(c *x509.Certificate) string {
	return fmt.Sprintf("%.200q", c.Issuer.String())
}

// issuerURL is where a certificate says that its issuer's is (RFC 5280, 4.2.2.1), where that is a plain web address.
func issuerURL(c *x509.Certificate) string {
	for _, u := range c.IssuingCertificateURL {
		web := strings.HasPrefix(u, "http://") || strings.HasPrefix(u, "https://")
		if web && len(u) <= 200 && !strings.ContainsFunc(u, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("'\"`$;|&<>\\", r) }) {
			return u
		}
	}
	return ""
}

// EKHash is the hash by which evidence's endorsement key is known: hex of SHA-256 of its SPKI DER.
func EKHash(e device.Evidence) (string, error) {
	k, _, err := endorsementKey(e)
	return hex.EncodeToString(k.hash[:]), err
}
