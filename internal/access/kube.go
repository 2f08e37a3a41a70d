package access

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// kubeRule is one entry of kubernetes_resources.
type kubeRule struct {
	kind, namespace, name string
	verbs                 []string
}

func newKubeRules(list []role.KubeResource) []kubeRule {
	var out []kubeRule
	for _, r := range list {
		out = append(out, kubeRule{strings.ToLower(r.Kind), r.Namespace, r.Name, r.Verbs})
	}
	return out
}

// whole reports whether the rule is about everything there is.
func (r *kubeRule) whole() bool {
	return r.kind == "*" && r.namespace == "*" && r.name == "*" && slices.Contains(r.verbs, "*")
}

// kindOf reports whether the rule's kind is a request's: `*`, `pods`, `pod`, `deployments.apps`, and with a subresource
// `serviceaccounts/token`.
func (r *kubeRule) kindOf(o *target.KubeObject) bool {
	if r.kind == "*" {
		return true
	}
	kind, sub, _ := strings.Cut(r.kind, "/")
	if sub != o.Subresource && sub != "*" {
		return false
	}
	name, group, grouped := strings.Cut(kind, ".")
	if grouped && group != o.Group {
		return false
	}
	return name == o.Resource || singular(o.Resource) == name
}

// singular is an API resource's name for one of them.
func singular(plural string) string {
	switch {
	case strings.HasSuffix(plural, "ies"):
		return strings.TrimSuffix(plural, "ies") + "y"
	case strings.HasSuffix(plural, "sses"):
		return strings.TrimSuffix(plural, "es")
	}
	return strings.TrimSuffix(plural, "s")
}

// verb reports whether the rule names a verb.
func (r *kubeRule) verb(v string) bool { return names(r.verbs, v) }

// within reports whether the rule's namespace and name hold every object that a request is about: those of one name, or
// all of them.
func (r *kubeRule) within(o *target.KubeObject) bool {
	everywhere := r.namespace == "*"
	switch {
	case o.Namespace == "" && o.Name == "": // of all namespaces, or cluster-wide
		return everywhere && r.name == "*" || r.namespace == "" && r.name == "*"
	case o.Namespace == "": // one that is cluster-wide
		return (everywhere || r.namespace == "") && label.Glob(r.name, o.Name)
	case o.Name == "":
		return label.Glob(r.namespace, o.Namespace) && r.name == "*"
	}
	return label.Glob(r.namespace, o.Namespace) && label.Glob(r.name, o.Name)
}

// touches reports whether the rule may hold some of the objects that a request for many is about.
func (r *kubeRule) touches(o *target.KubeObject) bool {
	return o.Name != "" && r.within(o) || o.Name == "" && (o.Namespace == "" || r.namespace == "*" || label.Glob(r.namespace, o.Namespace))
}

// many are the verbs whose answers are filtered to what is granted.
func many(verb string, o *target.KubeObject) bool {
	return (verb == "list" || verb == "watch") && o.Name == "" && o.Subresource == ""
}

// discovery reports whether a request only asks what the API has, or what its asker may do there: every client needs it.
func discovery(verb string, o *target.KubeObject) bool {
	if o.Resource != "" {
		switch o.Group {
		case "authorization.k8s.io":
			return verb == "create" && strings.HasPrefix(o.Resource, "selfsubject")
		case "authentication.k8s.io":
			return verb == "create" && o.Resource == "selfsubjectreviews"
		}
		return false
	}
	if verb != "get" {
		return false
	}
	p := o.Path
	switch {
	case p == "/api", p == "/apis", p == "/version", p == "/healthz", p == "/livez", p == "/readyz", p == "/openapi/v2", p == "/openapi/v3":
		return true
	case strings.HasPrefix(p, "/openapi/v3/"):
		return true
	case strings.HasPrefix(p, "/api/"), strings.HasPrefix(p, "/apis/"):
		return strings.Count(p, "/") <= 3
	}
	return false
}

// kubeGrants reports whether a side without or with kubernetes_resources grants a request. Without any it says nothing
// about objects: the cluster's own rules for the groups and user that it is asked as decide.
func (s *side) kubeGrants(verb string, o *target.KubeObject) bool {
	if o == nil { // to be listed is all that is asked without an object
		return verb == "list"
	}
	if len(s.kubeRules) == 0 {
		return true
	}
	if discovery(verb, o) {
		return true
	}
	for i := range s.kubeRules {
		r := &s.kubeRules[i]
		if o.Resource == "" {
			if r.whole() {
				return true
			}
			continue
		}
		if r.kindOf(o) && r.verb(verb) && (r.within(o) || many(verb, o) && r.touches(o)) {
			return true
		}
	}
	return false
}

// kubeDenies reports whether a deny side refuses a request. A request for many objects is refused where it would show
// some only if the rule holds all of them; the others are taken out of the answer.
func (s *side) kubeDenies(verb string, o *target.KubeObject) bool {
	if o == nil {
		return false
	}
	for i := range s.kubeRules {
		r := &s.kubeRules[i]
		if o.Resource == "" {
			if r.whole() && !discovery(verb, o) {
				return true
			}
			continue
		}
		if !r.kindOf(o) || !r.verb(verb) {
			continue
		}
		wide := kubeRule{namespace: r.namespace, name: r.name}
		if wide.namespace == "" {
			wide.namespace = "*" // on this side what is left out is the widest
		}
		if wide.within(o) || !many(verb, o) && wide.touches(o) {
			return true
		}
	}
	return false
}

// KubeFilters reports whether the answer to a request for many objects must be looked through, object by object: some
// role of the identity says something about objects. What is to be shown then is what Decide allows for each.
func KubeFilters(in Input) bool {
	if in.Action.Kube == nil || !many(in.Action.Verb, in.Action.Kube) {
		return false
	}
	whole := false
	for _, p := range gather(&in, nil) {
		if len(p.deny.kubeRules) > 0 {
			return true
		}
		if p.grants {
			whole = whole || len(p.allow.kubeRules) == 0 || slices.ContainsFunc(p.allow.kubeRules, func(r kubeRule) bool {
				return r.kindOf(in.Action.Kube) && r.verb(in.Action.Verb) && r.within(in.Action.Kube)
			})
		}
	}
	return !whole
}

// kubeAs are the users and groups that granting roles let a request be made as, and no role takes away: sorted, each once,
// separated by commas. Without a user it is the login's own name.
func kubeAs(in *Input, held []asked) (users, groups string) {
	gathered := func(list func(*Policy) []string, denied func(*Policy) []value) string {
		var out []string
		for _, p := range held {
			if p.grants {
				out = append(out, role.Expand(list(p.Policy), in.Identity.Traits)...)
			}
		}
		out = slices.DeleteFunc(out, func(name string) bool {
			return strings.Contains(name, "*") || slices.ContainsFunc(held, func(p asked) bool { return pattern(denied(p.Policy), in.Identity.Traits, name) })
		})
		slices.Sort(out)
		return strings.Join(slices.Compact(out), ",")
	}
	users = gathered(func(p *Policy) []string { return p.allow.KubernetesUsers }, func(p *Policy) []value { return p.deny.kubeUsers })
	groups = gathered(func(p *Policy) []string { return p.allow.KubernetesGroups }, func(p *Policy) []value { return p.deny.kubeGroups })
	if users == "" {
		users = in.Identity.Name
	}
	return users, groups
}
