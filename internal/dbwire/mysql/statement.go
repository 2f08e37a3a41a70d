package mysql

import (
	"bytes"
	"strings"
)

// kind is what a token of a statement is.
type kind uint8

const (
	tokenEnd    kind = iota
	tokenWord        // a keyword or bare name
	tokenQuoted      // a name in backquotes
	tokenString      // '…', "…", x'…', 0x…
	tokenMark        // one other byte
)

// scanner cuts a statement's text into tokens. The body of an executable comment (/*! … */, /*M! … */) counts as text,
// as it does for the server; other comments are passed over.
type scanner struct {
	s         string
	at        int
	executing bool
}

type token struct {
	kind       kind
	start, end int
}

func (sc *scanner) next() token {
	sc.blank()
	start := sc.at
	if start >= len(sc.s) {
		return token{tokenEnd, start, start}
	}
	c := sc.s[start]
	switch {
	case c == '`':
		sc.quoted(c, false)
		return token{tokenQuoted, start, sc.at}
	case c == '\'' || c == '"':
		sc.quoted(c, true)
		return token{tokenString, start, sc.at}
	case (c|0x20 == 'x' || c|0x20 == 'b') && strings.HasPrefix(sc.s[start+1:], "'"):
		sc.at++
		sc.quoted('\'', false)
		return token{tokenString, start, sc.at}
	case wordByte(c):
		for sc.at < len(sc.s) && wordByte(sc.s[sc.at]) {
			sc.at++
		}
		if strings.HasPrefix(sc.s[start:sc.at], "0x") {
			return token{tokenString, start, sc.at}
		}
		return token{tokenWord, start, sc.at}
	}
	sc.at++
	return token{tokenMark, start, sc.at}
}

func wordByte(c byte) bool {
	return c == '_' || c == '$' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

// blank passes over white space and comments.
func (sc *scanner) blank() {
	for sc.at < len(sc.s) {
		rest := sc.s[sc.at:]
		switch {
		case rest[0] <= ' ':
			sc.at++
		case rest[0] == '#', strings.HasPrefix(rest, "--") && (len(rest) == 2 || rest[2] <= ' '):
			end := strings.IndexByte(rest, '\n')
			if end < 0 {
				end = len(rest) - 1
			}
			sc.at += end + 1
		case sc.executing && strings.HasPrefix(rest, "*/"):
			sc.executing = false
			sc.at += 2
		case strings.HasPrefix(rest, "/*!"), strings.HasPrefix(rest, "/*M!"):
			sc.executing = true
			sc.at += strings.IndexByte(rest, '!') + 1
			for sc.at < len(sc.s) && sc.s[sc.at] >= '0' && sc.s[sc.at] <= '9' {
				sc.at++
			}
		case strings.HasPrefix(rest, "/*"):
			end := strings.Index(rest[2:], "*/")
			if end < 0 {
				sc.at = len(sc.s)
				return
			}
			sc.at += end + 4
		default:
			return
		}
	}
}

// quoted passes over what is in quotes; a doubled quote, and where escapes count a backslash's, does not end it.
func (sc *scanner) quoted(quote byte, escapes bool) {
	sc.at++
	for sc.at < len(sc.s) {
		c := sc.s[sc.at]
		sc.at++
		switch {
		case escapes && c == '\\':
			sc.at = min(sc.at+1, len(sc.s))
		case c == quote && sc.at < len(sc.s) && sc.s[sc.at] == quote:
			sc.at++
		case c == quote:
			return
		}
	}
}

func (sc *scanner) word(t token) string {
	if t.kind != tokenWord {
		return ""
	}
	return strings.ToUpper(sc.s[t.start:t.end])
}

// name is a token as a name, its quotes taken off.
func (sc *scanner) name(t token) string {
	s := sc.s[t.start:t.end]
	switch t.kind {
	case tokenWord:
		return s
	case tokenQuoted, tokenString:
		q := s[:1]
		s = strings.TrimSuffix(s[1:], q)
		return strings.ReplaceAll(s, q+q, q)
	}
	return ""
}

// Uses lists the databases that USE statements in a text switch to, in their order. A USE that is made up at run time
// (PREPARE, EXECUTE IMMEDIATE) is not seen here; the server tells of it in its reply.
func Uses(text string) []string {
	var out []string
	sc := scanner{s: text}
	first := true
	for t := sc.next(); t.kind != tokenEnd; t = sc.next() {
		if first && sc.word(t) == "USE" {
			if t = sc.next(); t.kind != tokenMark && t.kind != tokenEnd {
				out = append(out, sc.name(t))
			}
		}
		first = t.kind == tokenMark && sc.s[t.start] == ';'
	}
	return out
}

// Tracking is the variable by which a session has its server tell of its default database (MySQL, MariaDB: session tracking).
const Tracking = "session_track_schema"

// NamesTracking reports whether a text has that name in it, in any case, wherever it stands.
func NamesTracking(b []byte) bool {
	const mark = len("session")
	for at := 0; ; at++ {
		i := bytes.IndexByte(b[at:], '_')
		if i < 0 {
			return false
		}
		at += i
		if from := at - mark; from >= 0 && len(b)-from >= len(Tracking) && strings.EqualFold(string(b[from:from+len(Tracking)]), Tracking) {
			return true
		}
	}
}

// Lookout is NamesTracking for a text that comes in pieces.
type Lookout struct {
	tail []byte // the last bytes, fewer than the name has
}

// Sees reports whether the name is in this piece, or ends in it.
func (l *Lookout) Sees(piece []byte) bool {
	const keep = len(Tracking) - 1
	l.tail = append(l.tail, piece[:min(len(piece), keep)]...)
	found := NamesTracking(l.tail) || NamesTracking(piece)
	if len(piece) > keep {
		l.tail = append(l.tail, piece[len(piece)-keep:]...)
	}
	l.tail = append(l.tail[:0], l.tail[max(0, len(l.tail)-keep):]...)
	return found
}

// Masked is what stands in place of a secret.
const Masked = "'***'"

// secretWords are bare words whose literal is a secret, also behind `=`, `(`, BY, AS and the like.
var secretWords = map[string]bool{"PASSWORD": true, "OLD_PASSWORD": true, "MASTER_PASSWORD": true, "SOURCE_PASSWORD": true,
	"CONNECTION": true, "REPLACE": true}

// bridges may stand between a secret word and its literal.
var bridges = map[string]bool{"BY": true, "AS": true, "USING": true, "WITH": true, "VALUES": true, "TO": true, "=": true,
	"(": true, ":": true}

// leaves are words that end what IDENTIFIED began.
var leaves = map[string]bool{"REQUIRE": true, "TO": true, "COMMENT": true, "ATTRIBUTE": true, "DEFAULT": true, "ACCOUNT": true}

// Mask takes secrets out of a statement's text: the passwords of CREATE USER, ALTER USER, GRANT … IDENTIFIED, SET
// PASSWORD, PASSWORD(), CHANGE MASTER and CREATE SERVER, also where the statement is itself a string of PREPARE or EXECUTE
// IMMEDIATE. Where a secret's end cannot be told for sure everything behind its beginning goes. It reports whether there
// was one, or a parameter in the place of one.
func Mask(text string) (masked string, had bool) {
	var b strings.Builder
	sc := scanner{s: text}
	m := masker{}
	from := 0
	for t := sc.next(); t.kind != tokenEnd; t = sc.next() {
		raw := text[t.start:t.end]
		if t.kind != tokenString {
			m.see(&sc, t)
			continue
		}
		if !m.secret(raw) {
			continue
		}
		had = true
		b.WriteString(text[from:t.start])
		b.WriteString(Masked)
		from = t.end
		if strings.ContainsRune(raw, '\\') || t.end == len(text) && strings.ContainsAny(raw[:1], `'"`) && !strings.HasSuffix(raw, raw[:1]) {
			return b.String() + "…", true
		}
	}
	b.WriteString(text[from:])
	return b.String(), had || m.param
}

// masker holds what the words before a literal make of it.
type masker struct {
	identified bool // behind IDENTIFIED
	setting    bool // behind SET PASSWORD: what is behind its `=` is secret
	armed      bool // behind a secret word and bridges alone
	dynamic    bool // in a statement that runs a string
	param      bool // a parameter's mark stood for a secret
	last       string
}

func (m *masker) see(sc *scanner, t token) {
	w := sc.word(t)
	if t.kind == tokenMark {
		w = sc.s[t.start:t.end]
	}
	switch {
	case w == ";":
		*m = masker{param: m.param}
		return
	case w == "?":
		m.param = m.param || m.identified || m.armed
	case w == "IDENTIFIED":
		m.identified = true
	case m.identified && (w == "," || leaves[w]):
		m.identified = false
	case w == "PASSWORD" && m.last == "SET":
		m.setting = true
	case w == "=" && m.setting:
		m.armed = true
	case w == "PREPARE", w == "IMMEDIATE", w == "SET" && m.last == "":
		m.dynamic = true
	}
	if secretWords[w] && !m.setting {
		m.armed = true
	} else if m.armed && !bridges[w] && !secretWords[w] {
		m.armed = false
	}
	m.last = w
}

func (m *masker) secret(raw string) bool {
	yes := m.identified || m.armed
	m.armed = false
	m.last = "''"
	if !yes && m.dynamic && len(raw) > 2 {
		inner := scanner{s: raw}
		_, yes = Mask(strings.ReplaceAll(inner.name(token{tokenString, 0, len(raw)}), `\`, ""))
	}
	return yes
}
