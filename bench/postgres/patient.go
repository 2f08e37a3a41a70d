package postgres

import (
	"io"
	"net"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

var patience, _ = strconv.Atoi(os.Getenv("LABPAT"))

type patientConn struct {
	*net.TCPConn
	raw syscall.RawConn
}

func patient(c net.Conn) net.Conn {
	t, ok := c.(*net.TCPConn)
	if patience == 0 || !ok {
		return c
	}
	raw, err := t.SyscallConn()
	if err != nil {
		return c
	}
	return &patientConn{t, raw}
}

func (p *patientConn) Read(b []byte) (n int, err error) {
	tries := 0
	e := p.raw.Read(func(fd uintptr) bool {
		for {
			n, err = unix.Read(int(fd), b)
			if err == unix.EAGAIN {
				if tries == 0 {
					tries++
					fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
					if k, _ := unix.Poll(fds, patience); k > 0 {
						continue
					}
				}
				return false
			}
			return true
		}
	})
	if e != nil {
		return 0, e
	}
	if err != nil {
		return 0, err
	}
	if n == 0 && len(b) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
