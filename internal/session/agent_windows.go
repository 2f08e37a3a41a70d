package session

import (
	"net"
	"os"
	"strings"
	"time"
)

// pipe is a named pipe, which Windows' own ssh-agent serves, as a connection.
type pipe struct{ *os.File }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

func (pipe) LocalAddr() net.Addr         { return pipeAddr{} }
func (pipe) RemoteAddr() net.Addr        { return pipeAddr{} }
func (pipe) SetDeadline(time.Time) error { return nil }

func dialAgent(socket string) (net.Conn, error) {
	if !strings.HasPrefix(socket, `\\.\pipe\`) {
		return net.Dial("unix", socket)
	}
	f, err := os.OpenFile(socket, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return pipe{f}, nil
}
