package cluster

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
)

// PinHash is the SHA-256 over a TLS host authority's SPKI.
func PinHash(authority *x509.Certificate) []byte {
	sum := sha256.Sum256(authority.RawSubjectPublicKeyInfo)
	return sum[:]
}

// Pin is the CA pin of a TLS host authority: `sha256:` and the hex of PinHash.
func Pin(authority *x509.Certificate) string {
	return "sha256:" + hex.EncodeToString(PinHash(authority))
}
