//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/sallyport/sallyport/internal/fault"
)

// lock takes the state for this process: a second one would write past the first one's watchers.
func lock(file string) (unlock func(), err error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock state: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, nil // which gives the lock up
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fault.New(fault.Conflict, "another process uses the state in %s", file).WithReason("state_in_use").
			WithFix("stop the other sallyport, or give this one another data_dir")
	}
	return nil, fmt.Errorf("lock state: %w", err)
}
