// Package postgres is PostgreSQL's protocol, version 3, as the database door needs it: framing, what starts a connection,
// errors, and the ledger that says which statement an answer is to.
//
//	startup packet  int32 length, int32 code, …      StartupMessage, SSLRequest, GSSENCRequest, CancelRequest
//	message         byte kind, int32 length, body    the length counts itself and not the kind
//
// Source: PostgreSQL documentation, "Frontend/Backend Protocol", "Message Formats".
package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Bounds. PostgreSQL's own startup packet has at most 10,000 bytes, and no message of its is longer than 1 GiB.
const (
	MaxStartup = 10_000
	MaxMessage = 1 << 30
	HeadSize   = 5
)

// The codes of startup packets; a StartupMessage has its version instead, 3.0 being 3<<16.
const (
	codeCancel = 1234<<16 | 5678
	codeSSL    = 1234<<16 | 5679
	codeGSS    = 1234<<16 | 5680
	version3   = 3
)

// Startup is a startup packet. Exactly one of Encryption, Cancel and Parameters says something.
type Startup struct {
	Encryption bool   // SSLRequest or GSSENCRequest
	Cancel     []byte // the key data of a CancelRequest: process, then secret
	Parameters map[string]string
	Minor      uint16 // of the version that was asked for
}

// ReadStartup reads one startup packet, and no byte behind it.
func ReadStartup(r io.Reader) (*Startup, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n, code := binary.BigEndian.Uint32(head[:]), binary.BigEndian.Uint32(head[4:])
	if n < 8 || n > MaxStartup {
		return nil, fmt.Errorf("startup packet of %d bytes", n)
	}
	body := make([]byte, n-8)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	switch {
	case code == codeSSL || code == codeGSS:
		if len(body) != 0 {
			return nil, errors.New("request for encryption with something behind it")
		}
		return &Startup{Encryption: true}, nil
	case code == codeCancel:
		if len(body) < 8 || len(body) > 4+256 {
			return nil, errors.New("cancel request without a key")
		}
		return &Startup{Cancel: body}, nil
	case code>>16 == version3:
		p, err := parameters(body)
		return &Startup{Parameters: p, Minor: uint16(code)}, err
	}
	return nil, fmt.Errorf("version %d.%d of the protocol", code>>16, code&0xffff)
}

// parameters are pairs of strings, ended by an empty name. A name that stands twice is refused: which of the two counts
// is nothing to guess at.
func parameters(b []byte) (map[string]string, error) {
	out := map[string]string{}
	for {
		name, rest, ok := cString(b)
		if !ok {
			return nil, errors.New("startup packet without an end")
		}
		if name == "" {
			if len(rest) != 0 {
				return nil, errors.New("startup packet with something behind its end")
			}
			return out, nil
		}
		value, rest, ok := cString(rest)
		if !ok {
			return nil, errors.New("startup parameter without a value")
		}
		if _, twice := out[name]; twice {
			return nil, fmt.Errorf("startup parameter %q stands twice", name)
		}
		out[name], b = value, rest
	}
}

// cString takes a string up to its NUL.
func cString(b []byte) (s string, rest []byte, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", nil, false
	}
	return string(b[:i]), b[i+1:], true
}

// Head reads a message's head: its kind, and how many bytes of body follow. It is not ok while the head is not all there.
func Head(b []byte) (kind byte, body int, ok bool, err error) {
	if len(b) < HeadSize {
		return 0, 0, false, nil
	}
	n := binary.BigEndian.Uint32(b[1:])
	if n < 4 || n > MaxMessage {
		return 0, 0, false, fmt.Errorf("message %q of %d bytes", b[0], n)
	}
	return b[0], int(n) - 4, true, nil
}

// AppendMessage appends a message.
func AppendMessage(b []byte, kind byte, body ...string) []byte {
	n := 4
	for _, s := range body {
		n += len(s)
	}
	b = binary.BigEndian.AppendUint32(append(b, kind), uint32(n))
	for _, s := range body {
		b = append(b, s...)
	}
	return b
}

// Error is an ErrorResponse. Code is the SQLSTATE.
type Error struct {
	Severity, Code, Message, Detail, Hint string
}

// Append appends the message.
func (e Error) Append(b []byte) []byte {
	var f []string
	for _, x := range []struct{ field, text string }{{"S", e.Severity}, {"V", e.Severity}, {"C", e.Code}, {"M", e.Message}, {"D", e.Detail}, {"H", e.Hint}} {
		if x.text != "" {
			f = append(f, x.field, strings.ReplaceAll(x.text, "\x00", " "), "\x00")
		}
	}
	return AppendMessage(b, 'E', append(f, "\x00")...)
}

// ParseError reads the body of an ErrorResponse, or what there is of it.
func ParseError(b []byte) Error {
	var e Error
	for len(b) > 0 && b[0] != 0 {
		text, rest, ok := cString(b[1:])
		if !ok {
			text = string(b[1:])
		}
		switch b[0] {
		case 'S':
			e.Severity = text
		case 'C':
			e.Code = text
		case 'M':
			e.Message = text
		case 'D':
			e.Detail = text
		case 'H':
			e.Hint = text
		}
		b = rest
	}
	return e
}

// Welcome is what a server says once a client is let in: parameters, key data, ready.
func Welcome(b []byte, parameters map[string]string, key []byte) []byte {
	b = AppendMessage(b, 'R', "\x00\x00\x00\x00")
	for _, name := range slices.Sorted(maps.Keys(parameters)) {
		b = AppendMessage(b, 'S', name, "\x00", parameters[name], "\x00")
	}
	b = AppendMessage(b, 'K', string(key))
	return AppendMessage(b, 'Z', "I")
}

// Negotiate is the answer to a startup that asked for a later minor version, or for options of the protocol's own: 3.0,
// without these.
func Negotiate(b []byte, options []string) []byte {
	body := binary.BigEndian.AppendUint32(nil, version3<<16)
	body = binary.BigEndian.AppendUint32(body, uint32(len(options)))
	for _, o := range options {
		body = append(append(body, o...), 0)
	}
	return AppendMessage(b, 'v', string(body))
}

// Cancel is a CancelRequest.
func Cancel(pid uint32, secret []byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(12+len(secret)))
	b = binary.BigEndian.AppendUint32(b, codeCancel)
	return append(binary.BigEndian.AppendUint32(b, pid), secret...)
}

// SSLRequest asks a server for TLS.
func SSLRequest() []byte {
	return binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), codeSSL)
}

// Parameter reads the body of a ParameterStatus.
func Parameter(b []byte) (name, value string, ok bool) {
	name, rest, ok := cString(b)
	if !ok {
		return "", "", false
	}
	value, _, ok = cString(rest)
	return name, value, ok
}
