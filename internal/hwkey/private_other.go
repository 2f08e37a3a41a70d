//go:build !windows

package hwkey

import (
	"fmt"
	"io/fs"
	"os"
)

// MakeDir makes a directory of mode 0700, and those above it.
func MakeDir(path string) error { return os.MkdirAll(path, 0o700) }

// CreateTemp makes a file of mode 0600.
func CreateTemp(dir string) (*os.File, error) { return os.CreateTemp(dir, ".new-*") }

func exposed(path string, info fs.FileInfo) (string, bool) {
	return fmt.Sprintf("chmod 600 %s", path), info.Mode().Perm()&0o077 != 0
}
