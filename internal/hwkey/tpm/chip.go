package tpm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
)

// chip is an open TPM and what this operation has loaded into its three object slots.
type chip struct {
	transport.TPM
	loaded []tpm2.TPMHandle
}

// object is a loaded or persistent key.
type object struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
}

// auth is the object with its empty authorization. All keys used here are noDA: it cannot count towards lockout.
func (o object) auth() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: o.handle, Name: o.name, Auth: tpm2.PasswordAuth(nil)}
}

// use opens the TPM for one operation, and leaves nothing in it.
func use(path string, f func(*chip) error) error {
	t, err := platform.Open(path)
	if err != nil {
		return err
	}
	c := &chip{TPM: t}
	err = f(c)
	for _, h := range slices.Backward(c.loaded) {
		_, ferr := tpm2.FlushContext{FlushHandle: h}.Execute(c)
		err = errors.Join(err, ferr)
	}
	return named(errors.Join(err, t.Close()))
}

// named turns the TPM's own words into faults that tell a person what happened.
func named(err error) error {
	var loading *loadError
	var f *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &f): // it has its name
		return err
	case errors.Is(err, tpm2.TPMRCLockout):
		return hwkey.ErrLockout.Wrapping(err)
	case errors.Is(err, tpm2.TPMRCRetry), errors.Is(err, tpm2.TPMRCYielded), errors.Is(err, tpm2.TPMRCTesting), errors.Is(err, tpm2.TPMRCNVRate):
		return hwkey.ErrBusy.Wrapping(err).WithCause("it did not get to a command in %s", platform.Patience)
	case errors.As(err, &loading):
		return hwkey.ErrCleared.Wrapping(err)
	}
	return err
}

// loadError is a key blob that this TPM does not take.
type loadError struct{ err error }

func (e *loadError) Error() string { return "load key: " + e.err.Error() }
func (e *loadError) Unwrap() error { return e.err }

func (c *chip) keep(h tpm2.TPMHandle) { c.loaded = append(c.loaded, h) }

// flush frees the slot of an object of this operation; persistent ones stay.
func (c *chip) flush(o object) error {
	i := slices.Index(c.loaded, o.handle)
	if i < 0 {
		return nil
	}
	c.loaded = slices.Delete(c.loaded, i, i+1)
	_, err := tpm2.FlushContext{FlushHandle: o.handle}.Execute(c)
	return err
}

// storageP256 is File.Parent of keys under the TCG P-256 storage primary, which is made anew each time (TCG TPM v2.0
// Provisioning Guidance, 7.5.1).
const storageP256 = "storage-p256"

// persistentSRK is where platforms keep their storage root key (TCG Provisioning Guidance, 7.8).
const persistentSRK tpm2.TPMHandle = 0x81000001

// choose finds the parent of new keys and its name in File.Parent.
func (c *chip) choose() (object, string, error) {
	pub, o, err := c.readPublic(persistentSRK)
	if err == nil && storageKey(pub) {
		return o, strconv.FormatUint(uint64(persistentSRK), 16), nil
	}
	o, err = c.parent(storageP256)
	return o, storageP256, err
}

// parent opens the parent that a key file names.
func (c *chip) parent(name string) (object, error) {
	if name == storageP256 {
		o, err := c.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate, nil)
		if authFailed(err) {
			return o, hwkey.ErrNoParent.Wrapping(err)
		}
		return o, err
	}
	h, err := strconv.ParseUint(name, 16, 32)
	if err != nil || h>>24 != 0x81 {
		return object{}, hwkey.ErrBadKey.WithCause("parent %q is not known", name)
	}
	pub, o, err := c.readPublic(tpm2.TPMHandle(h))
	if err != nil || !storageKey(pub) {
		return object{}, hwkey.ErrCleared.Wrapping(err).WithCause("its storage key %s is gone", name)
	}
	return o, nil
}

// storageKey reports whether a key can be a parent: a restricted decryption key, RSA-2048 or P-256, that takes the
// empty authorization without counting towards lockout.
func storageKey(p *tpm2.TPMTPublic) bool {
	a := p.ObjectAttributes
	if !a.Restricted || !a.Decrypt || a.SignEncrypt || !a.UserWithAuth || !a.NoDA || !a.FixedTPM {
		return false
	}
	if r, err := p.Parameters.RSADetail(); p.Type == tpm2.TPMAlgRSA && err == nil {
		return r.KeyBits == 2048
	}
	e, err := p.Parameters.ECCDetail()
	return p.Type == tpm2.TPMAlgECC && err == nil && e.CurveID == tpm2.TPMECCNistP256
}

func authFailed(err error) bool {
	return errors.Is(err, tpm2.TPMRCBadAuth) || errors.Is(err, tpm2.TPMRCAuthFail)
}

// readPublic reads a persistent object's public area.
func (c *chip) readPublic(h tpm2.TPMHandle) (*tpm2.TPMTPublic, object, error) {
	rsp, err := tpm2.ReadPublic{ObjectHandle: h}.Execute(c)
	if err != nil {
		return nil, object{}, fmt.Errorf("read public area %x: %w", h, err)
	}
	pub, err := rsp.OutPublic.Contents()
	return pub, object{h, rsp.Name}, err
}

// primary makes a primary object from a template.
func (c *chip) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, auth []byte) (object, error) {
	rsp, err := tpm2.CreatePrimary{
		PrimaryHandle: tpm2.AuthHandle{Handle: hierarchy, Auth: tpm2.PasswordAuth(auth)},
		InPublic:      tpm2.New2B(template),
	}.Execute(c)
	if err != nil {
		return object{}, fmt.Errorf("create primary key: %w", err)
	}
	c.keep(rsp.ObjectHandle)
	return object{rsp.ObjectHandle, rsp.Name}, nil
}

// create makes a key under the TPM's parent.
func (c *chip) create(template tpm2.TPMTPublic) (hwkey.File, error) {
	parent, name, err := c.choose()
	if err != nil {
		return hwkey.File{}, err
	}
	rsp, err := tpm2.Create{ParentHandle: parent.auth(), InPublic: tpm2.New2B(template)}.Execute(c)
	if err != nil {
		return hwkey.File{}, fmt.Errorf("create key: %w", err)
	}
	return hwkey.File{Version: hwkey.FileVersion, Kind: device.TPM2, Parent: name, Public: rsp.OutPublic.Bytes(),
		Private: rsp.OutPrivate.Buffer}, c.flush(parent)
}

// load loads keys of files, one after the other, and leaves no parent behind.
func (c *chip) load(files ...hwkey.File) ([]object, error) {
	var parent object
	out := make([]object, len(files))
	for i, f := range files {
		var err error
		if i == 0 || f.Parent != files[i-1].Parent {
			if parent, err = c.parent(f.Parent); err != nil {
				return nil, err
			}
		}
		rsp, err := tpm2.Load{
			ParentHandle: parent.auth(),
			InPrivate:    tpm2.TPM2BPrivate{Buffer: f.Private},
			InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](f.Public),
		}.Execute(c)
		if err != nil {
			if foreign(err) {
				err = &loadError{err}
			}
			return nil, err
		}
		c.keep(rsp.ObjectHandle)
		out[i] = object{rsp.ObjectHandle, rsp.Name}
		if i == len(files)-1 || files[i+1].Parent != f.Parent {
			if err := c.flush(parent); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// foreign tells a blob that another TPM, or this one before it was cleared, has made.
func foreign(err error) bool {
	for _, rc := range []tpm2.TPMRC{tpm2.TPMRCIntegrity, tpm2.TPMRCSize, tpm2.TPMRCBinding, tpm2.TPMRCHash,
		tpm2.TPMRCSensitive, tpm2.TPMRCSymmetric, tpm2.TPMRCType, tpm2.TPMRCValue, tpm2.TPMRCInsufficient} {
		if errors.Is(err, rc) {
			return true
		}
	}
	return false
}

// property reads one fixed property.
func (c *chip) property(p tpm2.TPMPT) (uint32, error) {
	rsp, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: uint32(p), PropertyCount: 1}.Execute(c)
	if err != nil {
		return 0, fmt.Errorf("read TPM property: %w", err)
	}
	props, err := rsp.CapabilityData.Data.TPMProperties()
	if err != nil || len(props.TPMProperty) != 1 || props.TPMProperty[0].Property != p {
		return 0, fmt.Errorf("read TPM property %x: not told", p)
	}
	return props.TPMProperty[0].Value, nil
}

// info is what the TPM says of itself.
func (c *chip) info() (*device.TPMInfo, error) {
	maker, err1 := c.property(tpm2.TPMPTManufacturer)
	high, err2 := c.property(tpm2.TPMPTFirmwareVersion1)
	low, err3 := c.property(tpm2.TPMPTFirmwareVersion2)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	name := []byte{byte(maker >> 24), byte(maker >> 16), byte(maker >> 8), byte(maker)}
	name = bytes.TrimRight(name, "\x00 ")
	for i, b := range name {
		if b < ' ' || b > '~' {
			name[i] = '?'
		}
	}
	return &device.TPMInfo{Manufacturer: string(name),
		Firmware: fmt.Sprintf("%d.%d.%d.%d", high>>16, high&0xffff, low>>16, low&0xffff)}, nil
}
