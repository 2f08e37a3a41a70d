// Package software is device and session keys in files, for machines without hardware and for logins without a device.
package software

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// Device is the software device whose key is in Dir.
type Device struct{ dir string }

var _ hwkey.Device = Device{}

// Open gives the device that keeps its key in dir.
func Open(dir string) Device { return Device{dir} }

func (d Device) path() string { return filepath.Join(d.dir, hwkey.DeviceFile) }

// Kind is device.Software.
func (Device) Kind() device.Kind { return device.Software }

// Tag is empty: a key file says nothing of the machine.
func (Device) Tag() (string, error) { return "", nil }

// Enrollment implements hwkey.Device.
func (d Device) Enrollment() (hwkey.Enrollment, error) {
	f, err := d.kept()
	if err != nil {
		return hwkey.Enrollment{}, err
	}
	return *f.Enrollment, nil
}

func (d Device) kept() (hwkey.File, error) { return hwkey.ReadDeviceOf(d.dir, device.Software) }

// NewSession implements hwkey.Device.
func (Device) NewSession(path string) (hwkey.Key, error) { return NewKey(path) }

// Login implements hwkey.Device.
func (d Device) Login(hwkey.Key) (hwkey.Attestor, error) {
	f, err := d.kept()
	if err != nil {
		return nil, err
	}
	k, err := parse(f)
	if err != nil {
		return nil, err
	}
	return &attestor{device: d, key: k.priv}, nil
}

// Enroll implements hwkey.Device.
func (d Device) Enroll(hwkey.Key) (hwkey.Attestor, error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make device key: %w", err)
	}
	return &attestor{device: d, key: priv, fresh: true}, nil
}

// attestor is the device key, fresh in an enrollment.
type attestor struct {
	device Device
	key    *ecdsa.PrivateKey
	fresh  bool
}

func (a *attestor) Evidence() (device.Evidence, error) {
	e := device.Evidence{Kind: device.Software}
	if a.fresh {
		spki, err := x509.MarshalPKIXPublicKey(a.key.Public())
		if err != nil {
			return e, fmt.Errorf("device key: %w", err)
		}
		e.Key = spki
	}
	return e, nil
}

func (a *attestor) Activate(_, _ []byte) ([]byte, error) {
	return nil, fault.New(fault.Unsupported, "a software key opens no credential").WithReason("device_field")
}

func (a *attestor) Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error) {
	if quote {
		return device.Proof{}, fault.New(fault.Unsupported, "a software key cannot quote the machine's start").
			WithReason("device_quote_unsupported")
	}
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, digest[:])
	if err != nil {
		return device.Proof{}, fmt.Errorf("sign transcript: %w", err)
	}
	return device.Proof{Signature: sig}, nil
}

func (a *attestor) Keep(e hwkey.Enrollment) error {
	f, err := pack(a.key)
	if err != nil {
		return err
	}
	e.Kind = device.Software
	f.Enrollment = &e
	return hwkey.WriteFile(a.device.path(), f)
}

// key is a session key.
type key struct{ priv *ecdsa.PrivateKey }

// NewKey makes a session key and writes it to path.
func NewKey(path string) (hwkey.Key, error) {
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make session key: %w", err)
	}
	f, err := pack(priv)
	if err != nil {
		return nil, err
	}
	return key{priv}, hwkey.WriteFile(path, f)
}

// Load gives the session key of a key file.
func Load(f hwkey.File) (hwkey.Key, error) {
	k, err := parse(f)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func pack(priv *ecdsa.PrivateKey) (hwkey.File, error) {
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		return hwkey.File{}, fmt.Errorf("key file: %w", err)
	}
	return hwkey.File{Kind: device.Software, Private: der}, nil
}

func parse(f hwkey.File) (key, error) {
	if f.Kind != device.Software {
		return key{}, hwkey.ErrBadKey.WithCause("the key is of kind %s", f.Kind)
	}
	k, err := x509.ParsePKCS8PrivateKey(f.Private)
	if err != nil {
		return key{}, hwkey.ErrBadKey.Wrapping(err)
	}
	priv, ok := k.(*ecdsa.PrivateKey)
	if !ok || priv.Curve != elliptic.P256() {
		return key{}, hwkey.ErrBadKey.WithCause("the key is not on P-256")
	}
	return key{priv}, nil
}

func (k key) Public() crypto.PublicKey { return k.priv.Public() }
func (key) Kind() device.Kind          { return device.Software }
func (key) Area() []byte               { return nil }

func (k key) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.priv.Sign(random, digest, opts)
}
