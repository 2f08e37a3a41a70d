package redis

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Sizes of what is shown of a command, in bytes.
const (
	MaxArg     = 256
	MaxCommand = 1024
)

// Masked stands in place of a secret.
const Masked = "***"

// secretSettings are those of CONFIG SET that hold secrets.
var secretSettings = []string{"requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass", "sentinel-pass"}

// AppendText appends a command as people write it, its arguments cut, its secrets masked; it reports whether there were
// any.
func AppendText(dst []byte, args [][]byte) ([]byte, bool) {
	start, secret := len(dst), false
	hidden := hides(args)
	for i, a := range args {
		if i > 0 {
			dst = append(dst, ' ')
		}
		if len(dst)-start > MaxCommand {
			return append(append(dst, "… ("...), strconv.Itoa(len(args)-i)+" arguments more)"...), secret
		}
		if hidden != nil {
			if shown, is := hidden(i, a); is {
				secret = true
				dst = append(append(dst, shown...), Masked...)
				continue
			}
		}
		dst = appendArg(dst, a)
	}
	return dst, secret
}

func appendArg(dst, a []byte) []byte {
	short := a[:min(len(a), MaxArg)]
	if plain(short) {
		dst = append(dst, short...)
	} else {
		dst = strconv.AppendQuote(dst, string(short))
	}
	if len(short) < len(a) {
		dst = append(dst, "… ("...)
		dst = append(strconv.AppendInt(dst, int64(len(a)-len(short)), 10), " bytes more)"...)
	}
	return dst
}

func plain(a []byte) bool {
	for _, c := range a {
		if c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return len(a) > 0 && !bytes.ContainsAny(a, " \t\r\n\"\\") && utf8.Valid(a) && !bytes.ContainsFunc(a, func(r rune) bool { return !strconv.IsPrint(r) })
		}
	}
	return len(a) > 0
}

// is compares without case, as redis-server does names.
func is(a []byte, name string) bool { return len(a) == len(name) && strings.EqualFold(string(a), name) }

func in(a []byte, names []string) bool {
	for _, n := range names {
		if is(a, n) {
			return true
		}
	}
	return false
}

// hides says which arguments of a command are secrets, and what may be shown before one; nil: none is.
func hides(args [][]byte) func(i int, a []byte) (string, bool) {
	behind := func(words ...string) func(int, []byte) (string, bool) {
		return func(i int, _ []byte) (string, bool) { return "", i > 1 && in(args[i-1], words) }
	}
	switch {
	case len(args) < 2:
		return nil
	case is(args[0], "AUTH"):
		return func(i int, _ []byte) (string, bool) { return "", i > 0 && (i > 1 || len(args) == 2) }
	case is(args[0], "HELLO"):
		return func(i int, _ []byte) (string, bool) { return "", i > 3 && is(args[i-2], "AUTH") }
	case is(args[0], "MIGRATE"):
		return func(i int, _ []byte) (string, bool) {
			return "", i > 5 && (is(args[i-1], "AUTH") || is(args[i-2], "AUTH2"))
		}
	case is(args[0], "CONFIG") && is(args[1], "SET"):
		return behind(secretSettings...)
	case is(args[0], "SENTINEL"):
		return behind("auth-pass", "sentinel-pass")
	case is(args[0], "ACL") && is(args[1], "SETUSER"):
		return func(i int, a []byte) (string, bool) {
			if i > 2 && len(a) > 0 && strings.IndexByte("><#!", a[0]) >= 0 {
				return string(a[:1]), true
			}
			return "", false
		}
	case is(args[0], "EVAL"), is(args[0], "EVAL_RO"), is(args[0], "SCRIPT"), is(args[0], "FUNCTION"), is(args[0], "FCALL"), is(args[0], "EVALSHA"):
		return scripts(args)
	}
	return nil
}

// scripts hides the arguments of a script that may set secrets.
func scripts(args [][]byte) func(int, []byte) (string, bool) {
	for _, a := range args[1:] {
		low := bytes.ToLower(a[:min(len(a), MaxLine)])
		for _, w := range append([]string{"setuser", "'auth", `"auth`}, secretSettings...) {
			if bytes.Contains(low, []byte(w)) {
				return func(i int, _ []byte) (string, bool) { return "", i > 0 }
			}
		}
	}
	return nil
}
