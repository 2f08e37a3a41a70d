// Package screen makes what a terminal was sent fit to be sent to another one: what draws stays, what asks the terminal for
// something, or sets what outlives the showing, goes (ECMA-48; xterm's control sequences).
package screen

import (
	"bytes"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Restore puts the terminal back, on which what Append gave was shown: attributes, charset and modes; the other screen and
// the margins only where they were touched, for that moves the cursor.
func (f *Filter) Restore() string {
	out := "\x1b[?5l\x1b[?7h\x1b[4l\x1b[?25h\x1b(B\x0f\x1b[0m"
	if f.margins {
		out += "\x1b7\x1b[?6l\x1b[r\x1b8"
	}
	if f.other {
		out += "\x1b[?1049l"
	}
	return out
}

const (
	maxSequence = 64      // bytes of a sequence that draws
	maxString   = 4 << 10 // bytes of a string (OSC, DCS, …) that are swallowed: then it is no string
	maxNumber   = 9999    // of a sequence's parameters: no terminal is larger, and repeating takes time
)

type state uint8

const (
	ground  state = iota
	escape        // behind ESC
	csi           // behind ESC [
	charset       // behind ESC and an intermediate
	swallow       // in a string, until ST or BEL
	ending        // in a string, behind ESC
)

// Filter passes on one terminal's output, piece by piece. Its zero value is at the beginning.
type Filter struct {
	state state
	seq   []byte // the sequence, or the character, that has begun
	long  int    // bytes of a string
	// What Restore has to put back: margins or an origin were set, the other screen is shown.
	margins, other bool

	Text bool // nothing but text, tabs and newlines: no sequence at all
}

// Append appends what of p is to be shown to dst. A sequence that is not whole waits for the next piece.
func (f *Filter) Append(dst, p []byte) []byte {
	for i := 0; i < len(p); i++ {
		c := p[i]
		switch f.state {
		case ground:
			dst = f.plain(dst, c)
		case escape:
			dst = f.escaped(dst, c)
		case csi:
			dst = f.control(dst, c)
		case charset:
			dst = f.charset(dst, c)
		case swallow, ending:
			f.string(c)
		}
	}
	return dst
}

// plain takes a byte of text or a control character.
func (f *Filter) plain(dst []byte, c byte) []byte {
	if len(f.seq) > 0 || c >= utf8.RuneSelf {
		return f.character(dst, c)
	}
	switch {
	case c == 0x1b:
		f.state, f.seq = escape, f.seq[:0]
	case c == '\n' || c == '\t' || c >= ' ' && c != 0x7f:
		dst = append(dst, c)
	case !f.Text && (c == '\b' || c == '\r' || c == '\v' || c == '\f' || c == 0x0e || c == 0x0f):
		dst = append(dst, c)
	}
	return dst
}

// character gathers a character of several bytes. C1 controls, which some terminals take in this form too, and what is no
// UTF-8 are not passed on as they are.
func (f *Filter) character(dst []byte, c byte) []byte {
	if len(f.seq) > 0 && utf8.RuneStart(c) { // the one before never ended
		dst, f.seq = utf8.AppendRune(dst, utf8.RuneError), f.seq[:0]
		return f.plain(dst, c)
	}
	f.seq = append(f.seq, c)
	if !utf8.FullRune(f.seq) && len(f.seq) < utf8.UTFMax {
		return dst
	}
	r, n := utf8.DecodeRune(f.seq)
	if n < len(f.seq) {
		r = utf8.RuneError
	}
	f.seq = f.seq[:0]
	if Hidden(r) {
		r = utf8.RuneError
	}
	return utf8.AppendRune(dst, r)
}

// Hidden reports whether a character is one that a terminal does not show but does something at: a C1 control, or what turns
// the order of letters around.
func Hidden(r rune) bool {
	return r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

// JSON gives JSON with the characters of its strings escaped that JSON leaves as they are and a terminal does not.
func JSON(raw []byte) []byte {
	out := make([]byte, 0, len(raw)+16)
	for _, r := range string(raw) {
		if r == 0x7f || Hidden(r) {
			out = fmt.Appendf(out, "\\u%04x", r)
		} else {
			out = utf8.AppendRune(out, r)
		}
	}
	return out
}

// escaped takes the byte behind ESC.
func (f *Filter) escaped(dst []byte, c byte) []byte {
	f.state = ground
	switch c {
	case '[':
		f.state = csi
	case ']', 'P', 'X', '^', '_':
		f.state, f.long = swallow, 0
	case '(', ')', '*', '+', '#':
		f.state, f.seq = charset, append(f.seq[:0], c)
	case ' ', '%', '$', '-', '.', '/', '!', '"', '&', '\'', ',':
		f.state, f.seq = charset, append(f.seq[:0], 0) // one byte more, which goes with it
	case '7', '8', 'D', 'E', 'M', 'H':
		dst = f.draw(dst, 0x1b, c)
	case 0x1b:
		f.state = escape
	}
	return dst
}

func (f *Filter) draw(dst []byte, seq ...byte) []byte {
	if f.Text {
		return dst
	}
	return append(dst, seq...)
}

// charset takes the byte that names a charset, or a test of the screen.
func (f *Filter) charset(dst []byte, c byte) []byte {
	f.state = ground
	kind := f.seq[0]
	f.seq = f.seq[:0]
	letter := c >= '0' && c <= '9' || c >= 'A' && c <= 'Z'
	switch {
	case c == 0x1b:
		f.state = escape
	case kind == '#' && c == '8', kind != 0 && kind != '#' && letter:
		dst = f.draw(dst, 0x1b, kind, c)
	}
	return dst
}

// control takes the bytes of a control sequence.
func (f *Filter) control(dst []byte, c byte) []byte {
	switch {
	case c == 0x1b:
		f.state, f.seq = escape, f.seq[:0]
	case c == 0x18 || c == 0x1a:
		f.state, f.seq = ground, f.seq[:0]
	case c < ' ': // a control character in a sequence acts as if it were ahead of it
		seq := f.seq
		f.seq = nil
		dst = f.plain(dst, c)
		f.state, f.seq = csi, seq
	case c >= 0x40 && c <= 0x7e:
		if len(f.seq) < maxSequence && draws(f.seq, c) {
			dst = f.draw(append(f.draw(dst, 0x1b, '['), f.drawn()...), c)
			f.note(c)
		}
		f.state, f.seq = ground, f.seq[:0]
	case c >= 0x7f:
		f.state, f.seq = ground, f.seq[:0]
	case len(f.seq) < maxSequence:
		f.seq = append(f.seq, c)
	}
	return dst
}

// note keeps what Restore has to put back.
func (f *Filter) note(end byte) {
	switch {
	case end == 'r':
		f.margins = true
	case len(f.seq) == 0 || f.seq[0] != '?' || end != 'h' && end != 'l':
	default:
		for mode := range strings.SplitSeq(string(f.seq[1:]), ";") {
			switch mode {
			case "6":
				f.margins = true
			case "47", "1047", "1049":
				f.other = end == 'h'
			}
		}
	}
}

func (f *Filter) drawn() []byte {
	if f.Text {
		return nil
	}
	return f.seq
}

// draws reports whether a control sequence with these parameters and this end draws, and does nothing else.
func draws(params []byte, end byte) bool {
	if len(params) > 0 && params[0] == '?' {
		return (end == 'h' || end == 'l') && modes(params[1:]) || (end == 'J' || end == 'K') && small(params[1:]) && !bytes.ContainsRune(params, '3')
	}
	if end == 'q' && len(params) > 0 && params[len(params)-1] == ' ' { // the cursor's shape
		return small(params[:len(params)-1])
	}
	switch end {
	case 'J':
		return small(params) && !bytes.ContainsRune(params, '3') // not what was on the person's own screen before
	case 'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'K', 'L', 'M', 'P', 'S', 'T', 'X', 'Z', '@', '`', 'a', 'b', 'd', 'e', 'f', 'g', 'm', 'r', 's', 'u':
		return small(params)
	case 'h', 'l':
		return string(params) == "4" // insert mode
	}
	return false
}

// small reports whether parameters are numbers, none too large.
func small(params []byte) bool {
	n := 0
	for _, c := range params {
		switch {
		case c == ';' || c == ':':
			n = 0
		case c >= '0' && c <= '9':
			if n = n*10 + int(c-'0'); n > maxNumber {
				return false
			}
		default:
			return false
		}
	}
	return true
}

// modes reports whether private modes are all of those that draw: reverse, origin, wrapping, the cursor, the other screen.
// Those that change what keys, the mouse or pasting send are not.
func modes(params []byte) bool {
	n := 0
	for i := 0; i <= len(params); i++ {
		if i < len(params) && params[i] != ';' {
			if params[i] < '0' || params[i] > '9' || n > maxNumber {
				return false
			}
			n = n*10 + int(params[i]-'0')
			continue
		}
		switch n {
		case 5, 6, 7, 12, 25, 47, 1047, 1048, 1049:
		default:
			return false
		}
		n = 0
	}
	return true
}

// string swallows a string. One that does not end is none, so that nobody hides the rest of a session in it.
func (f *Filter) string(c byte) {
	f.long++
	switch {
	case c == 0x07 || c == 0x18 || c == 0x1a || f.state == ending && c == '\\' || f.long > maxString:
		f.state = ground
	case c == 0x1b:
		f.state = ending
	case f.state == ending:
		f.state = swallow
	}
}
