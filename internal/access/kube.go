package access

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/access/objects"
	"github.com/sallyport/sallyport/internal/role"
)

// kubernetes is what a side says of clusters.
type kubernetes struct {
	labels        selector
	users, groups []value
	objects       objects.Rules
}

// KubeFilters reports whether the answer to a request for many objects must be looked through, object by object: some
// role of the identity says something about objects. What is to be shown then is what Decide allows for each.
func KubeFilters(in Input) bool {
	if in.Action.Kube == nil || !objects.Many(in.Action.Verb, in.Action.Kube) {
		return false
	}
	whole := false
	for _, p := range gather(&in, nil) {
		if len(p.deny.kube.objects) > 0 {
			return true
		}
		whole = whole || p.grants && p.allow.kube.objects.Whole(in.Action.Verb, in.Action.Kube)
	}
	return !whole
}

// kubeAs are the users and groups that granting roles let a request be made as, and no role takes away: sorted, each once,
// separated by commas. Where no role names a user it is the login's own name; where that is denied too there is none, nor where
// it is one of those that Kubernetes keeps for its own parts, whom roles alone can name.
func kubeAs(in *Input, held []asked) (users, groups string) {
	gathered := func(list func(*Policy) []string, denied func(*Policy) []value, otherwise ...string) string {
		var out []string
		for _, p := range held {
			if p.grants {
				out = append(out, role.Expand(list(p.Policy), in.Identity.Traits)...)
			}
		}
		out = slices.DeleteFunc(out, func(name string) bool { return strings.Contains(name, "*") })
		if len(out) == 0 {
			out = otherwise
		}
		out = slices.DeleteFunc(out, func(name string) bool {
			return slices.ContainsFunc(held, func(p asked) bool { return pattern(denied(p.Policy), in.Identity.Traits, name) })
		})
		slices.Sort(out)
		return strings.Join(slices.Compact(out), ",")
	}
	own := slices.DeleteFunc([]string{in.Identity.Name}, func(name string) bool { return strings.HasPrefix(name, "system:") })
	users = gathered(func(p *Policy) []string { return p.allow.KubernetesUsers }, func(p *Policy) []value { return p.deny.kube.users }, own...)
	groups = gathered(func(p *Policy) []string { return p.allow.KubernetesGroups }, func(p *Policy) []value { return p.deny.kube.groups })
	return users, groups
}
