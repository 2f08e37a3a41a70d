package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/access/strictest"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// situations is how many random ones are tried.
const situations = 20_000

var allModes = []device.Mode{"", "off", "optional", "required-for-humans", "required", "sometimes"}

func one[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// chance is true once in n.
func chance(r *rand.Rand, n int) bool { return r.IntN(n) == 0 }

func randomConditions(r *rand.Rand) role.Conditions {
	selectors := []label.Selector{nil, {"*": {"*"}}, {"env": {"prod"}}, {"env": {"dev"}}, {"env": {"p*"}, "team": {"db"}}}
	logins := []string{"root", "ubuntu", "*", "{{internal.logins}}", "{{external.logins}}", "r*"}
	var c role.Conditions
	c.NodeLabels, c.DBLabels, c.KubernetesLabels, c.AppLabels = one(r, selectors...), one(r, selectors...), one(r, selectors...), one(r, selectors...)
	for range r.IntN(3) {
		c.DBRoles = append(c.DBRoles, one(r, "readers", "writers", "{{internal.logins}}"))
		c.Logins, c.DBUsers, c.DBNames = append(c.Logins, one(r, logins...)), append(c.DBUsers, one(r, logins...)), append(c.DBNames, one(r, logins...))
	}
	for range r.IntN(2) {
		c.Rules = append(c.Rules, role.Rule{Resources: []string{one(r, "role", "user", "*")}, Verbs: []string{one(r, "read", "update", "*")}})
	}
	for range r.IntN(2) {
		c.KubernetesResources = append(c.KubernetesResources, role.KubeResource{Kind: one(r, "*", "pods", "pod", "secrets"), Namespace: one(r, "", "*", "dev", "prod"),
			Name: one(r, "*", "web", "w*"), Verbs: []string{one(r, "*", "read", "update")}})
	}
	return c
}

func randomRole(r *rand.Rand, name string) role.Role {
	x := role.Role{Name: name, Allow: randomConditions(r)}
	if chance(r, 8) {
		x.Deny = randomConditions(r)
	}
	o := &x.Options
	if chance(r, 2) {
		o.DeviceTrustMode = one(r, allModes...)
	}
	if chance(r, 4) {
		q := &role.Requirements{SessionKey: one(r, "", "", "hardware"), OSVersion: one(r, "", "", ">=20", "<10"), SecureBoot: chance(r, 10)}
		for range r.IntN(4) {
			q.Attestation = append(q.Attestation, one(r, append(device.Levels(), device.LevelSoftware, "quantum")...))
		}
		o.DeviceRequirements = q
	}
	o.PinSourceIP, o.ForwardAgent, o.Lock = chance(r, 12), chance(r, 2), one(r, "", "strict", "best_effort")
	o.RequireSessionMFA = chance(r, 20)
	o.CreateDBUserMode = one[role.DBUserMode](r, "", "", "keep", "keep", "off", "sometimes")
	return x
}

func randomLock(r *rand.Rand) lock.Lock {
	l := lock.Lock{Name: fmt.Sprint("l", r.IntN(9))}
	switch r.IntN(6) {
	case 0:
		l.Target.User = one(r, "alice", "bob")
	case 1:
		l.Target.Role = one(r, "r0", "r1", "r2")
	case 2:
		l.Target.Login = one(r, "root", "ubuntu")
	case 3:
		l.Target.Device = one(r, "d1", "d2")
	case 4:
		l.Target.DeviceCredential = one(r, "c1", "c2")
	case 5:
		l.Target.ServerID = one(r, "n1", "n2")
	}
	if chance(r, 3) {
		l.IssuedBefore = noon.Add(time.Duration(r.IntN(4)-2) * time.Hour)
	}
	if chance(r, 3) {
		l.Expires = noon.Add(time.Duration(r.IntN(3)-1) * time.Minute)
	}
	return l
}

func randomSituation(r *rand.Rand) *situation {
	s := granted()
	s.who.Name, s.who.Kind = one(r, "alice", "bob"), one(r, identity.Human, identity.Bot, "")
	s.who.Traits = map[string][]string{"logins": {one(r, "root", "ubuntu", "*")}}
	s.who.Roles, s.roles = nil, nil
	for i := range 1 + r.IntN(5) {
		x := randomRole(r, fmt.Sprint("r", i))
		s.roles, s.who.Roles = append(s.roles, x), append(s.who.Roles, x.Name)
	}
	if chance(r, 8) {
		s.who.Roles = append(s.who.Roles, "gone", "r0")
	}
	if !chance(r, 3) {
		s.device(one(r, append(device.Levels(), "quantum")...))
		s.who.Device.ID, s.who.Device.CredentialID = one(r, "d1", "d2"), one(r, "c1", "c2", "c1", "")
		s.who.Device.Claims.OSVersion = one(r, "22.04", "9", "")
	}
	if chance(r, 3) {
		s.who.PinnedIP = one(r, home, netip.MustParseAddr("192.0.2.8"))
	}
	s.target = target.Target{Kind: one(r, target.Node, target.Node, target.Database, target.Kube, target.App, target.Administration),
		ID: one(r, "n1", "n2"), Name: one(r, "role", "user"), Labels: one(r, label.Set{"env": "prod"}, label.Set{"env": "prod", "team": "db"}, nil)}
	s.action = target.Action{Login: one(r, "root", "ubuntu", "*"), DBUser: one(r, "root", "*", "alice", "bob"), DBName: one(r, "root", "replication"), Verb: one(r, "read", "update", "replicate"), From: home}
	if s.target.Kind == target.Kube {
		s.action.Kube = one(r, nil, &target.KubeObject{Resource: one(r, "pods", "secrets"), Namespace: one(r, "", "dev"), Name: one(r, "", "web")}, &target.KubeObject{Path: "/metrics"})
	}
	if chance(r, 3) {
		s.locks = append(s.locks, randomLock(r))
	}
	s.settings = cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: one(r, allModes[1:]...)}}
	return s
}

// taking are the ways to take something from a situation. None may turn a refusal into a grant.
var taking = map[string]func(r *rand.Rand, s *situation){
	"the device": func(_ *rand.Rand, s *situation) { s.who.Device, s.who.KeyPolicy = nil, identity.KeyAnywhere },
	"the device, by half": func(r *rand.Rand, s *situation) {
		if s.who.Device != nil {
			d := *s.who.Device
			*one(r, &d.ID, &d.AssetTag, &d.CredentialID) = ""
			s.who.Device = &d
		}
	},
	"by a lock": func(r *rand.Rand, s *situation) {
		l := randomLock(r)
		l.Name += "-added" // one of a name that is there would take that one's place
		s.locks = append(slices.Clone(s.locks), l)
	},
	"by the cluster's mode": func(r *rand.Rand, s *situation) {
		if m := one(r, allModes...); m == "" || m.Stricter(s.settings.DeviceTrust.Mode) {
			s.settings.DeviceTrust.Mode = m
		}
	},
	"by a role's mode": func(r *rand.Rand, s *situation) {
		s.roles = slices.Clone(s.roles)
		x := &s.roles[r.IntN(len(s.roles))]
		p, _ := Compile(*x) // requirements without a mode mean required, so that required-for-humans is less
		if m := one(r, allModes...); m.Stricter(p.mode) {
			x.Options.DeviceTrustMode = m
		}
	},
	"by a role's requirements": func(r *rand.Rand, s *situation) {
		s.roles = slices.Clone(s.roles)
		x := &s.roles[r.IntN(len(s.roles))]
		if x.Options.DeviceRequirements == nil {
			x.Options.DeviceRequirements = &role.Requirements{OSVersion: ">=20"}
			return
		}
		q := *x.Options.DeviceRequirements
		q.SessionKey = "hardware"
		x.Options.DeviceRequirements = &q
	},
	"by a deny side": func(r *rand.Rand, s *situation) {
		s.roles = slices.Clone(s.roles)
		x := &s.roles[r.IntN(len(s.roles))]
		if len(x.Deny.NodeLabels)+len(x.Deny.DBLabels)+len(x.Deny.Logins)+len(x.Deny.Rules) == 0 {
			x.Deny = randomConditions(r)
		}
	},
	"by create_db_user_mode": func(r *rand.Rand, s *situation) {
		s.roles = slices.Clone(s.roles)
		s.roles[r.IntN(len(s.roles))].Options.CreateDBUserMode = one[role.DBUserMode](r, "off", "sometimes")
	},
	"a granting role": func(_ *rand.Rand, s *situation) {
		s.roles = slices.Clone(s.roles)
		s.roles[0].Allow.Logins, s.roles[0].Allow.Rules = nil, nil
		if s.target.Kind == target.Administration { // then the role's mode goes with its rules
			s.roles[0].Options = role.Options{}
			s.roles[0].Allow = role.Conditions{}
			s.roles = append(s.roles[:0:0], s.roles[1:]...)
			s.roles = append(s.roles, role.Role{Name: "r0", Deny: strictest.Role()})
		}
	},
	"the address": func(_ *rand.Rand, s *situation) { s.action.From = netip.Addr{} },
	"time": func(r *rand.Rand, s *situation) {
		s.who.Validity.Expires = noon.Add(-time.Duration(r.IntN(2)) * time.Hour)
	},
	"that it is a bot": func(_ *rand.Rand, s *situation) { s.who.Kind = identity.Human },
}

// TestTakingNeverOpens holds that no random situation that is refused is allowed with less.
func TestTakingNeverOpens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	seen, closed := map[Reason]int{}, map[string]int{}
	for i := range situations {
		s := randomSituation(r)
		before := Decide(s.input())
		seen[before.Reason]++
		for name, take := range taking {
			c := *s
			take(rand.New(rand.NewPCG(3, uint64(i))), &c)
			after := Decide(c.input())
			if before.Reason == Locked && strings.HasPrefix(name, "the device") {
				continue // a lock on a device is not on those who come without it
			}
			if after.Allowed && !before.Allowed {
				t.Fatalf("situation %d: taking %s turned %+v into %+v\n%+v", i, name, before, after, *s)
			}
			if before.Allowed && !after.Allowed {
				closed[name]++
			}
		}
	}
	for _, reason := range []Reason{Granted, Locked, DeniedByRole, NotGranted, NoDevice, WeakDevice, SoftwareDevice, WrongAddress} {
		if seen[reason] < situations/200 {
			t.Errorf("only %d of %d situations end with %q: the generator is too narrow", seen[reason], situations, reason)
		}
	}
	for name := range taking {
		if closed[name] == 0 {
			t.Errorf("taking %s never closed anything", name)
		}
	}
	t.Log(seen, closed)
}

// TestOrderNeverMatters holds that a decision is the same, to the last letter, whatever the order of roles.
func TestOrderNeverMatters(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for i := range situations {
		s := randomSituation(r)
		in := s.input()
		before := Decide(in)
		for range 3 {
			who := s.who
			who.Roles = slices.Clone(s.who.Roles)
			r.Shuffle(len(who.Roles), func(a, b int) { who.Roles[a], who.Roles[b] = who.Roles[b], who.Roles[a] })
			in.Identity = &who
			if after := Decide(in); after != before {
				t.Fatalf("situation %d: roles %v give %+v, roles %v give %+v", i, s.who.Roles, before, who.Roles, after)
			}
		}
	}
}

// BenchmarkDecide20Roles is a login with 20 roles and a device, 10 locks in force, on a node that all roles match; each
// role demands, and one in five denies.
func BenchmarkDecide20Roles(b *testing.B) {
	s := granted()
	s.device(device.LevelTPMTrusted)
	s.who.Roles, s.roles = nil, nil
	for i := range 20 {
		name := fmt.Sprintf("role-%02d", i)
		s.who.Roles = append(s.who.Roles, name)
		s.roles = append(s.roles, role.Role{Name: name,
			Options: role.Options{DeviceTrustMode: "required", DeviceRequirements: &role.Requirements{Attestation: device.Levels()}},
			Allow:   role.Conditions{Logins: []string{"{{internal.logins}}"}, NodeLabels: label.Selector{"env": {"prod", "dev"}}}})
		if i%5 == 0 {
			s.roles[i].Deny.Logins = []string{"nobody"}
		}
	}
	for i := range 10 {
		s.locks = append(s.locks, lock.Lock{Name: fmt.Sprint(i), Target: lock.Target{User: fmt.Sprint("user-", i)}})
	}
	in := s.input()
	if d := Decide(in); !d.Allowed {
		b.Fatal(d)
	}
	b.ReportAllocs()
	for b.Loop() {
		Decide(in)
	}
}
