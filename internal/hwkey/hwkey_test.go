package hwkey

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "sub", "k")
	f := File{Kind: device.TPM2, Parent: "81000001", Public: []byte{1}, Private: []byte{2}}
	if err := WriteFile(path, f); err != nil {
		t.Fatal(err)
	}
	got, err := ReadFile(path)
	if err != nil || got.Parent != f.Parent || got.Version != FileVersion {
		t.Fatalf("%+v, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if names, _ := os.ReadDir(filepath.Dir(path)); len(names) != 1 {
		t.Errorf("left behind: %v", names)
	}
	if err := WriteFile(path, f); err != nil { // over what was there
		t.Fatal(err)
	}
	if _, err := ReadFile(filepath.Join(dir, "none")); !fault.Because(err, "key_not_found") {
		t.Error(err)
	}
	if _, err := ReadDevice(dir); !fault.Because(err, "device_key_not_found") {
		t.Error(err)
	}
	if _, err := ReadFile(dir); !fault.Because(err, "key_damaged") {
		t.Error(err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o640); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadFile(path); !fault.Because(err, "key_damaged") {
			t.Errorf("readable by the group: %v", err)
		}
	}
	for text, reason := range map[string]string{
		"":                                "key_damaged",
		"{}":                              "key_damaged",
		`{"version":1,"kind":"software"}`: "key_damaged",
		`{"version":1,"private":"AQ=="}`:  "key_damaged",
		`{"version":2,"kind":"x","private":"AQ=="}`: "key_version",
	} {
		if _, err := ParseFile([]byte(text)); !fault.Because(err, reason) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"kind":"tpm2","parent":"81000001","public":"AQ==","private":"AQ==","enrollment":{"device_id":"x"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseFile(b); err == nil && (k.Kind == "" || len(k.Private) == 0) {
			t.Error("took nonsense")
		}
	})
}
