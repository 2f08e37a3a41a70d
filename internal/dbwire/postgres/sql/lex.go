package sql

import "strings"

// token is a piece of SQL. Comments and white space are none.
type token struct {
	kind       tokenKind
	start, end int // of all of it
	from, to   int // of a string's or a quoted name's inside
	open       bool
}

type tokenKind byte

const (
	word   tokenKind = iota + 1 // a keyword or a plain name
	quoted                      // a name in double quotes
	text                        // a string, however it is quoted
	dollar                      // a string in dollar quotes
	param                       // $1
	other                       // a number, an operator, a bracket
)

// lexer cuts SQL into tokens, by PostgreSQL's rules ("Lexical Structure"). What has no end ends with the text.
type lexer struct {
	sql       string
	at        int
	backslash bool // standard_conforming_strings is off: a backslash escapes in every string
}

func (x *lexer) next() (token, bool) {
	x.space()
	if x.at >= len(x.sql) {
		return token{}, false
	}
	t := token{kind: other, start: x.at}
	c := x.sql[x.at]
	switch {
	case c == '\'':
		x.string(&t, x.at, x.backslash)
	case c == '"':
		t.kind = quoted
		x.until(&t, x.at, '"', false)
	case prefixed(x.sql[x.at:]) > 0:
		n := prefixed(x.sql[x.at:])
		if x.sql[x.at+n] == '"' {
			t.kind = quoted
			x.until(&t, x.at+n, '"', false)
		} else {
			x.string(&t, x.at+n, x.backslash || c|0x20 == 'e')
		}
	case letter(c):
		t.kind = word
		for x.at < len(x.sql) && (letter(x.sql[x.at]) || digit(x.sql[x.at]) || x.sql[x.at] == '$') {
			x.at++
		}
	case c == '$':
		x.dollar(&t)
	case digit(c):
		for x.at < len(x.sql) && (letter(x.sql[x.at]) || digit(x.sql[x.at]) || x.sql[x.at] == '.') {
			x.at++
		}
	default:
		x.at++
	}
	t.end = x.at
	return t, true
}

// prefixed is how many bytes stand before the quote of E”, U&”, U&"", B”, X” and N”.
func prefixed(s string) int {
	if len(s) >= 2 && s[1] == '\'' && strings.IndexByte("eEbBxXnN", s[0]) >= 0 {
		return 1
	}
	if len(s) >= 3 && s[0]|0x20 == 'u' && s[1] == '&' && (s[2] == '\'' || s[2] == '"') {
		return 2
	}
	return 0
}

func (x *lexer) string(t *token, quote int, backslash bool) {
	t.kind = text
	x.until(t, quote, '\'', backslash)
}

// until goes on behind the closing quote; a doubled one closes nothing.
func (x *lexer) until(t *token, quote int, q byte, backslash bool) {
	t.from = quote + 1
	for i := t.from; i < len(x.sql); i++ {
		switch {
		case backslash && x.sql[i] == '\\':
			i++
		case x.sql[i] != q:
		case i+1 < len(x.sql) && x.sql[i+1] == q:
			i++
		default:
			t.to, x.at = i, i+1
			return
		}
	}
	t.to, x.at, t.open = len(x.sql), len(x.sql), true
}

// dollar reads $1, $$…$$ or $tag$…$tag$.
func (x *lexer) dollar(t *token) {
	i := x.at + 1
	for i < len(x.sql) && digit(x.sql[i]) {
		i++
	}
	if i > x.at+1 {
		t.kind, t.from, t.to, x.at = param, x.at+1, i, i
		return
	}
	for i < len(x.sql) && (letter(x.sql[i]) || digit(x.sql[i])) {
		i++
	}
	if i >= len(x.sql) || x.sql[i] != '$' {
		x.at++
		return
	}
	tag := x.sql[x.at : i+1]
	t.kind, t.from = dollar, i+1
	n := strings.Index(x.sql[t.from:], tag)
	if n < 0 {
		t.to, x.at, t.open = len(x.sql), len(x.sql), true
		return
	}
	t.to = t.from + n
	x.at = t.to + len(tag)
}

func (x *lexer) space() {
	for x.at < len(x.sql) {
		rest := x.sql[x.at:]
		switch {
		case rest[0] == ' ' || rest[0] >= '\t' && rest[0] <= '\r':
			x.at++
		case strings.HasPrefix(rest, "--"):
			n := strings.IndexAny(rest, "\n\r")
			if n < 0 {
				n = len(rest)
			}
			x.at += n
		case strings.HasPrefix(rest, "/*"):
			x.comment()
		default:
			return
		}
	}
}

// comment passes over a comment, those inside it included.
func (x *lexer) comment() {
	depth := 0
	for x.at < len(x.sql) {
		switch rest := x.sql[x.at:]; {
		case strings.HasPrefix(rest, "/*"):
			depth++
			x.at += 2
		case strings.HasPrefix(rest, "*/"):
			depth--
			x.at += 2
			if depth == 0 {
				return
			}
		default:
			x.at++
		}
	}
}

func letter(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c == '_' || c >= 0x80 }
func digit(c byte) bool  { return c >= '0' && c <= '9' }
