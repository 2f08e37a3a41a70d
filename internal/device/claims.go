package device

import (
	"fmt"
	"strconv"
	"strings"
)

// Claims are the facts about a device that a certificate was issued on. SecureBoot is nil where nothing proved it
// either way.
type Claims struct {
	OSVersion  string `json:"os_version,omitempty"`
	SecureBoot *bool  `json:"secure_boot,omitempty"`
}

// VersionRule is a demand on a dotted version: one of >=, >, =, <, <= before it, >= when there is none.
type VersionRule struct {
	op   string
	want []int
}

// ParseVersionRule parses `>=14.5`.
func ParseVersionRule(s string) (VersionRule, error) {
	r := VersionRule{op: ">="}
	rest := strings.TrimSpace(s)
	for _, op := range []string{">=", "<=", ">", "<", "="} {
		if strings.HasPrefix(rest, op) {
			r.op, rest = op, strings.TrimSpace(rest[len(op):])
			break
		}
	}
	want, ok := parseVersion(rest)
	if !ok {
		return VersionRule{}, fmt.Errorf("%q is no version rule: want one like \">=14.5\"", s)
	}
	r.want = want
	return r, nil
}

// Meets reports whether version obeys the rule; what cannot be read does not.
func (r VersionRule) Meets(version string) bool {
	have, ok := parseVersion(version)
	if !ok || r.op == "" {
		return false
	}
	c := compareVersions(have, r.want)
	switch r.op {
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

func parseVersion(s string) ([]int, bool) {
	if s == "" || len(s) > 64 {
		return nil, false
	}
	var out []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return nil, false
		}
		out = append(out, n)
	}
	return out, true
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
