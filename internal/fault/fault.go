// Package fault is the error that is written for a person: a kind, a sentence, its cause, and what to type next.
//
// A fault crosses borders (RPC, SSH, a database's own protocol) as its four texts; what it wraps stays on the side
// where it happened and goes to that side's log alone.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Kind sorts faults by what a caller can do about them. The zero Kind is Internal, which tells a stranger nothing.
type Kind uint8

// The kinds.
const (
	Internal        Kind = iota // a mistake of ours; the text is not shown to strangers
	Invalid                     // the request itself is wrong
	NotFound                    // what was named does not exist
	Exists                      // what was to be made is there already
	Denied                      // a rule refused
	Unauthenticated             // who asks is not known, or no longer
	Conflict                    // changed since it was read
	Exhausted                   // too many, too large, or too fast
	Unavailable                 // try again: something is down, old or not reachable
	Unsupported                 // this build does not do that
)

var kindNames = [...]string{"internal", "invalid", "not_found", "exists", "denied", "unauthenticated", "conflict",
	"exhausted", "unavailable", "unsupported"}

// String is the kind's stable word.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return kindNames[Internal]
}

// ParseKind is the inverse of String; an unknown word is Internal.
func ParseKind(s string) Kind {
	for i, n := range kindNames {
		if n == s {
			return Kind(i)
		}
	}
	return Internal
}

// Error is one fault. Text is a sentence without a period, Cause says which rule, field or line, Fix is a command to
// type; the latter two may be empty. Reason is a stable word for tests, audit and programs.
type Error struct {
	Kind   Kind
	Reason string
	Text   string
	Cause  string
	Fix    string
	Err    error
}

// Error is the text and what is wrapped, for logs; people are shown Lines.
func (e *Error) Error() string {
	if e.Err != nil {
		return e.Text + ": " + e.Err.Error()
	}
	return e.Text
}

// Unwrap gives what is wrapped.
func (e *Error) Unwrap() error { return e.Err }

// Lines is the fault as people see it: the text, then indented the cause and the remedy where there are any.
func (e *Error) Lines() string {
	var b strings.Builder
	b.WriteString(e.Text)
	if e.Cause != "" {
		b.WriteString("\n  " + e.Cause)
	}
	if e.Fix != "" {
		b.WriteString("\n  to fix: " + e.Fix)
	}
	return b.String()
}

// WithFix returns a copy that names what to type next.
func (e *Error) WithFix(format string, args ...any) *Error {
	c := *e
	c.Fix = fmt.Sprintf(format, args...)
	return &c
}

// WithCause returns a copy that says why.
func (e *Error) WithCause(format string, args ...any) *Error {
	c := *e
	c.Cause = fmt.Sprintf(format, args...)
	return &c
}

// WithReason returns a copy with a stable word.
func (e *Error) WithReason(reason string) *Error {
	c := *e
	c.Reason = reason
	return &c
}

// Wrapping returns a copy that carries err for the log.
func (e *Error) Wrapping(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// New makes a fault of a kind with a sentence.
func New(k Kind, format string, args ...any) *Error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// Of finds the fault in err's chain; an error that holds none becomes an Internal one that wraps it. Of(nil) is nil.
func Of(err error) *Error {
	if err == nil {
		return nil
	}
	var f *Error
	if errors.As(err, &f) {
		return f
	}
	return &Error{Kind: Internal, Text: "internal error", Err: err}
}

// Is reports whether err's chain holds a fault of kind k.
func Is(err error, k Kind) bool {
	var f *Error
	return errors.As(err, &f) && f.Kind == k
}

// Because reports whether err's chain holds a fault with this reason.
func Because(err error, reason string) bool {
	var f *Error
	return errors.As(err, &f) && f.Reason == reason
}

// maxPlain bounds what Plain leaves of a text, in runes.
const maxPlain = 400

// Plain is what somebody else wrote, fit for one line of a person's terminal: control characters become spaces, and what
// is too long is cut.
func Plain(s string) string {
	out := make([]rune, 0, min(len(s), maxPlain))
	for _, r := range s {
		if len(out) == maxPlain {
			return string(out) + "…"
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == utf8.RuneError {
			r = ' '
		}
		out = append(out, r)
	}
	return string(out)
}
