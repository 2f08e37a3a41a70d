//go:build unix

package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// lock takes a file for this process; a fault with the reason listener_running where another has it.
func lock(path string) (unlock func(), err error) {
	if err := hwkey.MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock listener: %w", err)
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return func() { _ = f.Close() }, nil // which gives the lock up
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fault.New(fault.Exists, "a listener runs already").WithReason("listener_running")
	}
	return nil, fmt.Errorf("lock listener: %w", err)
}

// unixAlone makes a unix socket that others cannot connect to; the mask counts while it is made, so there is no moment
// in which they could.
func unixAlone(path string) (net.Listener, error) {
	old := syscall.Umask(0o177)
	defer syscall.Umask(old)
	return net.Listen("unix", path)
}

// Detach makes a command outlive this process and its terminal.
func Detach(c *exec.Cmd) { c.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
