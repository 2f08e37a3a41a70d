package postgres

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/dbwire/postgres/sql"
)

// MaxParameter and MaxParameters are how much is kept of a parameter and of all of a statement's.
const (
	MaxParameter  = 1 << 10
	MaxParameters = 4 << 10
	maxName       = 63 // of a statement or portal: NAMEDATALEN less one
)

// item is one message that waits for its answer.
type item struct {
	kind    byte // the message's; 'c' for what ends a COPY FROM, of CopyDone and CopyFail
	of      byte // of Describe and Close: 'S' or 'P'
	name    string
	source  string // of Bind: the statement's name
	text    sql.Text
	values  []string // of Bind
	refusal *Refusal // what the client gets in place of the server's error
	naming  naming   // of Query and Execute

	size     int
	begun    bool // something of its result came
	recorded bool
	copying  bool
}

func (it *item) read(body []byte) error {
	var rest []byte
	ok := true
	switch it.kind {
	case 'Q':
		var statement string
		statement, _, ok = cString(body)
		it.text = sql.Read(statement)
	case 'P':
		var statement string
		if it.name, rest, ok = cString(body); ok {
			statement, _, ok = cString(rest)
			it.text = sql.Read(statement)
		}
	case 'B':
		if it.name, rest, ok = cString(body); ok {
			if it.source, rest, ok = cString(rest); ok {
				it.values, ok = values(rest)
			}
		}
	case 'E':
		it.name, _, ok = cString(body)
	case 'D', 'C':
		if ok = len(body) > 1; ok {
			it.of = body[0]
			it.name, _, ok = cString(body[1:])
			ok = ok && (it.of == 'S' || it.of == 'P')
		}
	case 'F':
		if ok = len(body) >= 4; ok {
			it.text.SQL = fmt.Sprintf("function call %d", binary.BigEndian.Uint32(body))
			it.values, ok = values(body[4:])
		}
	case 'S', 'c':
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("message %q that cannot be read", it.kind)
	}
	it.name, it.source = cutName(it.name), cutName(it.source)
	for i := range it.text.Names {
		it.text.Names[i].Name = cutName(it.text.Names[i].Name)
	}
	return nil
}

// cutName is a name as the server has it, which cuts longer ones and then takes them for the same.
func cutName(name string) string {
	if len(name) <= maxName {
		return name
	}
	return strings.Clone(name[:maxName])
}

// values reads formats and parameters; b may end in the midst of them.
func values(b []byte) ([]string, bool) {
	formats, b, ok := shorts(b)
	if !ok || len(b) < 2 {
		return nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n == 0 {
		return nil, true
	}
	if len(formats) > 2 && len(formats)/2 != n {
		return nil, false
	}
	out := make([]string, 0, min(n, 64))
	for i, room := 0, MaxParameters; i < n; i++ {
		if room <= 0 || len(b) < 4 {
			return append(out, fmt.Sprintf("… (%d parameters more)", n-i)), true
		}
		size := int32(binary.BigEndian.Uint32(b))
		b = b[4:]
		if size < -1 {
			return nil, false
		}
		if size < 0 {
			out, room = append(out, "NULL"), room-12
			continue
		}
		binaryForm := len(formats) == 2 && formats[1] == 1 || len(formats) > 2 && formats[2*i+1] == 1
		v := value(b[:min(len(b), int(size))], int(size), binaryForm, min(room, MaxParameter))
		out, room = append(out, v), room-len(v)-8
		b = b[min(len(b), int(size)):]
	}
	return out, true
}

// value is a parameter as it is kept: size is its own, b what there is of it.
func value(b []byte, size int, binaryForm bool, room int) string {
	var s string
	if !binaryForm && utf8.Valid(b[:runes(b)]) {
		keep := b
		if len(keep) > room {
			keep = keep[:room]
			keep = keep[:runes(keep)]
		} else if len(b) < size {
			keep = keep[:runes(keep)]
		}
		s, b = string(keep), keep
	} else {
		b = b[:min(len(b), room/2)]
		s = `\x` + hex.EncodeToString(b)
	}
	if len(b) < size {
		s += fmt.Sprintf("… (%d bytes more)", size-len(b))
	}
	return s
}

// runes is the length of b without a character at its end that is cut off.
func runes(b []byte) int {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if c := b[len(b)-i]; utf8.RuneStart(c) {
			if !utf8.FullRune(b[len(b)-i:]) {
				return len(b) - i
			}
			break
		}
	}
	return len(b)
}

// shorts takes a counted list of int16.
func shorts(b []byte) (list, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := 2 * int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return nil, nil, false
	}
	return b[2 : 2+n], b[2+n:], true
}
