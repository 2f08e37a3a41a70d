package hwkey

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// windowsDir is a directory for a test; SALLYPORT_TEST_DIR names one where wine cannot remove trees.
func windowsDir(t *testing.T) string {
	t.Helper()
	if dir := os.Getenv("SALLYPORT_TEST_DIR"); dir != "" {
		return filepath.Join(dir, "Größe und Maß")
	}
	return t.TempDir()
}

// allowed are the accounts that a file's list of rights lets do anything.
func allowed(t *testing.T, path string) (out []string) {
	t.Helper()
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	acl, _, err := sd.DACL()
	if err != nil || acl == nil {
		t.Fatal("no list of rights", err)
	}
	for i := range acl.AceCount {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, uint32(i), &ace); err != nil {
			t.Fatal(err)
		}
		if ace.Header.AceFlags&windows.INHERITED_ACE != 0 {
			t.Errorf("%s inherits rights", path)
		}
		out = append(out, (*windows.SID)(unsafe.Pointer(&ace.SidStart)).String())
	}
	return out
}

// TestWindowsPrivate finds nobody but the owner, and the system, in the rights of what is written.
func TestWindowsPrivate(t *testing.T) {
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(windowsDir(t), strings.Repeat("long", 20), strings.Repeat("longer", 20))
	path := filepath.Join(dir, "k")
	f := File{Kind: device.TPM2, Parent: "81000001", Public: []byte{1}, Private: []byte{2}}
	for range 2 { // the second over the first
		if err := WriteFile(path, f); err != nil {
			t.Fatal(err)
		}
	}
	const system = "S-1-5-18"
	for _, p := range []string{dir, path} {
		for _, who := range allowed(t, p) {
			if who != me.User.Sid.String() && who != system {
				t.Errorf("%s: %s has rights", p, who)
			}
		}
	}
	if _, err := ReadFile(path); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
	sd, err := windows.SecurityDescriptorFromString("D:P(A;;FA;;;" + me.User.Sid.String() + ")(A;;FR;;;WD)")
	if err != nil {
		t.Fatal(err)
	}
	acl, _, err := sd.DACL()
	if err != nil {
		t.Fatal(err)
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.DACL_SECURITY_INFORMATION, nil, nil, acl, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadFile(path); !fault.Because(err, "key_damaged") || !strings.Contains(fault.Of(err).Fix, "icacls") {
		t.Errorf("everyone may read: %v", err)
	}
}
