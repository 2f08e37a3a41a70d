package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"fmt"
	"io"
	"math/big"
	"path/filepath"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
)

func devicePath(dir string) string { return filepath.Join(dir, hwkey.DeviceFile) }

// key is a session key.
type key struct {
	file hwkey.File
	path string // of the TPM
	pub  *ecdsa.PublicKey
}

// Load gives the session key of a key file. The TPM at path is opened at each signature.
func Load(f hwkey.File, path string) (hwkey.Key, error) {
	if f.Kind != device.TPM2 {
		return nil, hwkey.ErrBadKey.WithCause("the key is of kind %s", f.Kind)
	}
	area, err := tpm2.Unmarshal[tpm2.TPMTPublic](f.Public)
	if err != nil {
		return nil, hwkey.ErrBadKey.Wrapping(err)
	}
	if !fits(*area, template(false)) || !bytes.Equal(tpm2.Marshal(area), f.Public) {
		return nil, hwkey.ErrBadKey.WithCause("it is no session key")
	}
	k, err := tpm2.Pub(*area)
	if err != nil {
		return nil, hwkey.ErrBadKey.Wrapping(err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok {
		return nil, hwkey.ErrBadKey
	}
	if _, err := pub.ECDH(); err != nil { // not on the curve
		return nil, hwkey.ErrBadKey.Wrapping(err)
	}
	return &key{f, path, pub}, nil
}

func (k *key) Public() crypto.PublicKey { return k.pub }
func (*key) Kind() device.Kind          { return device.TPM2 }
func (k *key) Area() []byte             { return bytes.Clone(k.file.Public) }

// Sign implements crypto.Signer for SHA-256 digests, with one TPM2_Sign.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) (sig []byte, err error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("a TPM key signs SHA-256 digests only")
	}
	err = use(k.path, func(c *chip) error {
		keys, err := c.load(k.file)
		if err != nil {
			return err
		}
		rsp, err := tpm2.Sign{
			KeyHandle:  keys[0].auth(),
			Digest:     tpm2.TPM2BDigest{Buffer: digest},
			InScheme:   tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
			Validation: tpm2.TPMTTKHashCheck{Tag: tpm2.TPMSTHashCheck, Hierarchy: tpm2.TPMRHNull},
		}.Execute(c)
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		s, err := rsp.Signature.Signature.ECDSA()
		if err != nil {
			return fmt.Errorf("sign: %w", err)
		}
		sig, err = asn1Signature(s.SignatureR.Buffer, s.SignatureS.Buffer)
		return err
	})
	return sig, err
}

// asn1Signature is an ECDSA-Sig-Value (RFC 3279, 2.2.3).
func asn1Signature(r, s []byte) ([]byte, error) {
	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1BigInt(new(big.Int).SetBytes(r))
		b.AddASN1BigInt(new(big.Int).SetBytes(s))
	})
	return b.Bytes()
}
