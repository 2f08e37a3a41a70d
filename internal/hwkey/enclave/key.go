//go:build darwin || linux

package enclave

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/framework"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// opener loads the framework.
type opener func() (*security, error)

// use calls the framework, and releases what was made.
func (o opener) use(f func(*security, *framework.Pool) error) error {
	s, err := o()
	if err != nil {
		return err
	}
	p := s.core.Pool()
	defer p.Release()
	return named(f(s, p))
}

// make makes a key for a file at path: the file holds its blob or, where the system hands out none, the keychain's tag
// of it.
func (o opener) make(path string) (f hwkey.File, err error) {
	err = o.use(func(s *security, p *framework.Pool) error {
		k, err := s.create(p, "")
		if err != nil {
			return err
		}
		f = hwkey.File{Version: hwkey.FileVersion, Kind: device.SecureEnclave}
		if f.Private, err = s.blob(p, k); err != nil {
			return err
		}
		if f.Private == nil {
			tag := slot(path)
			if err := s.forget(p, tag); err != nil {
				return err
			}
			f.Parent, f.Private = keychainParent, []byte(tag)
			if k, err = s.create(p, tag); err != nil {
				return err
			}
		}
		pub, err := s.point(p, k)
		if err != nil {
			return err
		}
		f.Public, err = x509.MarshalPKIXPublicKey(pub)
		return err
	})
	return f, err
}

// slot is the keychain's tag for the key of a file: one of two, the one that the file has not now. So a key goes on
// serving until the next has taken its place, and the keychain holds two of a file at most. A file that ends in .new
// will take the place of the one without.
func slot(path string) string {
	path = strings.TrimSuffix(path, ".new")
	sum := sha256.Sum256([]byte(path))
	tag := "sallyport-" + hex.EncodeToString(sum[:8])
	if f, err := hwkey.ReadFile(path); err == nil && f.Parent == keychainParent && string(f.Private) == tag+"-a" {
		return tag + "-b"
	}
	return tag + "-a"
}

// open gives the key of a file, and no other: the system makes a new one of a blob that it does not take.
func (s *security) open(p *framework.Pool, f hwkey.File) (k framework.Ref, err error) {
	switch f.Parent {
	case "":
		k, err = s.unwrap(p, f.Private)
	case keychainParent:
		k, err = s.lookup(p, string(f.Private))
	default:
		err = hwkey.ErrBadKey.WithCause("parent %q is not known", f.Parent)
	}
	if err != nil {
		return 0, err
	}
	pub, err := s.point(p, k)
	if err != nil {
		return 0, err
	}
	if spki, err := x509.MarshalPKIXPublicKey(pub); err != nil || !bytes.Equal(spki, f.Public) {
		return 0, errors.Join(hwkey.ErrEnclaveKey.WithCause("another key came in its place"), err)
	}
	return k, nil
}

// sign opens a file's key and signs a SHA-256 digest.
func (o opener) sign(f hwkey.File, digest []byte) (sig []byte, err error) {
	err = o.use(func(s *security, p *framework.Pool) error {
		k, err := s.open(p, f)
		if err != nil {
			return err
		}
		sig, err = s.signature(p, k, digest)
		if err == nil && len(sig) == 0 {
			err = s.core.Fail("SecKeyCreateSignature", 0)
		}
		return err
	})
	return sig, err
}

// key is a session key.
type key struct {
	file hwkey.File
	open opener
	pub  *ecdsa.PublicKey
}

// Load gives the session key of a key file. The enclave is asked at each signature.
func Load(f hwkey.File) (hwkey.Key, error) { return loadKey(f, system) }

func loadKey(f hwkey.File, open opener) (hwkey.Key, error) {
	if f.Kind != device.SecureEnclave {
		return nil, hwkey.ErrBadKey.WithCause("the key is of kind %s", f.Kind)
	}
	k, err := x509.ParsePKIXPublicKey(f.Public)
	if err != nil {
		return nil, hwkey.ErrBadKey.Wrapping(err)
	}
	pub, ok := k.(*ecdsa.PublicKey)
	if !ok || pub.Curve != elliptic.P256() {
		return nil, hwkey.ErrBadKey.WithCause("the key is not on P-256")
	}
	return &key{f, open, pub}, nil
}

func (k *key) Public() crypto.PublicKey { return k.pub }
func (*key) Kind() device.Kind          { return device.SecureEnclave }
func (*key) Area() []byte               { return nil }

// Sign implements crypto.Signer for SHA-256 digests.
func (k *key) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if opts == nil || opts.HashFunc() != crypto.SHA256 || len(digest) != crypto.SHA256.Size() {
		return nil, fmt.Errorf("an enclave key signs SHA-256 digests only")
	}
	return k.open.sign(k.file, digest)
}
