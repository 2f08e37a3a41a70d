// Package mysql is the wire format of MySQL and MariaDB: packets, the handshake, commands, and what ends a result.
//
//	packet    = length:3 sequence:1 payload       (little endian; a payload of 0xffffff bytes goes on in the next packet)
//	greeting  = 10 version NUL thread:4 nonce:8 NUL caps:2 charset:1 status:2 caps:2 noncelen:1 reserved:6 mariadb-caps:4 nonce plugin NUL
//	login     = caps:4 max:4 charset:1 reserved:19 mariadb-caps:4 user NUL auth [database NUL] [plugin NUL] [attributes]
//	command   = code:1 arguments
//	OK        = 0x00|0xfe affected insert-id status:2 warnings:2 info [state changes]
//	ERR       = 0xff code:2 '#' state:5 text
//
// Sources: MySQL's internals manual ("Client/Server Protocol") and MariaDB's knowledge base ("Clients & Utilities,
// Server Client/Server Protocol").
package mysql

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// HeaderLen is a packet header's length, MaxChunk the longest payload of one packet.
const (
	HeaderLen = 4
	MaxChunk  = 1<<24 - 1
)

// ErrMalformed is what no server or client sends.
var ErrMalformed = errors.New("malformed MySQL packet")

// ErrTooLong is a packet longer than the reader takes.
var ErrTooLong = errors.New("MySQL packet too long")

// Header reads a packet's header: the payload's length and its number.
func Header(b []byte) (length int, sequence byte) {
	return int(b[0]) | int(b[1])<<8 | int(b[2])<<16, b[3]
}

// AppendHeader appends a packet's header.
func AppendHeader(dst []byte, length int, sequence byte) []byte {
	return append(dst, byte(length), byte(length>>8), byte(length>>16), sequence)
}

// Append appends a payload shorter than MaxChunk as one packet.
func Append(dst, payload []byte, sequence byte) []byte {
	return append(AppendHeader(dst, len(payload), sequence), payload...)
}

// Read reads one payload of at most limit bytes, which is less than MaxChunk, and its number.
func Read(r io.Reader, limit int) ([]byte, byte, error) {
	var h [HeaderLen]byte
	if _, err := io.ReadFull(r, h[:]); err != nil {
		return nil, 0, err
	}
	n, seq := Header(h[:])
	if n > limit || n == MaxChunk {
		return nil, 0, fmt.Errorf("%w: %d bytes where %d are taken", ErrTooLong, n, limit)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, 0, noEOF(err)
	}
	return b, seq, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// cursor reads fields in turn; after the first that is not there it gives zero values and keeps bad.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n < 0 || n > len(c.b) {
		c.bad = true
		return nil
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

func (c *cursor) uint(n int) uint64 {
	var v uint64
	for i, x := range c.take(n) {
		v |= uint64(x) << (8 * i)
	}
	return v
}

// lenenc reads a length-encoded integer; 0xfb (NULL) and 0xff are none.
func (c *cursor) lenenc() uint64 {
	first := c.uint(1)
	switch {
	case first < 0xfb:
		return first
	case first == 0xfc:
		return c.uint(2)
	case first == 0xfd:
		return c.uint(3)
	case first == 0xfe:
		return c.uint(8)
	}
	c.bad = true
	return 0
}

// text reads bytes behind their length-encoded length.
func (c *cursor) text() []byte {
	n := c.lenenc()
	if n > uint64(len(c.b)) {
		c.bad = true
		return nil
	}
	return c.take(int(n))
}

// terminated reads up to a NUL, which must be there.
func (c *cursor) terminated() string {
	i := bytes.IndexByte(c.b, 0)
	if c.bad || i < 0 {
		c.bad = true
		return ""
	}
	return string(c.take(i + 1)[:i])
}

// last is terminated, or the rest where no NUL is left: what comes last is sent without by some.
func (c *cursor) last() string {
	if bytes.IndexByte(c.b, 0) >= 0 {
		return c.terminated()
	}
	return string(c.take(len(c.b)))
}

func (c *cursor) err(what string) error {
	if c.bad {
		return fmt.Errorf("%w: %s", ErrMalformed, what)
	}
	return nil
}

func appendLenenc(dst []byte, n uint64) []byte {
	switch {
	case n < 0xfb:
		return append(dst, byte(n))
	case n < 1<<16:
		return binary.LittleEndian.AppendUint16(append(dst, 0xfc), uint16(n))
	case n < 1<<24:
		return append(dst, 0xfd, byte(n), byte(n>>8), byte(n>>16))
	}
	return binary.LittleEndian.AppendUint64(append(dst, 0xfe), n)
}

func appendText(dst []byte, s string) []byte { return append(appendLenenc(dst, uint64(len(s))), s...) }
