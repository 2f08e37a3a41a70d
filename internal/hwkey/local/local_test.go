package local

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// TestOpen goes by what the device was enrolled with, then by the platform.
func TestOpen(t *testing.T) {
	dir := t.TempDir()
	want := func(o Options, kind device.Kind, reason string) {
		t.Helper()
		o.Dir = dir
		d, err := Open(o)
		switch {
		case reason != "":
			if !fault.Because(err, reason) {
				t.Errorf("got %v, want %s", err, reason)
			}
		case err != nil:
			t.Error(err)
		case d.Kind() != kind:
			t.Errorf("got %s, want %s", d.Kind(), kind)
		}
	}
	if runtime.GOOS == "darwin" {
		want(Options{}, device.SecureEnclave, "")
	} else {
		want(Options{}, device.TPM2, "")
	}
	want(Options{TPM: "/x"}, device.TPM2, "")
	want(Options{Software: true}, device.Software, "")
	for kind, reason := range map[device.Kind]string{device.Software: "", device.TPM2: "", device.SecureEnclave: "enclave_missing", "other": "key_kind"} {
		err := hwkey.WriteFile(filepath.Join(dir, hwkey.DeviceFile), hwkey.File{Kind: kind, Private: []byte{1}, Enrollment: &hwkey.Enrollment{}})
		if err != nil {
			t.Fatal(err)
		}
		want(Options{}, kind, reason)
	}
	if err := os.WriteFile(filepath.Join(dir, hwkey.DeviceFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	want(Options{}, "", "key_damaged")
}

func TestLoadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "k")
	if _, err := LoadKey(path, ""); !fault.Because(err, "key_not_found") {
		t.Error(err)
	}
	if _, err := NewKey(path); err != nil {
		t.Fatal(err)
	}
	if k, err := LoadKey(path, ""); err != nil || k.Kind() != device.Software {
		t.Error(k, err)
	}
	for kind, reason := range map[device.Kind]string{device.TPM2: "key_damaged", device.SecureEnclave: "enclave_missing"} {
		if err := hwkey.WriteFile(path, hwkey.File{Kind: kind, Private: []byte{1}}); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadKey(path, ""); !fault.Because(err, reason) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}
