package access

import (
	"fmt"
	"reflect"
	"slices"

	"github.com/sallyport/sallyport/internal/access/objects"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Policy is a role made ready to be asked: its predicates compiled.
type Policy struct {
	name    string
	options role.Options
	allow   side
	deny    side
	version device.VersionRule // of the requirements; the zero one is met by nothing
	mode    device.Mode        // what the role demands: its mode, or required where it has requirements alone
	inert   bool
	denying bool // its deny side says something
}

// side is one side of a role with what a decision needs taken apart beforehand.
type side struct {
	role.Conditions
	where                    []*predicate
	logins, dbUsers, dbNames []value
	dbRoles                  []value
	kube                     kubernetes
	node, db, app            selector
}

// Compile makes a role ready. A role with options that this build does not enforce, or with a predicate that does
// not compile, still denies and demands, and admits nobody; the error says why.
func Compile(r role.Role) (*Policy, error) {
	p := &Policy{name: r.Name, options: r.Options, allow: newSide(r.Allow), deny: newSide(r.Deny)}
	p.mode, p.denying = r.Options.DeviceTrustMode, !reflect.ValueOf(r.Deny).IsZero()
	if r.Options.DeviceRequirements != nil && !p.mode.Demands() {
		p.mode = device.ModeRequired // else a login without a device would do where one with a weak device does not
	}
	var err error
	if q := r.Options.DeviceRequirements; q != nil && q.OSVersion != "" {
		p.version, _ = device.ParseVersionRule(q.OSVersion)
	}
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

func newSide(c role.Conditions) side {
	return side{Conditions: c, logins: newValues(c.Logins), dbUsers: newValues(c.DBUsers), dbNames: newValues(c.DBNames), dbRoles: newValues(c.DBRoles),
		kube: kubernetes{newSelector(c.KubernetesLabels), newValues(c.KubernetesUsers), newValues(c.KubernetesGroups), objects.New(c.KubernetesResources)},
		node: newSelector(c.NodeLabels), db: newSelector(c.DBLabels), app: newSelector(c.AppLabels)}
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
	return p.allow.labels(t.Kind).matches(t.Labels)
}

// grants reports whether the role's allow side, which selects the target, grants the action on it.
func (p *Policy) grants(in *Input) bool {
	if p.inert {
		return false
	}
	traits, a := in.Identity.Traits, &in.Action
	switch in.Target.Kind {
	case target.Node:
		return a.Login == "" && a.Verb == "list" || literal(p.allow.logins, traits, a.Login)
	case target.Database:
		if a.Verb == "list" {
			return true
		}
		return pattern(p.allow.dbUsers, traits, a.DBUser) && p.names(in)
	case target.Kube:
		return p.allow.kube.objects.Grants(a.Verb, a.Kube)
	case target.App:
		return true
	case target.Administration:
		return a.Verb != "" && p.allow.rule(in, true)
	}
	return false
}

// names reports whether the role's allow side, which selects the database, grants the name asked for there, and
// replication where that is asked for: to the letter, for a copy of everything is more than every name.
func (p *Policy) names(in *Input) bool {
	traits, a := in.Identity.Traits, &in.Action
	if a.DBName != "" && !pattern(p.allow.dbNames, traits, a.DBName) {
		return false
	}
	return a.Verb != target.Replicate || literal(p.allow.dbNames, traits, target.Replication)
}

// makes reports whether the role, which selects the database, has the user of the login's own name made there. Where none
// can be made it lets nobody in: the server's user of that name is not the login's.
func (p *Policy) makes(in *Input) bool {
	return !p.inert && in.Target.Kind == target.Database && p.options.CreateDBUserMode == role.DBUsersKeep &&
		in.Action.DBUser == in.Identity.Name && !in.Action.AsIs && in.Action.Verb != "list" && p.names(in)
}

// denies reports whether the role's deny side refuses the action on the target. A deny side that selects by labels
// alone, with no login or database user, refuses every one of them.
func (p *Policy) denies(in *Input) bool {
	traits, a, t := in.Identity.Traits, &in.Action, &in.Target
	if t.Kind == target.Administration {
		return p.deny.rule(in, false)
	}
	if p.deny.labels(t.Kind).matches(t.Labels) {
		return true
	}
	switch t.Kind {
	case target.Node:
		return a.Login != "" && pattern(p.deny.logins, traits, a.Login)
	case target.Database:
		return (a.DBUser != "" && pattern(p.deny.dbUsers, traits, a.DBUser)) ||
			(a.DBName != "" && pattern(p.deny.dbNames, traits, a.DBName)) ||
			(a.Verb == target.Replicate && pattern(p.deny.dbNames, traits, target.Replication))
	case target.Kube:
		return p.deny.kube.objects.Denies(a.Verb, a.Kube)
	}
	return false
}

func (s *side) labels(k target.Kind) selector {
	switch k {
	case target.Node:
		return s.node
	case target.Database:
		return s.db
	case target.Kube:
		return s.kube.labels
	case target.App:
		return s.app
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
var askedByObject = []string{"user", "role", "device", "lock", "token", "cluster_auth_preference", "node", "db", "kube_cluster", "recording"}

func names(list []string, s string) bool {
	for _, x := range list {
		if x == s || x == "*" {
			return true
		}
	}
	return false
}
