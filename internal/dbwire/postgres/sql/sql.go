// Package sql reads the text of PostgreSQL statements for what the database door has to know of it: what is fit to be kept,
// whether it would change who the session is, and what SQL's own PREPARE and EXECUTE name.
//
// It knows tokens and no grammar. What it cannot know, a function that the server has, is in docs/databases.md.
package sql

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// MaxText is how much of a statement's text is kept.
const MaxText = 8 << 10

// Hidden stands where a secret stood.
const Hidden = "***"

// Text is what is fit to be kept of a statement's text.
type Text struct {
	SQL     string // cut, secrets masked
	Secrets []int  // the parameters that are secrets, from 1
	Masked  bool   // something was a secret
	// Becomes is that the statement would make the session another user's (SET SESSION AUTHORIZATION, by any of its names).
	Becomes bool
	Names   []Named // what its statements do with names, in their order
}

// Read reads a statement's text.
func Read(sql string) Text {
	if !telling(sql) {
		return Text{SQL: Shorten(sql)}
	}
	t := read(sql, false)
	if strings.Contains(sql, `\'`) { // whichever way the server takes a backslash
		u := read(sql, true)
		t.spans = append(t.spans, u.spans...)
		t.Secrets = append(t.Secrets, u.Secrets...)
		t.Becomes = t.Becomes || u.Becomes
		if !slices.Equal(t.Names, u.Names) {
			t.Names = []Named{{Do: Unclear}}
		}
	}
	t.Masked = len(t.spans)+len(t.Secrets) > 0
	t.SQL = Shorten(mask(sql, t.spans))
	return t.Text
}

// telling reports, at about a nanosecond a byte, whether a text has any of the words that reading it is for.
func telling(sql string) bool {
	for i := 0; i+3 < len(sql); i++ {
		var words []string
		switch sql[i] | 0x20 {
		case 'a':
			words = tellingA
		case 'p':
			words = tellingP
		case 'c':
			words = tellingC
		case 's':
			words = tellingS
		case 'm':
			words = tellingM
		case 'h':
			words = tellingH
		case 'e':
			words = tellingE
		case 'd':
			words = tellingD
		case ':' | 0x20:
			words = tellingURL
		}
		for _, w := range words {
			if sql[i+1]|0x20 == w[1] && len(sql)-i >= len(w) && strings.EqualFold(sql[i:i+len(w)], w) {
				return true
			}
		}
	}
	return false
}

var (
	tellingA   = []string{"authorization"}
	tellingP   = []string{"password", "passwd", "pgp_", "prepare"}
	tellingC   = []string{"crypt", "close"} // encrypt, decrypt too
	tellingS   = []string{"scram-sha-256$", "secret"}
	tellingM   = []string{"md5"}
	tellingH   = []string{"hmac"}
	tellingE   = []string{"exec"}
	tellingD   = []string{"dblink", "deallocate", "discard", "declare"}
	tellingURL = []string{"://"}
)

// keyed are the functions whose strings may be keys: pgcrypto's.
var keyed = []string{"pgp_sym_encrypt", "pgp_sym_encrypt_bytea", "pgp_sym_decrypt", "pgp_sym_decrypt_bytea", "pgp_pub_decrypt",
	"pgp_pub_decrypt_bytea", "crypt", "hmac", "encrypt", "decrypt", "encrypt_iv", "decrypt_iv"}

// secretNames are the names before a value that is a secret.
var secretNames = []string{"password", "passwd", "passcode", "sslpassword", "secret", "secret_key", "secret_access_key", "access_token", "api_key"}

type span struct{ from, to int }

// reader goes over the tokens of one text.
type reader struct {
	lexer
	Text
	spans  []span
	offset int // of the text in the one that is masked

	last    [4]string // the words before, the latest first; "" for what is none
	first   string    // of the statement
	depth   int
	keyedIn int  // the bracket depth inside a keyed function, 0 outside
	await   bool // the next value is a secret
	after   bool // the last token was a masked string, which a further one continues
	ddl     bool // the statement makes or alters a user: whatever follows PASSWORD is one
	setting setting
}

// setting is what a text says of changing a setting otherwise than by SET.
type setting struct {
	update bool
	sets   bool // set_config, or UPDATE pg_settings
	names  bool // a string is 'session_authorization'
}

func read(sql string, backslash bool) *reader {
	r := &reader{lexer: lexer{sql: sql, backslash: backslash}}
	r.run()
	return r
}

func (r *reader) run() {
	for {
		t, ok := r.next()
		if !ok {
			break
		}
		s := r.sql[t.start:t.end]
		switch t.kind {
		case word:
			r.word(lower(s), t)
		case quoted:
			r.quoted(t)
		case text, dollar:
			r.value(t)
		case param:
			if n, err := strconv.Atoi(s[1:]); err == nil && (r.await || r.keyedIn > 0) {
				r.Secrets = append(r.Secrets, n)
			}
			r.await = false
			r.push("")
		default:
			r.punctuation(s)
		}
		r.after = r.after && (t.kind == text || t.kind == dollar)
	}
	r.Becomes = r.Becomes || r.setting.sets && r.setting.names
}

// lower folds as the server does, ASCII alone: to Unicode the sign for kelvin is a k too.
func lower(s string) string {
	if !strings.ContainsFunc(s, func(c rune) bool { return c >= 0x80 }) {
		return strings.ToLower(s)
	}
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

func (r *reader) push(w string) { r.last = [4]string{w, r.last[0], r.last[1], r.last[2]} }

func (r *reader) word(w string, t token) {
	if r.first == "" {
		r.first = w
	}
	if r.await && r.ddl && w != "null" {
		r.hide(t.start, t.end)
	}
	r.await = false
	switch {
	case (w == "user" || w == "role" || w == "group") && (r.last[0] == "create" || r.last[0] == "alter"):
		r.ddl = true
	case slices.Contains(secretNames, w):
		r.await = true
	case r.last[0] == "authorization" && r.last[1] == "session" && (r.last[2] == "set" || (r.last[2] == "local" || r.last[2] == "session") && r.last[3] == "set"):
		r.Becomes = r.Becomes || w != "default"
	case r.assigns() && (w == "to"):
		r.push("=")
		return
	case r.assigning():
		r.Becomes = r.Becomes || w != "default"
	case w == "set_config":
		r.setting.sets = true
	case w == "update":
		r.setting.update = true
	case w == "pg_settings":
		r.setting.sets = r.setting.sets || r.setting.update
	}
	r.names(w, false)
	r.push(w)
}

// assigns is that SET session_authorization stands before.
func (r *reader) assigns() bool {
	return r.last[0] == "session_authorization" && (r.last[1] == "set" || (r.last[1] == "local" || r.last[1] == "session") && r.last[2] == "set")
}

// assigning is assigns with the = or TO behind it, which push keeps as "=".
func (r *reader) assigning() bool {
	return r.last[0] == "=" && r.last[1] == "session_authorization" && (r.last[2] == "set" || r.last[3] == "set")
}

func (r *reader) quoted(t token) {
	name := r.sql[t.from:t.to]
	switch {
	case r.await: // as if it were a string: a common mistake
		r.hide(t.from, t.to)
		r.await = false
	case r.last[0] == "authorization" && r.last[1] == "session" || r.assigning():
		r.Becomes = true
	}
	if slices.Contains(secretNames, strings.ToLower(name)) {
		r.await = true
	}
	r.names(quotedName(r.sql[t.start:t.end], name), true)
	if strings.EqualFold(name, "session_authorization") {
		r.push("session_authorization")
		return
	}
	r.push("")
}

func (r *reader) value(t token) {
	inside := r.sql[t.from:t.to]
	r.code(inside)
	switch {
	case r.await || r.after || r.keyedIn > 0:
		r.hide(t.from, t.to)
		r.after = true
	case r.last[0] == "authorization" && r.last[1] == "session" || r.assigning():
		r.Becomes = true
	case t.kind == dollar: // code, most often
		in := &reader{lexer: lexer{sql: inside, backslash: r.backslash}, offset: r.offset + t.from}
		in.run()
		r.spans, r.Secrets, r.Becomes = append(r.spans, in.spans...), append(r.Secrets, in.Secrets...), r.Becomes || in.Becomes
	default:
		r.setting.names = r.setting.names || strings.EqualFold(inside, "session_authorization")
		r.inside(inside, t.from)
	}
	r.await = false
	r.push("")
}

func (r *reader) punctuation(s string) {
	switch s {
	case "(":
		r.depth++
		if r.keyedIn == 0 && slices.Contains(keyed, r.last[0]) {
			r.keyedIn = r.depth
		}
		r.push("")
		return
	case ")":
		if r.depth == r.keyedIn {
			r.keyedIn = 0
		}
		r.depth--
	case "=", ":", ">": // password = , := , =>
		if r.assigns() {
			r.push("=")
		}
		return
	case "<", "!", ".":
		r.push("")
		return
	case ";":
		r.first, r.ddl, r.depth, r.keyedIn = "", false, 0, 0
	}
	r.await = false
	r.push("")
}

func (r *reader) hide(from, to int) { r.spans = append(r.spans, span{r.offset + from, r.offset + to}) }

// inside finds secrets in a string that is none itself: a password's hash, a connection string, an address.
func (r *reader) inside(s string, at int) {
	if strings.HasPrefix(s, "SCRAM-SHA-256$") || len(s) == 35 && strings.HasPrefix(s, "md5") {
		r.hide(at, at+len(s))
		return
	}
	for i := 0; i < len(s); {
		n := indexFold(s[i:], "passw")
		if n < 0 {
			break
		}
		i += n + len("passw")
		j := i
		for j < len(s) && letter(s[j]) {
			j++
		}
		for j < len(s) && s[j] == ' ' {
			j++
		}
		if j < len(s) && (s[j] == '=' || s[j] == ':') {
			from, to := connValue(s, j+1)
			r.hide(at+from, at+to)
			i = to
		}
	}
	if i := strings.Index(s, "://"); i >= 0 {
		rest := s[i+3:]
		if end := strings.IndexAny(rest, "/ ?"); end >= 0 {
			rest = rest[:end]
		}
		at += i + 3
		if host := strings.LastIndexByte(rest, '@'); host >= 0 {
			if c := strings.IndexByte(rest[:host], ':'); c >= 0 {
				r.hide(at+c+1, at+host)
			}
		}
	}
}

// connValue is where a connection string's value stands: behind spaces, in (doubled) quotes or up to a space or an
// ampersand.
func connValue(s string, i int) (from, to int) {
	for i < len(s) && s[i] == ' ' {
		i++
	}
	quotes := 0
	for i < len(s) && s[i] == '\'' {
		quotes++
		i++
	}
	for from = i; i < len(s); i++ {
		if quotes > 0 && s[i] == '\'' || quotes == 0 && (s[i] == ' ' || s[i] == '&') {
			break
		}
	}
	return from, i
}

func indexFold(s, sub string) int {
	for i := 0; i+len(sub) <= len(s); i++ {
		if strings.EqualFold(s[i:i+len(sub)], sub) {
			return i
		}
	}
	return -1
}

// mask puts Hidden in place of the spans, which may overlap.
func mask(sql string, spans []span) string {
	if len(spans) == 0 {
		return sql
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for _, s := range spans {
		if s.to <= at && at > 0 {
			continue
		}
		if s.from >= at {
			b.WriteString(sql[at:s.from])
			b.WriteString(Hidden)
		}
		at = s.to
	}
	b.WriteString(sql[at:])
	return b.String()
}

// Shorten cuts a text to MaxText, marked, and makes it one that nothing else needs to be kept for.
func Shorten(s string) string {
	if len(s) <= MaxText {
		return strings.Clone(s)
	}
	keep := MaxText - 40
	for keep > 0 && !utf8.RuneStart(s[keep]) {
		keep--
	}
	return fmt.Sprintf("%s… (%d bytes more)", s[:keep], len(s)-keep)
}
