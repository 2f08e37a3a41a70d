//go:build unix

package spool

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/sallyport/sallyport/internal/fault"
)

// lock takes the spool for this process: two would write one chain.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock audit spool: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, nil // which gives the lock up
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "another process uses the audit spool at %s", file).
			WithReason("audit_spool_in_use").WithFix("stop the other sallyport, or give this one another data_dir")
	}
	return nil, fmt.Errorf("lock audit spool: %w", err)
}
