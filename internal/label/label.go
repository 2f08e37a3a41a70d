// Package label matches what resources say of themselves against what roles select.
//
//	labels    {env: prod, team: db}
//	selector  {env: [prod, "stag*"], "*": "*"}
//
// A selector matches when each of its keys does: the resource has that label and one of the values matches it, a `*`
// standing for any run of characters. The key `*` with the value `*` matches every resource. An empty selector
// matches nothing.
package label

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Set is a resource's labels.
type Set map[string]string

// String prints the labels sorted, as `env=prod,team=db`.
func (s Set) String() string {
	parts := make([]string, 0, len(s))
	for _, k := range slices.Sorted(maps.Keys(s)) {
		parts = append(parts, k+"="+s[k])
	}
	return strings.Join(parts, ",")
}

// Values is one or several patterns; in YAML and JSON a lone string stands for a list of one.
type Values []string

// UnmarshalJSON takes a string or a list of strings.
func (v *Values) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*v = Values{one}
		return nil
	}
	var many []string
	if err := json.Unmarshal(b, &many); err != nil {
		return fmt.Errorf("want a string or a list of strings")
	}
	*v = many
	return nil
}

// MarshalJSON prints a list of one as a string.
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

// Selector selects resources by their labels.
type Selector map[string]Values

// Matches reports whether every key of the selector matches the labels.
func (s Selector) Matches(labels Set) bool {
	if len(s) == 0 {
		return false
	}
	for key, values := range s {
		if key == "*" {
			if !slices.Contains(values, "*") {
				return false
			}
			continue
		}
		have, ok := labels[key]
		if !ok || !slices.ContainsFunc(values, func(p string) bool { return Glob(p, have) }) {
			return false
		}
	}
	return true
}

// Glob reports whether s matches pattern, in which `*` stands for any run of characters, none included. It runs in
// O(len(pattern)·len(s)) at most.
func Glob(pattern, s string) bool {
	star, mark, i, j := -1, 0, 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && pattern[i] == s[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// Name reports whether s is fit to be a label's key or value: printable ASCII, 1 to 256 characters, no comma or
// equals sign.
func Name(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' || r == ',' || r == '=' })
}
