package device

import (
	"strings"
	"testing"
)

// TestVersionRule compares versions as systems say them.
func TestVersionRule(t *testing.T) {
	rows := []struct {
		rule string
		os   OS
		said string
		want bool
	}{
		{">=6.1", Linux, "6.1.0-18-amd64", true},
		{">=6.1", Linux, "6.1.0", true},
		{">=6.1", Linux, "6.1", true},
		{">=6.1", Linux, "6.10.2-generic", true},
		{">=6.10", Linux, "6.9.7", false},
		{">=6.1", Linux, "5.15.0-91-generic", false},
		{">=6.12", Linux, "6.12-rc3", false},
		{">=6.12", Linux, "6.12.0-rc3+", false},
		{">=6.11", Linux, "6.12-rc3", true},
		{">=6.12", Linux, "6.12~beta1", false},
		{"=6.1", Linux, "6.1.0", true},
		{"<6.1", Linux, "6.1-rc1", true},
		{"12", Linux, "12", true},
		{">=22.04", Linux, "22.04", true},
		{">=22.4", Linux, "22.04", true},
		{">=14.5", MacOS, "14.5", true},
		{">=14.5", MacOS, "14.10.1", true},
		{">=14.5", MacOS, "14.4.1", false},
		{">14.5", MacOS, "14.5.0", false},
		{">=14.5", MacOS, "14.5 (23F79)", true},
		{">=10.0.22631", Windows, "10.0.22631.3447", true},
		{">=10.0.22631", Windows, "10.0.19045.4291", false},
		{"<=11", Windows, "10.0.22631", true},
		{"linux >=12, macos >=14.5", Linux, "12", true},
		{"linux >=12, macos >=14.5", MacOS, "14.4", false},
		{"linux >=12, macos >=14.5", Windows, "10.0.22631", false},
		{"darwin>=14, <20", MacOS, "15.1", true},
		{"macos >=14, <20", MacOS, "20.1", false},
		{"macos >=14, <20", Linux, "12", true},
		{">=1", Linux, "", false},
		{">=1", Linux, "rolling", false},
		{">=1", Linux, "2x", false},
		{">=1", Linux, "2.", false},
		{">=1", Linux, ".2", false},
		{">=1", Linux, "-2", false},
		{">=1", Linux, "99999999999999999999", false},
		{">=1", Linux, strings.Repeat("1.", 40) + "1", false},
	}
	for _, r := range rows {
		rule, err := ParseVersionRule(r.rule)
		if err != nil {
			t.Errorf("%q: %v", r.rule, err)
		} else if got := rule.Meets(r.os, r.said); got != r.want {
			t.Errorf("%s %q meets %q: %t, want %t", r.os, r.said, r.rule, got, r.want)
		}
	}
	for _, bad := range []string{"", ">=", "new", ">=6.1-rc1", "beos >=5", "linux", ">=1,", "=>1", ">=6.1x"} {
		if _, err := ParseVersionRule(bad); err == nil {
			t.Errorf("%q passes for a rule", bad)
		}
	}
	if (VersionRule{}).Meets(Linux, "12") {
		t.Error("the zero rule is met")
	}
}

// FuzzVersion reads versions and rules from outside.
func FuzzVersion(f *testing.F) {
	f.Add(">=6.1", "6.1.0-18-amd64")
	f.Add("linux >=12, macos >=14.5", "14.5 (23F79)")
	f.Fuzz(func(t *testing.T, rule, said string) {
		r, err := ParseVersionRule(rule)
		if err == nil && len(r.terms) == 0 {
			t.Error("a rule without terms")
		}
		r.Meets(Linux, said)
	})
}
