package audit

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

func TestA77_DiskFull(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatalf("this test mounts a small file system and needs root: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	f := newLog(t, dir)
	var err error
	done := 0
	for ; err == nil && done < 100; done++ {
		_, err = f.Record(t.Context(), roleCreated("x"), store.Put(fmt.Sprintf("role/%03d", done), make([]byte, 50<<10)))
	}
	if !fault.Because(err, "disk_full") {
		t.Fatalf("after %d changes: %v", done, err)
	}
	if _, err := f.store.Get(t.Context(), fmt.Sprintf("role/%03d", done-1)); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the change happened without its event: %v", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	record(t, f.Log, roleCreated("again"))
	if r := verify(t, f.Log, nil); !r.Intact() || r.Entries != uint64(done) {
		t.Errorf("%+v, want %d entries", r, done)
	}
}
