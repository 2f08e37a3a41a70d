// Package objects is kubernetes_resources: which objects of a cluster a role's list is about.
package objects

import (
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Rules are a role's list, on its allow or its deny side.
type Rules []rule

// rule is one entry of kubernetes_resources.
type rule struct {
	kind, namespace, name string
	verbs                 []string
}

// New makes a list ready to be asked.
func New(list []role.KubeResource) Rules {
	var out Rules
	for _, r := range list {
		out = append(out, rule{strings.ToLower(r.Kind), r.Namespace, r.Name, r.Verbs})
	}
	return out
}

// whole reports whether the rule is about everything there is.
func (r *rule) whole() bool {
	return r.kind == "*" && r.namespace == "*" && r.name == "*" && slices.Contains(r.verbs, "*")
}

// kindOf reports whether the rule's kind is a request's: `*`, `pods`, `pod`, `deployments.apps`, and with a subresource
// `serviceaccounts/token`.
func (r *rule) kindOf(o *target.KubeObject) bool {
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
func (r *rule) verb(v string) bool {
	return slices.Contains(r.verbs, v) || slices.Contains(r.verbs, "*")
}

// within reports whether the rule's namespace and name hold every object that a request is about: those of one name, or
// all of them.
func (r *rule) within(o *target.KubeObject) bool {
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
func (r *rule) touches(o *target.KubeObject) bool {
	return o.Name != "" && r.within(o) || o.Name == "" && (o.Namespace == "" || r.namespace == "*" || label.Glob(r.namespace, o.Namespace))
}

// Many reports whether a request is for many objects: its answer is filtered to what is granted.
func Many(verb string, o *target.KubeObject) bool { return many(verb, o) }

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

// Grants reports whether an allow side with or without a list grants a request. Without any it says nothing
// about objects: the cluster's own rules for the groups and user that it is asked as decide.
func (s Rules) Grants(verb string, o *target.KubeObject) bool {
	if o == nil { // to be listed is all that is asked without an object
		return verb == "list"
	}
	if len(s) == 0 {
		return true
	}
	if discovery(verb, o) {
		return true
	}
	for i := range s {
		r := &s[i]
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

// Denies reports whether a deny side refuses a request. A request for many objects is refused where it would show
// some only if the rule holds all of them; the others are taken out of the answer.
func (s Rules) Denies(verb string, o *target.KubeObject) bool {
	if o == nil {
		return false
	}
	for i := range s {
		r := &s[i]
		if o.Resource == "" {
			if r.whole() && !discovery(verb, o) {
				return true
			}
			continue
		}
		if !r.kindOf(o) || !r.verb(verb) {
			continue
		}
		wide := rule{namespace: r.namespace, name: r.name}
		if wide.namespace == "" {
			wide.namespace = "*" // on this side what is left out is the widest
		}
		if wide.within(o) || !many(verb, o) && wide.touches(o) {
			return true
		}
	}
	return false
}

// Whole reports whether a request for many objects is granted with every one of them. Whether a path without a namespace is of
// what is cluster-wide or of all namespaces it does not say: a rule of what is cluster-wide does not hold the answer whole.
func (s Rules) Whole(verb string, o *target.KubeObject) bool {
	return len(s) == 0 || slices.ContainsFunc(s, func(r rule) bool {
		return r.kindOf(o) && r.verb(verb) && r.within(o) && (o.Namespace != "" || r.namespace == "*")
	})
}
