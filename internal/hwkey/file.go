package hwkey

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// FileVersion is the version of File; newer ones are refused.
const FileVersion = 1

// DeviceFile is the name of the device key within a device's directory, of every kind.
const DeviceFile = "device.key"

// maxFile bounds a key file; a TPM's blobs take less than 1 KiB.
const maxFile = 64 << 10

// File is a key at rest, as JSON: a TPM's wrapped blob with the parent that loads it, an enclave's, or a software key's
// PKCS #8 DER in Private. A device's file carries its enrollment too.
type File struct {
	Version    int         `json:"version"`
	Kind       device.Kind `json:"kind"`
	Parent     string      `json:"parent,omitempty"` // tpm2: a persistent handle in hex, or storage-p256; secure_enclave: keychain
	Public     []byte      `json:"public,omitempty"` // tpm2: TPMT_PUBLIC; secure_enclave: SPKI DER
	Private    []byte      `json:"private"`          // tpm2: TPM2B_PRIVATE without its length; secure_enclave: the blob, or the keychain's tag
	Enrollment *Enrollment `json:"enrollment,omitempty"`
}

// ReadFile reads a key file. A file that is not there is the fault ErrNoKey, one that others may read or that says
// nothing sensible ErrBadKey.
func ReadFile(path string) (File, error) {
	var f File
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, ErrNoKey.Wrapping(err)
	}
	if err != nil {
		return f, fmt.Errorf("read key file: %w", err)
	}
	if info.Size() > maxFile || !info.Mode().IsRegular() {
		return f, ErrBadKey.WithCause("%s is no key file", path)
	}
	if fix, yes := exposed(path, info); yes {
		return f, ErrBadKey.WithCause("%s can be read by others", path).WithFix("%s", fix)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return f, fmt.Errorf("read key file: %w", err)
	}
	return ParseFile(b)
}

// ParseFile takes the contents of a key file.
func ParseFile(b []byte) (File, error) {
	var f File
	if err := json.Unmarshal(b, &f); err != nil {
		return File{}, ErrBadKey.Wrapping(err)
	}
	if f.Version > FileVersion {
		return File{}, fault.New(fault.Unsupported, "key file is of version %d, this program knows %d", f.Version,
			FileVersion).WithReason("key_version")
	}
	if f.Version < 1 || f.Kind == "" || len(f.Private) == 0 {
		return File{}, ErrBadKey
	}
	return f, nil
}

// WriteFile writes a key file so that a crash leaves the old one or the new one, readable by its owner alone.
func WriteFile(path string, f File) error {
	f.Version = FileVersion
	b, err := json.Marshal(f)
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	return WriteBytes(path, append(b, '\n'))
}

// WriteBytes writes a file, for its owner alone, whole or not at all.
func WriteBytes(path string, b []byte) error {
	if err := MakeDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	tmp, err := CreateTemp(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("write key file: %w", err)
	}
	_, err = tmp.Write(b)
	if err == nil {
		err = tmp.Sync()
	}
	err = errors.Join(err, tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("write key file: %w", errors.Join(err, os.Remove(tmp.Name())))
	}
	return nil
}

// ReadDeviceOf reads the device key of a kind that was kept in dir; the fault ErrNotEnrolled where there is none, or one
// of another kind.
func ReadDeviceOf(dir string, kind device.Kind) (File, error) {
	f, err := ReadDevice(dir)
	if err == nil && f.Kind != kind {
		err = ErrNotEnrolled.WithCause("the device is enrolled with a %s key", f.Kind)
	}
	return f, err
}

// ReadDevice reads the device key that was kept in dir; the fault ErrNotEnrolled where there is none.
func ReadDevice(dir string) (File, error) {
	f, err := ReadFile(filepath.Join(dir, DeviceFile))
	if fault.Because(err, ErrNoKey.Reason) {
		return f, ErrNotEnrolled.Wrapping(err)
	}
	if err == nil && f.Enrollment == nil {
		err = ErrNotEnrolled.WithCause("%s holds no enrollment", DeviceFile)
	}
	return f, err
}
