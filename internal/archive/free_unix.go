//go:build unix

package archive

import "golang.org/x/sys/unix"

// free is what is left of a directory's disk for who is not root.
func free(dir string) (bytes int64, known bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), true
}
