package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

func TestFilesArePrivate(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "a?b#c% d")
	s := openTest(t, dir)
	if _, err := s.Txn(t.Context(), []store.Op{store.Put("a", nil)}); err != nil {
		t.Fatal(err)
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("directory is %v", info.Mode())
	}
	files, _ := os.ReadDir(dir)
	if len(files) < 3 {
		t.Errorf("files %v: the state is elsewhere", files)
	}
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", f.Name(), info.Mode())
		}
	}
}

// TestDiskFull fills a small file system: the error is clean, what was committed is there, and with space it goes on.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := openTest(t, dir)
	stored := 0
	var err error
	for ; err == nil && stored < 100; stored++ {
		_, err = s.Txn(t.Context(), []store.Op{store.Put(fmt.Sprintf("k/%03d", stored), make([]byte, 100<<10))})
	}
	if !fault.Because(err, "disk_full") || !fault.Is(err, fault.Exhausted) {
		t.Fatalf("after %d records: %v", stored, err)
	}
	p, err := s.List(t.Context(), store.Range{})
	if err != nil || len(p.Records) != stored-1 || p.Revision != uint64(stored-1) {
		t.Errorf("%d records at revision %d, %v; want %d", len(p.Records), p.Revision, err, stored-1)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Txn(t.Context(), []store.Op{store.Put("again", nil)}); err != nil || r != uint64(stored) {
		t.Errorf("with space again: revision %d, %v; want %d", r, err, stored)
	}
}
