package spool

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/fault"
)

func TestA77_SpoolDiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	s := openTest(t, testConfig(dir))
	n := 0
	var err error
	for ; err == nil && n < 1000; n++ {
		err = s.Write(t.Context(), command(strings.Repeat("x", 1000)))
	}
	if !fault.Because(err, "audit_full") {
		t.Fatalf("after %d: %v", n, err)
	}
	onlyWaiting(t, s, filepath.Join(dir, "0000000000000001.jsonl"))
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=1m"); err != nil {
		t.Fatal(err)
	}
	write(t, s, "again")
	if entries, err := s.Pending(1000); err != nil || len(entries) != n {
		t.Errorf("%d entries, %v; want %d", len(entries), err, n)
	}
	_ = s.Close()
	openTest(t, testConfig(dir))
}
