//go:build darwin || linux

package enclave

import (
	"crypto/sha256"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// Device is this Mac's enclave towards one cluster.
type Device struct {
	dir  string
	open opener
}

var _ hwkey.Device = Device{}

// Open gives the device that keeps its key in dir. The frameworks are loaded when they are needed.
func Open(dir string) Device { return Device{dir, system} }

func (d Device) path() string { return filepath.Join(d.dir, hwkey.DeviceFile) }

// Kind is device.SecureEnclave.
func (Device) Kind() device.Kind { return device.SecureEnclave }

// Tag is empty: a Mac says its serial.
func (Device) Tag() (string, error) { return "", nil }

// Enrollment implements hwkey.Device.
func (d Device) Enrollment() (hwkey.Enrollment, error) {
	f, err := d.kept()
	if err != nil {
		return hwkey.Enrollment{}, err
	}
	return *f.Enrollment, nil
}

func (d Device) kept() (hwkey.File, error) { return hwkey.ReadDeviceOf(d.dir, device.SecureEnclave) }

// NewSession implements hwkey.Device.
func (d Device) NewSession(path string) (hwkey.Key, error) {
	f, err := d.open.make(path)
	if err != nil {
		return nil, err
	}
	k, err := loadKey(f, d.open)
	if err != nil {
		return nil, err
	}
	return k, hwkey.WriteFile(path, f)
}

// Login implements hwkey.Device.
func (d Device) Login(session hwkey.Key) (hwkey.Attestor, error) {
	f, err := d.kept()
	if err != nil {
		return nil, err
	}
	return d.attestor(session, f, false)
}

// Enroll implements hwkey.Device.
func (d Device) Enroll(session hwkey.Key) (hwkey.Attestor, error) {
	f, err := d.open.make(d.path())
	if err != nil {
		return nil, err
	}
	return d.attestor(session, f, true)
}

func (d Device) attestor(session hwkey.Key, f hwkey.File, fresh bool) (hwkey.Attestor, error) {
	if _, ok := session.(*key); !ok {
		return nil, hwkey.ErrBadKey.WithCause("the session key is no key of the Secure Enclave")
	}
	return &attestor{device: d, key: f, fresh: fresh}, nil
}

// attestor is the device key, fresh in an enrollment.
type attestor struct {
	device Device
	key    hwkey.File
	fresh  bool
}

// Evidence implements hwkey.Attestor.
func (a *attestor) Evidence() (device.Evidence, error) {
	e := device.Evidence{Kind: device.SecureEnclave}
	if a.fresh {
		e.Key = a.key.Public
	}
	return e, nil
}

// Activate implements hwkey.Attestor: there is no endorsement key.
func (a *attestor) Activate(_, _ []byte) ([]byte, error) {
	return nil, fault.New(fault.Unsupported, "the Secure Enclave opens no credential").WithReason("device_field")
}

// Prove implements hwkey.Attestor: one signature of the device key.
func (a *attestor) Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error) {
	if quote {
		return device.Proof{}, fault.New(fault.Unsupported, "the Secure Enclave cannot quote the machine's start").
			WithReason("device_quote_unsupported")
	}
	sig, err := a.device.open.sign(a.key, digest[:])
	return device.Proof{Signature: sig}, err
}

// Keep implements hwkey.Attestor.
func (a *attestor) Keep(e hwkey.Enrollment) error {
	e.Kind = device.SecureEnclave
	f := a.key
	f.Enrollment = &e
	return hwkey.WriteFile(a.device.path(), f)
}
