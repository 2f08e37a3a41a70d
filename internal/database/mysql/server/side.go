package server

import (
	"bufio"
	"net"

	"github.com/sallyport/sallyport/internal/dbwire/mysql"
)

// Side is one of a connection's two ends.
type Side struct {
	Conn net.Conn
	R    *bufio.Reader
	W    *bufio.Writer
	Seq  byte // of the next packet to it, or while it shakes hands from it
}

// NewSide makes one with buffers of some sizes.
func NewSide(c net.Conn, in, out int) *Side {
	return &Side{Conn: c, R: bufio.NewReaderSize(c, in), W: bufio.NewWriterSize(c, out)}
}

// Send writes one short payload; flush is the caller's.
func (s *Side) Send(payload []byte) error {
	_, err := s.W.Write(mysql.Append(nil, payload, s.Seq))
	s.Seq++
	return err
}

// SendNow writes it and flushes.
func (s *Side) SendNow(payload []byte) error {
	if err := s.Send(payload); err != nil {
		return err
	}
	return s.W.Flush()
}

// Receive reads one payload of a handshake.
func (s *Side) Receive() ([]byte, error) {
	b, seq, err := mysql.Read(s.R, MaxHandshake)
	s.Seq = seq + 1
	return b, err
}
