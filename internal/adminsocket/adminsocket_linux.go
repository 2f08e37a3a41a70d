// Package adminsocket is a unix socket that lets in its own user, and root, alone.
package adminsocket

import (
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/fault"
)

// Listen makes the socket anew: mode 0600, and whoever connects is asked for by the kernel's word.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	old := umask(0o177)
	l, err := net.Listen("unix", path)
	umask(old)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot make the admin socket %s", path).WithCause("%v", err).WithFix("sallyport start --data-dir=DIR")
	}
	return &ownOnly{l}, os.Chmod(path, 0o600)
}

// ownOnly lets in whom the kernel says is this user, or root.
type ownOnly struct{ net.Listener }

// Accept is of net.Listener.
func (l *ownOnly) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peerUID(c); err == nil && (uid == os.Getuid() || uid == 0) {
			return c, nil
		}
		c.Close()
	}
}

// peerUID is who is on the other end of a unix socket, as the kernel says.
func peerUID(c net.Conn) (int, error) {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return 0, errors.New("not a unix socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var sockErr error
	if err := raw.Control(func(fd uintptr) { cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
		return 0, err
	}
	if sockErr != nil {
		return 0, sockErr
	}
	return int(cred.Uid), nil
}

// umask sets the file mode mask and returns the one before.
func umask(mask int) int { return unix.Umask(mask) }
