package device

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// VersionRule is a demand on the version that a device says its operating system has:
//
//	>=14.5                                          whatever system it is
//	linux >=12, macos >=14.5, windows >=10.0.22631  each its own; a system that is not named does not meet it
//
// Terms are joined by commas; each is a system's name or none, one of >=, >, =, <, <= or none (>=), and a version of
// dotted numbers. Its zero value is met by nothing.
type VersionRule struct{ terms []versionTerm }

type versionTerm struct {
	os   OS // "" is any
	op   string
	want []int
}

// ParseVersionRule parses a rule.
func ParseVersionRule(s string) (VersionRule, error) {
	var r VersionRule
	for part := range strings.SplitSeq(s, ",") {
		t := versionTerm{op: ">="}
		rest := strings.TrimSpace(part)
		if i := strings.IndexAny(rest, "<>=0123456789"); i > 0 {
			os, known := ParseOS(rest[:i])
			if !known {
				return VersionRule{}, fmt.Errorf("%q is no version rule: want linux, macos or windows before the version, not %q", s, strings.TrimSpace(rest[:i]))
			}
			t.os, rest = os, rest[i:]
		}
		for _, op := range []string{">=", "<=", ">", "<", "="} {
			if strings.HasPrefix(rest, op) {
				t.op, rest = op, strings.TrimSpace(rest[len(op):])
				break
			}
		}
		v, ok := parseVersion(rest)
		if !ok || v.rest != "" {
			return VersionRule{}, fmt.Errorf("%q is no version rule: want one like \">=14.5\", or \"linux >=12, macos >=14.5\"", s)
		}
		t.want = v.numbers
		r.terms = append(r.terms, t)
	}
	return r, nil
}

// Meets reports whether a system of this version obeys the rule; what cannot be read does not.
func (r VersionRule) Meets(os OS, said string) bool {
	have, ok := parseVersion(said)
	if !ok {
		return false
	}
	applies := false
	for _, t := range r.terms {
		if t.os != "" && t.os != os {
			continue
		}
		if applies = true; !t.holds(have) {
			return false
		}
	}
	return applies
}

func (t versionTerm) holds(have version) bool {
	c := compareVersions(have.numbers, t.want)
	if c == 0 && have.early {
		c = -1
	}
	switch t.op {
	case ">=":
		return c >= 0
	case ">":
		return c > 0
	case "=":
		return c == 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	}
	return false
}

// version is what a system says: `12`, `6.1.0-18-amd64`, `14.5`, `10.0.22631.3447`, `6.12-rc3`. rest is what follows
// the dotted numbers, early whether it marks a version before the one that the numbers name.
type version struct {
	numbers []int
	rest    string
	early   bool
}

// parseVersion reads the dotted numbers that a version begins with. What follows them has to be set off, so that 6.1x
// is no 6.1; it is not compared, but for marks of versions that are not finished.
func parseVersion(s string) (version, bool) {
	var v version
	if s = strings.TrimSpace(s); s == "" || len(s) > 64 {
		return v, false
	}
	for {
		digits := 0
		for digits < len(s) && s[digits] >= '0' && s[digits] <= '9' {
			digits++
		}
		n, err := strconv.ParseUint(s[:digits], 10, 31)
		if err != nil {
			return version{}, false
		}
		v.numbers, s = append(v.numbers, int(n)), s[digits:]
		if !strings.HasPrefix(s, ".") {
			break
		}
		s = s[1:]
	}
	if s == "" {
		return v, true
	}
	if !strings.ContainsRune(" -+_~(", rune(s[0])) {
		return version{}, false
	}
	v.rest = s
	words := strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return r < 'a' || r > 'z' })
	v.early = s[0] == '~' || slices.ContainsFunc(words, func(w string) bool {
		return slices.Contains([]string{"rc", "alpha", "beta", "pre", "preview", "dev"}, w)
	})
	return v, true
}

func compareVersions(a, b []int) int {
	for i := range max(len(a), len(b)) {
		var x, y int
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return x - y
		}
	}
	return 0
}
