package mysql

import (
	"encoding/binary"
	"fmt"
)

// The first bytes of replies.
const (
	HeadOK     = 0x00
	HeadMore   = 0x01 // more data for an authentication plugin
	HeadInfile = 0xfb // the server asks for a file of the client's
	HeadEOF    = 0xfe
	HeadErr    = 0xff
)

// Status flags that say what follows.
const (
	StatusMore         = 0x0008 // another result follows
	StatusCursor       = 0x0040 // rows wait for COM_STMT_FETCH
	StatusStateChanged = 0x4000
)

// Error is an ERR packet.
type Error struct {
	Code  uint16
	State string // five characters, or none
	Text  string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Text, e.Code) }

// ParseError reads an ERR packet; what is none is ErrMalformed.
func ParseError(b []byte) error {
	c := cursor{b: b}
	if c.uint(1) != HeadErr {
		return fmt.Errorf("%w: error packet", ErrMalformed)
	}
	e := &Error{Code: uint16(c.uint(2))}
	if len(c.b) >= 6 && c.b[0] == '#' {
		e.State = string(c.take(6)[1:])
	}
	e.Text = string(c.take(len(c.b)))
	if err := c.err("error packet"); err != nil {
		return err
	}
	return e
}

// Append appends the ERR packet's payload; a text past 511 bytes, for which some clients keep no room, is cut. In place of
// a greeting there is no state.
func (e *Error) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(append(dst, HeadErr), e.Code)
	if len(e.State) == 5 {
		dst = append(append(dst, '#'), e.State...)
	}
	return append(dst, e.Text[:min(len(e.Text), 511)]...)
}

// End is what an OK or EOF packet says.
type End struct {
	Status uint16
	Schema string // the default database from now on, where it changed and the server said so
	Moved  bool   // Schema is set
	head   byte
	first  []byte // affected rows and insert id, as they were
	warn   uint16
	info   []byte
}

// ParseEOF reads an EOF packet of a connection without DeprecateEOF.
func ParseEOF(b []byte) (End, error) {
	c := cursor{b: b}
	c.take(1)
	e := End{head: HeadEOF, warn: uint16(c.uint(2)), Status: uint16(c.uint(2))}
	return e, c.err("end of rows")
}

// ParseOK reads an OK packet, or with DeprecateEOF what ends rows. tracked says that SessionTrack was agreed on.
func ParseOK(b []byte, tracked bool) (End, error) {
	c := cursor{b: b}
	e := End{head: byte(c.uint(1))}
	start := c.b
	c.lenenc()
	c.lenenc()
	e.first = start[:len(start)-len(c.b)]
	e.Status, e.warn = uint16(c.uint(2)), uint16(c.uint(2))
	if !tracked {
		e.info = c.b
		return e, c.err("OK packet")
	}
	if len(c.b) > 0 {
		e.info = c.text()
	}
	if e.Status&StatusStateChanged != 0 && len(c.b) > 0 {
		changes := cursor{b: c.text()}
		for len(changes.b) > 0 && !changes.bad {
			kind, data := changes.uint(1), cursor{b: changes.text()}
			if kind == 1 {
				e.Schema, e.Moved = string(data.text()), true
				changes.bad = changes.bad || data.bad
			}
		}
		c.bad = c.bad || changes.bad
	}
	return e, c.err("OK packet")
}

// AppendPlain appends the OK packet as a connection without SessionTrack has it: without the state changes.
func (e End) AppendPlain(dst []byte) []byte {
	dst = append(append(dst, e.head), e.first...)
	dst = binary.LittleEndian.AppendUint16(dst, e.Status&^StatusStateChanged)
	dst = binary.LittleEndian.AppendUint16(dst, e.warn)
	if len(e.info) == 0 {
		return dst
	}
	return append(dst, e.info...)
}

// AppendOK appends an OK packet with nothing to say.
func AppendOK(dst []byte, status uint16) []byte {
	dst = append(dst, HeadOK, 0, 0)
	return append(binary.LittleEndian.AppendUint16(dst, status), 0, 0)
}

// Columns reads a result's first packet.
func Columns(b []byte) (uint64, error) {
	c := cursor{b: b}
	n := c.lenenc()
	return n, c.err("column count")
}

// Prepared is the first packet of a reply to COM_STMT_PREPARE.
type Prepared struct {
	ID              uint32
	Columns, Params uint16
}

// ParsePrepared reads it.
func ParsePrepared(b []byte) (Prepared, error) {
	c := cursor{b: b}
	c.take(1)
	p := Prepared{ID: uint32(c.uint(4)), Columns: uint16(c.uint(2)), Params: uint16(c.uint(2))}
	return p, c.err("prepared statement")
}

// FirstText is the first column of a row of text; NULL is "".
func FirstText(row []byte) (string, error) {
	c := cursor{b: row}
	if len(row) > 0 && row[0] == 0xfb {
		return "", nil
	}
	s := string(c.text())
	return s, c.err("row")
}
