// Package mongo is the wire format of MongoDB: messages, the BSON in them, and commands as text.
//
//	message  = length:4 id:4 to:4 opcode:4 body               (little endian)
//	OP_MSG   = flags:4 section{1,} [crc32c:4]                  opcode 2013
//	section  = 0 document  |  1 length:4 identifier NUL document*
//	OP_QUERY = flags:4 collection NUL skip:4 number:4 document  opcode 2004; of a first hello alone
//	OP_REPLY = flags:4 cursor:8 from:4 number:4 document*       opcode 1
//
// Sources: MongoDB's manual ("Wire Protocol"), bsonspec.org, and the Extended JSON specification, version 2.
package mongo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// HeaderLen is a message header's length, MaxMessage the longest message.
const (
	HeaderLen  = 16
	MaxMessage = 48000000
)

// The opcodes.
const (
	OpReply      = 1
	OpQuery      = 2004
	OpCompressed = 2012
	OpMsg        = 2013
)

// Flags of OP_MSG.
const (
	FlagChecksum   = 1 << 0
	FlagMoreToCome = 1 << 1
	FlagExhaust    = 1 << 16
)

// ErrMalformed is what no client or server sends.
var ErrMalformed = errors.New("malformed MongoDB message")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Header is a message's.
type Header struct {
	Length int
	ID, To int32
	Opcode int32
}

// ParseHeader reads HeaderLen bytes.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderLen {
		return Header{}, malformed("a header that is cut")
	}
	u := func(i int) int32 { return int32(binary.LittleEndian.Uint32(b[i:])) }
	h := Header{Length: int(u(0)), ID: u(4), To: u(8), Opcode: u(12)}
	if h.Length < HeaderLen+4 || h.Length > MaxMessage {
		return h, malformed(fmt.Sprintf("a message of %d bytes", h.Length))
	}
	return h, nil
}

// Append appends a header.
func (h Header) Append(dst []byte) []byte {
	for _, v := range []int32{int32(h.Length), h.ID, h.To, h.Opcode} {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(v))
	}
	return dst
}

// Sequence is documents that belong to a command's field.
type Sequence struct {
	Name string
	Docs []byte
}

// Message is a command: an OP_MSG, or an OP_QUERY of a $cmd collection.
type Message struct {
	Header
	Flags     uint32
	Body      Doc
	Sequences []Sequence
	Database  string // of an OP_QUERY
	sections  []byte
}

// Parse reads a whole message; b holds it with its header, and the message keeps to it.
func Parse(b []byte) (*Message, error) {
	h, err := ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Length != len(b) {
		return nil, malformed("a message's length")
	}
	m := &Message{Header: h, Flags: binary.LittleEndian.Uint32(b[HeaderLen:])}
	rest := b[HeaderLen+4:]
	switch h.Opcode {
	case OpMsg:
		err = m.parseMsg(b, rest)
	case OpQuery:
		err = m.parseQuery(rest)
	case OpCompressed:
		err = malformed("compression, which was not agreed on")
	default:
		err = malformed(fmt.Sprintf("opcode %d", h.Opcode))
	}
	if err == nil && m.Body == nil {
		err = malformed("a command of no document")
	}
	if err == nil {
		err = m.Body.Check()
	}
	if err != nil {
		return nil, err
	}
	return m, nil
}

func (m *Message) parseMsg(whole, b []byte) error {
	if m.Flags&0xffff&^(FlagChecksum|FlagMoreToCome) != 0 {
		return malformed("a required flag that is not known")
	}
	if m.Flags&FlagChecksum != 0 {
		if len(b) < 4 {
			return malformed("a message of no checksum")
		}
		end := len(whole) - 4
		if crc32.Checksum(whole[:end], castagnoli) != binary.LittleEndian.Uint32(whole[end:]) {
			return malformed("a checksum that is wrong")
		}
		b = b[:len(b)-4]
	}
	m.sections = b
	for len(b) > 0 {
		kind := b[0]
		b = b[1:]
		switch {
		case kind == 0 && m.Body == nil:
			var err error
			if m.Body, b, err = doc(b); err != nil {
				return err
			}
		case kind == 1 && len(b) >= 4:
			n := int(int32(binary.LittleEndian.Uint32(b)))
			if n < 5 || n > len(b) {
				return malformed("a section's length")
			}
			name, docs, ok := bytes.Cut(b[4:n], []byte{0})
			if !ok || len(name) == 0 || name[0] == '$' {
				return malformed("a section's name")
			}
			for rest := docs; len(rest) > 0; {
				var d Doc
				var err error
				if d, rest, err = doc(rest); err != nil {
					return err
				}
				if err := d.Check(); err != nil {
					return err
				}
			}
			m.Sequences, b = append(m.Sequences, Sequence{string(name), docs}), b[n:]
		default:
			return malformed(fmt.Sprintf("a section of kind %d", kind))
		}
	}
	return nil
}

func (m *Message) parseQuery(b []byte) error {
	name, rest, ok := bytes.Cut(b, []byte{0})
	db, isCommand := bytes.CutSuffix(name, []byte(".$cmd"))
	if !ok || !isCommand || len(rest) < 8 {
		return malformed("a query that is no command")
	}
	m.Database = string(db)
	var err error
	if m.Body, rest, err = doc(rest[8:]); err != nil {
		return err
	}
	if len(rest) > 0 {
		return malformed("a query of two documents")
	}
	return nil
}

// Forward is the message as it goes on: as an OP_MSG without checksum and without leave to stream replies.
func (m *Message) Forward(dst []byte) []byte {
	h := m.Header
	h.Length = HeaderLen + 4 + len(m.sections)
	dst = h.Append(dst)
	dst = binary.LittleEndian.AppendUint32(dst, m.Flags&FlagMoreToCome)
	return append(dst, m.sections...)
}

// AppendCommand appends a command of one document.
func AppendCommand(dst []byte, id int32, d Doc) []byte {
	dst = Header{Length: HeaderLen + 5 + len(d), ID: id, Opcode: OpMsg}.Append(dst)
	return append(append(dst, 0, 0, 0, 0, 0), d...)
}

// Reply is the answer to a message, in its own form.
func (m *Message) Reply(d Doc) []byte {
	if m.Opcode == OpQuery {
		b := Header{Length: HeaderLen + 20 + len(d), ID: m.ID, To: m.ID, Opcode: OpReply}.Append(nil)
		b = append(b, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0)
		return append(b, d...)
	}
	b := Header{Length: HeaderLen + 5 + len(d), ID: m.ID, To: m.ID, Opcode: OpMsg}.Append(nil)
	return append(append(b, 0, 0, 0, 0, 0), d...)
}

// Error is a command's refusal or failure as a document.
func Error(code int, name, text string) Doc {
	return Build(Field{"ok", 0.0}, Field{"errmsg", text}, Field{"code", code}, Field{"codeName", name})
}
