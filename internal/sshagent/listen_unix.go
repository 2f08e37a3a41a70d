//go:build unix

package sshagent

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// Listen makes the agent's socket, readable by this user alone. One that is left over from a dead agent is replaced;
// one that is in use is a fault. On Windows it is a fault that says so.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, unmade(path, err)
	}
	if conn, err := net.DialTimeout("unix", path, time.Second); err == nil {
		conn.Close()
		return nil, fault.New(fault.Exists, "an agent serves %s already", path).WithReason("agent_running").
			WithFix("SSH_AUTH_SOCK=%s ssh …, or end that agent first", path)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fault.New(fault.Exists, "%s is in the way and is no socket", path).WithReason("agent_socket")
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, unmade(path, err)
		}
	}
	// The mask counts while the socket is made: there is no moment in which others could connect.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, unmade(path, err)
	}
	return l, nil
}

func unmade(path string, err error) error {
	return fault.New(fault.Unavailable, "the agent's socket %s cannot be made", path).WithReason("agent_socket").Wrapping(err)
}
