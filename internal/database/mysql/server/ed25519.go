package server

import (
	"crypto/sha512"

	"filippo.io/edwards25519"
)

// signEd25519 signs a nonce as MariaDB's ed25519 plugin wants it: as RFC 8032 has it, but for the password, of any
// length, in the seed's place.
func signEd25519(password string, nonce []byte) ([]byte, error) {
	h := sha512.Sum512([]byte(password))
	s, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		return nil, err
	}
	public := new(edwards25519.Point).ScalarBaseMult(s).Bytes()
	r, err := digest(h[32:], nonce)
	if err != nil {
		return nil, err
	}
	point := new(edwards25519.Point).ScalarBaseMult(r).Bytes()
	k, err := digest(point, public, nonce)
	if err != nil {
		return nil, err
	}
	return append(point, edwards25519.NewScalar().MultiplyAdd(k, s, r).Bytes()...), nil
}

func digest(parts ...[]byte) (*edwards25519.Scalar, error) {
	h := sha512.New()
	for _, p := range parts {
		h.Write(p)
	}
	return edwards25519.NewScalar().SetUniformBytes(h.Sum(nil))
}
