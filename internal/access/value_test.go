package access

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
)

// TestValuesAreAsTheirNounsHaveThem compares the compiled forms with role.Expand, label.Glob and label.Selector.
func TestValuesAreAsTheirNounsHaveThem(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 7))
	words := []string{"root", "r*", "*", "a b", "a,b", "\x7f", "ü", "", "{{internal.t}}", "{{ external.t }}", "{{internal.}}", "{{x}}", strings.Repeat("a", 129)}
	for range situations {
		list, traits, s := []string{one(r, words...), one(r, words...)}, map[string][]string{"t": {one(r, words...), one(r, words...)}}, one(r, words...)
		literally := s != "" && slices.ContainsFunc(list, func(v string) bool {
			if _, is := role.Variable(v); is {
				return slices.Contains(role.Expand([]string{v}, traits), s)
			}
			return v == s
		})
		if got := literal(newValues(list), traits, s); got != literally {
			t.Fatalf("literal %q with %q: %q is %v", list, traits, s, got)
		}
		globbed := literally || s != "" && slices.ContainsFunc(list, func(v string) bool { _, is := role.Variable(v); return !is && label.Glob(v, s) })
		if got := pattern(newValues(list), traits, s); got != globbed {
			t.Fatalf("pattern %q with %q: %q is %v", list, traits, s, got)
		}
		sel, set := label.Selector{}, label.Set{}
		for range r.IntN(3) {
			sel[one(r, "*", "env", "team")] = label.Values{one(r, "*", "prod", "p*"), one(r, "*", "dev", "x")}
			set[one(r, "*", "env", "team")] = one(r, "*", "prod", "dev", "")
		}
		if got := newSelector(sel).matches(set); got != sel.Matches(set) {
			t.Fatalf("selector %v on %v is %v", sel, set, got)
		}
	}
}
