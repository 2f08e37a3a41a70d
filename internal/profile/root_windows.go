package profile

import (
	"os"
	"path/filepath"
)

// deviceRoot is below %LOCALAPPDATA%, which does not roam to other machines.
func deviceRoot(dir string) string {
	if local := os.Getenv("LOCALAPPDATA"); local != "" && os.Getenv("TSH_HOME") == "" {
		return filepath.Join(local, "tsh", "device")
	}
	return filepath.Join(dir, "device")
}
