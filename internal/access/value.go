package access

import (
	"strings"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
)

// value is one entry of a role's list: a trait's name where it is a variable, else the text itself.
type value struct {
	trait string
	text  string
	glob  bool
}

func newValues(list []string) []value {
	var out []value
	for _, text := range list {
		v := value{text: text, glob: strings.Contains(text, "*")}
		v.trait, _ = role.Variable(text)
		out = append(out, v)
	}
	return out
}

// literal reports whether the expanded values hold s, to the letter.
func literal(values []value, traits map[string][]string, s string) bool {
	return s != "" && matches(values, traits, s, false)
}

// pattern is literal, but a `*` that the role itself writes stands for any run of characters.
func pattern(values []value, traits map[string][]string, s string) bool {
	return s != "" && matches(values, traits, s, true)
}

func matches(values []value, traits map[string][]string, s string, globs bool) bool {
	for i := range values {
		v := &values[i]
		switch {
		case v.trait != "":
			if holds(traits[v.trait], s) {
				return true
			}
		case v.text == s, globs && v.glob && label.Glob(v.text, s):
			return true
		}
	}
	return false
}

// holds reports whether a trait holds s. What a trait holds is a literal and never a pattern, and nothing that is unfit
// for a certificate, as role.Expand has it.
func holds(trait []string, s string) bool {
	for _, t := range trait {
		if t == s {
			return fit(s)
		}
	}
	return false
}

// fit is identity.ValidName for a text without a `*`.
func fit(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == ',' || c == '*' {
			return false
		}
	}
	return s != "" && len(s) <= 128
}

// selector is a label.Selector as a list, which is walked faster than a map.
type selector []wanted

type wanted struct {
	key    string
	values label.Values
}

func newSelector(from label.Selector) selector {
	var out selector
	for k, v := range from {
		out = append(out, wanted{k, v})
	}
	return out
}

// matches is label.Selector.Matches.
func (s selector) matches(labels label.Set) bool {
	for i := range s {
		if !s[i].met(labels) {
			return false
		}
	}
	return len(s) > 0
}

func (d *wanted) met(labels label.Set) bool {
	have, ok := "*", true // the key `*` is met by the value `*` alone
	if d.key != "*" {
		have, ok = labels[d.key]
	}
	if !ok {
		return false
	}
	for _, v := range d.values {
		if v == have || (d.key != "*" && label.Glob(v, have)) {
			return true
		}
	}
	return false
}
