package tunnel

import (
	"encoding/binary"
	"net"
)

// joined puts a yamux frame's header and its body into one write, for yamux makes two: of a small message each would be a
// system call, and a TLS record, of its own. It is for yamux's sending loop alone, which is one goroutine.
type joined struct {
	net.Conn
	held []byte // a header whose body comes next
}

// yamux's frame (its spec.md): version, type, flags, stream, length, 12 bytes in all. Of data the length is the body's.
const (
	frameHeader = 12
	frameData   = 0
	lengthAt    = 8
	// heldRoom is what is kept for the next frame; longer ones take their own.
	heldRoom = 4 << 10
)

// Write is of net.Conn.
func (j *joined) Write(b []byte) (int, error) {
	if len(j.held) == 0 {
		if len(b) == frameHeader && b[1] == frameData && binary.BigEndian.Uint32(b[lengthAt:]) > 0 {
			j.held = append(j.held, b...)
			return len(b), nil
		}
		return j.Conn.Write(b)
	}
	before := len(j.held)
	j.held = append(j.held, b...)
	n, err := j.Conn.Write(j.held)
	if j.held = j.held[:0]; cap(j.held) > heldRoom {
		j.held = nil
	}
	return max(0, n-before), err
}
