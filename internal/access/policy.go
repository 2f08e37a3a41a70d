package access

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Policy is a role made ready to be asked: its predicates compiled.
type Policy struct {
	name    string
	options role.Options
	allow   side
	deny    side
	inert   bool
}

type side struct {
	role.Conditions
	where []*predicate
}

// Compile makes a role ready. A role with options that this build does not enforce, or with a predicate that does
// not compile, still denies and demands, and admits nobody; the error says why.
func Compile(r role.Role) (*Policy, error) {
	p := &Policy{name: r.Name, options: r.Options, allow: side{Conditions: r.Allow}, deny: side{Conditions: r.Deny}}
	var err error
	if names := r.Unenforced(); len(names) > 0 {
		p.inert, err = true, fmt.Errorf("%s is not enforced by this build", names[0])
	}
	for _, s := range []*side{&p.allow, &p.deny} {
		for i, rule := range s.Rules {
			pred, e := compilePredicate(rule.Where)
			if e != nil {
				p.inert, err = true, fmt.Errorf("rules[%d].where: %w", i, e)
			}
			s.where = append(s.where, pred)
		}
	}
	return p, err
}

// Name is the role's name.
func (p *Policy) Name() string { return p.name }

// Options are the role's options.
func (p *Policy) Options() role.Options { return p.options }

// Logins are the logins that the role allows, variables included; none where the role admits nobody.
func (p *Policy) Logins() []string {
	if p.inert {
		return nil
	}
	return p.allow.Conditions.Logins
}

// selects reports whether the role matches the target, whatever is asked for there.
func (p *Policy) selects(in *Input) bool {
	t := &in.Target
	if t.Kind == target.Administration {
		return slices.ContainsFunc(p.allow.Rules, func(r role.Rule) bool { return names(r.Resources, t.Name) })
	}
	return p.allow.labels(t.Kind).Matches(t.Labels)
}

// grants reports whether the role's allow side grants the action on the target.
func (p *Policy) grants(in *Input) bool {
	if p.inert || !p.selects(in) {
		return false
	}
	traits, a := in.Identity.Traits, &in.Action
	switch in.Target.Kind {
	case target.Node:
		return a.Login == "" && a.Verb == "list" || literal(p.allow.Logins, traits, a.Login)
	case target.Database:
		if a.Verb == "list" {
			return true
		}
		return pattern(p.allow.DBUsers, traits, a.DBUser) && (a.DBName == "" || pattern(p.allow.DBNames, traits, a.DBName))
	case target.Kube, target.App:
		return true
	case target.Administration:
		return a.Verb != "" && p.allow.rule(in, true)
	}
	return false
}

// denies reports whether the role's deny side refuses the action on the target. A deny side that selects by labels
// alone, with no login or database user, refuses every one of them.
func (p *Policy) denies(in *Input) bool {
	traits, a, t := in.Identity.Traits, &in.Action, &in.Target
	if t.Kind == target.Administration {
		return p.deny.rule(in, false)
	}
	if p.deny.labels(t.Kind).Matches(t.Labels) {
		return true
	}
	switch t.Kind {
	case target.Node:
		return a.Login != "" && pattern(p.deny.Logins, traits, a.Login)
	case target.Database:
		return (a.DBUser != "" && pattern(p.deny.DBUsers, traits, a.DBUser)) ||
			(a.DBName != "" && pattern(p.deny.DBNames, traits, a.DBName))
	}
	return false
}

func (s *side) labels(k target.Kind) label.Selector {
	switch k {
	case target.Node:
		return s.NodeLabels
	case target.Database:
		return s.DBLabels
	case target.Kube:
		return s.KubernetesLabels
	case target.App:
		return s.AppLabels
	}
	return nil
}

// rule reports whether a rule of the side, the allow side or the deny side, names kind and verb, and its predicate
// holds. Where the object is not known yet the allow side says yes and the deny side no: the use case that knows it
// asks again. Where none will, or the predicate is broken, it is the other way round.
func (s *side) rule(in *Input, allow bool) bool {
	for i, r := range s.Rules {
		if !names(r.Resources, in.Target.Name) || !names(r.Verbs, in.Action.Verb) {
			continue
		}
		answer := true
		switch {
		case r.Where == "":
		case in.Target.Object != nil:
			answer = s.where[i].holds(in, !allow)
		case s.where[i].program == nil || !names(askedByObject, in.Target.Name):
			answer = !allow
		default:
			answer = allow
		}
		if answer {
			return true
		}
	}
	return false
}

// askedByObject are the kinds whose use cases ask again with the object; of others no predicate can be judged.
var askedByObject = []string{"user", "role", "device", "lock", "token", "cluster_auth_preference", "node"}

func names(list []string, s string) bool {
	for _, x := range list {
		if x == s || x == "*" {
			return true
		}
	}
	return false
}

// literal reports whether the expanded values hold s, to the letter.
func literal(values []string, traits map[string][]string, s string) bool {
	return s != "" && matches(values, traits, s, false)
}

// pattern is literal, but a `*` that the role itself writes stands for any run of characters.
func pattern(values []string, traits map[string][]string, s string) bool {
	return s != "" && matches(values, traits, s, true)
}

func matches(values []string, traits map[string][]string, s string, globs bool) bool {
	for _, v := range values {
		if trait, is := role.Variable(v); is {
			if slices.Contains(role.Expand([]string{v}, traits), s) && trait != "" {
				return true
			}
			continue
		}
		if v == s || (globs && label.Glob(v, s)) {
			return true
		}
	}
	return false
}
