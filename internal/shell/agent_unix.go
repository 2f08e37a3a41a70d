//go:build unix

package shell

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Socket is a listener in a directory that only a login can enter, for SSH_AUTH_SOCK.
type Socket struct {
	net.Listener
	Path string
	dir  string
}

// NewSocket makes one.
func NewSocket(l *Login) (*Socket, error) {
	dir, err := os.MkdirTemp("", "sallyport-agent-")
	if err != nil {
		return nil, fmt.Errorf("agent socket: %w", err)
	}
	s := &Socket{dir: dir, Path: filepath.Join(dir, "agent")}
	if s.Listener, err = net.Listen("unix", s.Path); err == nil {
		err = os.Chmod(s.Path, 0o600)
	}
	if err == nil && os.Geteuid() == 0 {
		// The directory goes last: until then nobody else can put something in its place.
		err = errors.Join(os.Lchown(s.Path, int(l.UID), int(l.GID)), os.Lchown(dir, int(l.UID), int(l.GID)))
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("agent socket: %w", err)
	}
	return s, nil
}

// Close ends the listener and removes the directory.
func (s *Socket) Close() error {
	var err error
	if s.Listener != nil {
		err = s.Listener.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}
