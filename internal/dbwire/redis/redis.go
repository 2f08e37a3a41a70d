// Package redis is the wire format of Redis (RESP2 and RESP3): it finds commands and replies in what was read, in place.
//
//	command = *N CRLF ($LEN CRLF bytes CRLF){N}   or a line of words, some in quotes (inline)
//	reply   = (+ | - | : | , | ( | # | _) line CRLF
//	        | ($ | = | !) LEN CRLF bytes CRLF
//	        | (* | ~ | >) N CRLF reply{N}  |  % N CRLF reply{2N}  |  '|' N CRLF reply{2N} reply
//
// Source: the RESP specification, redis.io/docs/reference/protocol-spec; bounds are those of redis-server 7.
package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// Bounds of what is taken.
const (
	MaxArgs = 1 << 20
	MaxBulk = 512 << 20
	MaxLine = 64 << 10
)

// ErrShort is that more must be read.
var ErrShort = errors.New("more is to come")

// ErrMalformed is what no client or server sends.
var ErrMalformed = errors.New("malformed RESP")

func malformed(what string) error { return fmt.Errorf("%w: %s", ErrMalformed, what) }

// line gives the line that b begins with, without its end, and its length with it.
func line(b []byte) ([]byte, int, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > MaxLine {
			return nil, 0, malformed("a line without end")
		}
		return nil, 0, ErrShort
	}
	if i == 0 || b[i-1] != '\r' {
		return nil, 0, malformed("a line that ends without CR")
	}
	return b[:i-1], i + 1, nil
}

// number reads a length: decimal digits alone, or -1.
func number(b []byte, most int) (int, error) {
	if string(b) == "-1" {
		return -1, nil
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' || n > most {
			return 0, malformed("a length that is no number, or too large")
		}
		n = n*10 + int(c-'0')
	}
	if len(b) == 0 || n > most || len(b) > 1 && b[0] == '0' {
		return 0, malformed("a length that is no number, or too large")
	}
	return n, nil
}

// Command is one command as it lies in a buffer.
type Command struct {
	Args   [][]byte // empty: to be passed over, as redis-server does
	Size   int      // bytes of the buffer that are the command's
	Inline bool
	// Of a command that does not end in the buffer: bytes of the argument at the buffer's end that are still to come, with
	// its line's end, and arguments after it.
	Rest, After int
}

// Parse finds the command that b begins with. Args is reused. A command that does not end in b is ErrShort, and with cut
// a command with its first arguments, the last of which may be cut.
func Parse(b []byte, args [][]byte, cut bool) (Command, error) {
	if len(b) == 0 {
		return Command{}, ErrShort
	}
	if b[0] != '*' {
		return inline(b, args)
	}
	head, at, err := line(b)
	if err != nil {
		return Command{}, err
	}
	n, err := number(head[1:], MaxArgs)
	if err != nil {
		return Command{}, err
	}
	c := Command{Args: args[:0], Size: at}
	for ; n > 0; n-- {
		size, skip, err := bulk(b[c.Size:])
		if errors.Is(err, ErrShort) && cut && len(c.Args) > 0 {
			c.After = n
			return c, nil
		}
		if err != nil {
			return Command{}, err
		}
		start := c.Size + skip
		if end := start + size + 2; end > len(b) {
			if !cut {
				return Command{}, ErrShort
			}
			c.Args = append(c.Args, b[start:min(start+size, len(b))])
			c.Size, c.Rest, c.After = len(b), end-len(b), n-1
			return c, nil
		}
		c.Args = append(c.Args, b[start:start+size])
		if c.Size = start + size + 2; b[c.Size-2] != '\r' || b[c.Size-1] != '\n' {
			return Command{}, malformed("an argument that is longer than it says")
		}
	}
	return c, nil
}

// Bulk reads the head of one more argument of a command that was cut: how many bytes follow, with their line's end, and
// the head's own length.
func Bulk(b []byte) (rest, head int, err error) {
	size, skip, err := bulk(b)
	return size + 2, skip, err
}

func bulk(b []byte) (size, head int, err error) {
	if len(b) > 0 && b[0] != '$' {
		return 0, 0, malformed("an argument that is no string")
	}
	l, at, err := line(b)
	if err != nil {
		return 0, 0, err
	}
	n, err := number(l[1:], MaxBulk)
	if err != nil || n < 0 {
		return 0, 0, malformed("an argument of no length")
	}
	return n, at, nil
}

// inline cuts a line into words as redis-server does: quotes begin and end a word, "…" with escapes, '…' without.
func inline(b []byte, args [][]byte) (Command, error) {
	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if len(b) > MaxLine {
			return Command{}, malformed("too big inline request")
		}
		return Command{}, ErrShort
	}
	c := Command{Args: args[:0], Size: i + 1, Inline: true}
	s := bytes.TrimSuffix(b[:i], []byte("\r"))
	for {
		for len(s) > 0 && space(s[0]) {
			s = s[1:]
		}
		if len(s) == 0 {
			return c, nil
		}
		word, rest, err := word(s)
		if err != nil {
			return Command{}, err
		}
		c.Args, s = append(c.Args, word), rest
	}
}

func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }

func word(s []byte) (out, rest []byte, err error) {
	out = []byte{}
	quote := byte(0)
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case quote == 0 && space(c):
			return out, s[i:], nil
		case quote == 0 && (c == '"' || c == '\''):
			quote = c
		case quote != 0 && c == quote:
			if i+1 < len(s) && !space(s[i+1]) {
				return nil, nil, malformed("unbalanced quotes in request")
			}
			return out, s[i+1:], nil
		case quote == '"' && c == '\\' && i+1 < len(s):
			var n int
			out, n = escape(out, s[i+1:])
			i += n
		case quote == '\'' && c == '\\' && i+1 < len(s) && s[i+1] == '\'':
			out = append(out, '\'')
			i++
		default:
			out = append(out, c)
		}
	}
	if quote != 0 {
		return nil, nil, malformed("unbalanced quotes in request")
	}
	return out, nil, nil
}

// escape takes what is behind a backslash.
func escape(out, s []byte) ([]byte, int) {
	if s[0] == 'x' && len(s) >= 3 {
		if v, err := strconv.ParseUint(string(s[1:3]), 16, 8); err == nil {
			return append(out, byte(v)), 3
		}
	}
	if i := bytes.IndexByte([]byte("nrtba"), s[0]); i >= 0 {
		return append(out, "\n\r\t\b\a"[i]), 1
	}
	return append(out, s[0]), 1
}

// Append appends a command.
func Append[T string | []byte](dst []byte, args ...T) []byte {
	dst = append(strconv.AppendInt(append(dst, '*'), int64(len(args)), 10), "\r\n"...)
	for _, a := range args {
		dst = append(strconv.AppendInt(append(dst, '$'), int64(len(a)), 10), "\r\n"...)
		dst = append(append(dst, a...), "\r\n"...)
	}
	return dst
}

// AppendError appends an error reply of one line.
func AppendError(dst []byte, text string) []byte {
	dst = append(dst, '-')
	for i := 0; i < len(text) && i < 1024; i++ {
		if c := text[i]; c >= ' ' {
			dst = append(dst, c)
		} else {
			dst = append(dst, ' ')
		}
	}
	return append(dst, "\r\n"...)
}
