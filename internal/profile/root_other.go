//go:build !windows

package profile

import "path/filepath"

// deviceRoot is below TSH_HOME.
func deviceRoot(dir string) string { return filepath.Join(dir, "device") }
