//go:build !windows

package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/profile"
)

// TestFiles finds directories and keys that others may read.
func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tsh")
	home, err := profile.Open(func(string) string { return dir })
	if err != nil {
		t.Fatal(err)
	}
	p := &profile.Profile{Cluster: "c", User: "u", Proxy: "h:1"}
	look := func() Check {
		x := &examination{report: &report{}, p: Patient{Home: home, Profile: p}}
		x.files()
		return x.checks[0]
	}
	if c := look(); c.State != OK {
		t.Errorf("nothing is there: %+v", c)
	}
	if err := home.Save(p); err != nil {
		t.Fatal(err)
	}
	if err := hwkey.WriteFile(home.KeyFile(p), hwkey.File{Kind: "software", Private: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.State != OK {
		t.Errorf("%+v", c)
	}
	if err := os.Chmod(home.KeyFile(p), 0o640); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.State != Failed || c.Reason != "key_damaged" || !strings.HasPrefix(c.Fix, "chmod 600 ") {
		t.Errorf("%+v", c)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c := look(); c.State != Warning || c.Reason != "files_open" || !strings.HasPrefix(c.Fix, "chmod 700 ") {
		t.Errorf("%+v", c)
	}
}
