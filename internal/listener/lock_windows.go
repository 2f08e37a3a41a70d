package listener

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// lock takes a file for this process; a fault with the reason listener_running where another has it.
func lock(path string) (unlock func(), err error) {
	if err := hwkey.MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		if err := hwkey.WriteBytes(path, nil); err != nil { // for its owner alone, which a mode does not say here
			return nil, err
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("lock listener: %w", err)
	}
	err = windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err == nil {
		return func() { _ = f.Close() }, nil
	}
	_ = f.Close()
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return nil, fault.New(fault.Exists, "a listener runs already").WithReason("listener_running")
	}
	return nil, fmt.Errorf("lock listener: %w", err)
}

// unixAlone makes a unix socket; the list of rights of its directory, which it inherits, lets this user alone in.
func unixAlone(path string) (net.Listener, error) { return net.Listen("unix", path) }

// Detach makes a command outlive this process and its console.
func Detach(c *exec.Cmd) {
	c.SysProcAttr = &syscall.SysProcAttr{CreationFlags: windows.CREATE_NEW_PROCESS_GROUP | windows.DETACHED_PROCESS}
}
