// Package frame reads and writes the frames in which Kubernetes' streams travel: those of SPDY/3.1, over a connection or in the
// messages of a WebSocket. Data passes in pieces and is never held whole; what is no frame is ErrMalformed.
package frame

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/moby/spdystream/spdy"
)

// Bounds of a SPDY control frame.
const (
	maxControl = 16 << 10
	maxHeaders = 16
	maxHeader  = 1 << 10
)

// ErrMalformed is of bytes that are not of the protocol.
var ErrMalformed = errors.New("malformed")

// Malformed is an ErrMalformed that says what was wrong.
func Malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// ErrParted is of a side that ended the session in the protocol's own way.
var ErrParted = errors.New("parted")

// Headroom is what of a buffer of data is kept free for its frame's head.
const Headroom = 8

// Wire is one side's SPDY/3.1 connection (SPDY Protocol, draft 3.1): frames of 8 bytes' head and a payload. Data frames are
// passed on in chunks, control frames are read and written by spdy.
type Wire struct {
	net.Conn
	in     *bufio.Reader
	frame  io.LimitedReader // of in, a control frame
	framer *spdy.Framer     // reads from frame, writes to out

	mu  sync.Mutex   // orders what is written, and guards
	out bytes.Buffer // one control frame
}

// NewWire is a side; in is what is read of conn.
func NewWire(conn net.Conn, in *bufio.Reader) (*Wire, error) {
	w := &Wire{Conn: conn, in: in}
	w.frame.R = in
	var err error
	w.framer, err = spdy.NewFramerWithOptions(&w.out, &w.frame, spdy.WithMaxControlFramePayloadSize(maxControl), spdy.WithMaxHeaderCount(maxHeaders), spdy.WithMaxHeaderFieldSize(maxHeader))
	return w, err
}

// Head is a frame's.
type Head struct {
	Control bool
	Kind    spdy.ControlFrameType
	ID      spdy.StreamId // of data
	Fin     bool          // of data
	Length  int
}

// Head reads the next frame's; that of a control frame is left for spdy to read too.
func (w *Wire) Head() (Head, error) {
	b, err := w.in.Peek(8)
	if err != nil {
		return Head{}, err
	}
	word, rest := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	h := Head{Control: word>>31 == 1, Fin: rest>>24&1 == 1, Length: int(rest & 0xffffff)}
	if !h.Control {
		h.ID = spdy.StreamId(word)
		_, err = w.in.Discard(8)
		return h, err
	}
	h.Kind = spdy.ControlFrameType(word & 0xffff)
	if version := word >> 16 & 0x7fff; version != spdy.Version {
		return h, Malformed("a frame of SPDY version %d", version)
	}
	if least, known := leastLength[h.Kind]; !known || h.Length < least || h.Length > maxControl {
		return h, Malformed("a control frame of type %d and %d bytes", h.Kind, h.Length)
	}
	return h, nil
}

// leastLength is what a control frame's payload has at least.
var leastLength = map[spdy.ControlFrameType]int{spdy.TypeSynStream: 10, spdy.TypeSynReply: 4, spdy.TypeRstStream: 8, spdy.TypeSettings: 4,
	spdy.TypePing: 4, spdy.TypeGoAway: 8, spdy.TypeHeaders: 4, spdy.TypeWindowUpdate: 8}

// Payload reads a piece of a data frame's.
func (w *Wire) Payload(p []byte) error {
	_, err := io.ReadFull(w.in, p)
	return err
}

// Control reads the control frame whose head was seen.
func (w *Wire) Control(h Head) (spdy.Frame, error) {
	w.frame.N = 8 + int64(h.Length)
	f, err := w.framer.ReadFrame()
	if err == nil && w.frame.N == 0 {
		return f, nil
	}
	var wrong *spdy.Error
	if err == nil || errors.As(err, &wrong) || w.frame.N == 0 {
		return nil, Malformed("a control frame of type %d: %v", h.Kind, err)
	}
	return nil, err
}

// Send sends a control frame.
func (w *Wire) Send(f spdy.Frame) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Reset()
	if err := w.framer.WriteFrame(f); err != nil {
		return err
	}
	_, err := w.Conn.Write(w.out.Bytes())
	return err
}

// Data sends a data frame, whose payload buf holds behind its Headroom.
func (w *Wire) Data(id spdy.StreamId, fin bool, buf []byte) error {
	binary.BigEndian.PutUint32(buf, uint32(id))
	binary.BigEndian.PutUint32(buf[4:], uint32(len(buf)-Headroom))
	if fin {
		buf[4] = byte(spdy.DataFlagFin)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err := w.Conn.Write(buf)
	return err
}
