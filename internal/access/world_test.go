package access

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

var (
	noon = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	home = netip.MustParseAddr("192.0.2.7")
	all  = label.Selector{"*": {"*"}}
)

// situation is an Input before its roles are compiled.
type situation struct {
	who      identity.User
	target   target.Target
	action   target.Action
	roles    []role.Role
	locks    []lock.Lock
	settings cluster.Settings
	now      time.Time
}

// granted is a situation that is allowed: alice, without a device, as root on a node, by one role.
func granted() *situation {
	return &situation{
		who: identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, Roles: []string{"access"},
			Traits: map[string][]string{"logins": {"root"}}, KeyPolicy: identity.KeyAnywhere,
			Grant:    identity.Grant{PTY: true, PortForwarding: true, AgentForwarding: true},
			Validity: identity.Validity{IssuedAt: noon.Add(-time.Hour), Expires: noon.Add(time.Hour)}},
		target:   target.Target{Kind: target.Node, ID: "n1", Name: "web-1", Labels: label.Set{"env": "prod"}},
		action:   target.Action{Login: "root", From: home},
		roles:    []role.Role{{Name: "access", Allow: role.Conditions{Logins: []string{"root"}, NodeLabels: label.Selector{"env": {"prod"}}}}},
		settings: cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOff}},
		now:      noon,
	}
}

func (s *situation) input() Input {
	in := Input{Identity: &s.who, Target: s.target, Action: s.action, Roles: map[string]*Policy{}, Locks: lock.NewSet(s.locks...), Settings: s.settings, Now: s.now}
	for _, r := range s.roles {
		in.Roles[r.Name], _ = Compile(r) // one that does not compile is there and admits nobody
	}
	return in
}

// role is the situation's role of a name, which it makes and gives to the user where there is none.
func (s *situation) role(name string) *role.Role {
	for i := range s.roles {
		if s.roles[i].Name == name {
			return &s.roles[i]
		}
	}
	s.roles = append(s.roles, role.Role{Name: name})
	s.who.Roles = append(s.who.Roles, name)
	return &s.roles[len(s.roles)-1]
}

// device gives the user a device of a level, its session key where such a level keeps it.
func (s *situation) device(l device.Level) {
	s.who.Device = &identity.Device{ID: "d1", AssetTag: "T1", CredentialID: "c1", Level: l, OS: device.Linux, Claims: device.Claims{OSVersion: "22.04"}}
	s.who.KeyPolicy = identity.KeyAnywhere
	if l.Hardware() {
		s.who.KeyPolicy = identity.KeyHardware
	}
}

// admin turns the situation to a verb on a resource kind, by rules of the role.
func (s *situation) admin(kind, verb string, rules ...role.Rule) {
	s.target, s.action = target.Target{Kind: target.Administration, Name: kind}, target.Action{Verb: verb, From: home}
	s.role("access").Allow = role.Conditions{Rules: rules}
}

// database turns the situation to a database.
func (s *situation) database() {
	s.target = target.Target{Kind: target.Database, ID: "db1", Name: "orders", Labels: label.Set{"env": "prod"}}
	s.action = target.Action{DBUser: "reader", DBName: "orders", From: home}
	s.role("access").Allow = role.Conditions{DBLabels: all, DBUsers: []string{"read*"}, DBNames: []string{"orders"}}
}

// kube turns the situation to a Kubernetes cluster.
func (s *situation) kube(verb string, o *target.KubeObject) {
	s.target = target.Target{Kind: target.Kube, ID: "dev", Name: "dev", Labels: label.Set{"env": "prod"}}
	s.action = target.Action{Verb: verb, Kube: o, From: home}
	s.role("access").Allow = role.Conditions{KubernetesLabels: all}
	s.who.Traits["team"] = []string{"blue", "r*d"}
}

func pod(namespace, name string) *target.KubeObject {
	return &target.KubeObject{Resource: "pods", Namespace: namespace, Name: name}
}

// making turns the situation to a database where alice's user is made on demand.
func (s *situation) making() {
	s.database()
	s.action.DBUser = "alice"
	r := s.role("access")
	r.Options.CreateDBUserMode, r.Allow.DBUsers, r.Allow.DBRoles = role.DBUsersKeep, nil, []string{"writers", "readers", "{{external.team}}", "*"}
	s.who.Traits["team"] = []string{"blue", "r*d"}
}

// want is a decision as a row expects it. An empty reason means that it is granted.
type want struct {
	reason Reason
	kind   SourceKind
	name   string
}

type row struct {
	name   string
	change func(s *situation)
	want
}

func runRows(t *testing.T, rows []row) {
	t.Helper()
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s := granted()
			r.change(s)
			in := s.input()
			d := Decide(in)
			w := r.want
			if w.reason == "" {
				w = want{Granted, FromRole, w.name}
			}
			if d.Allowed != (w.reason == Granted) || d.Reason != w.reason || (w.kind != "" && d.Source.Kind != w.kind) || (w.name != "" && d.Source.Name != w.name) {
				t.Errorf("got %+v\nwant %+v", d, w)
			}
			if f := Refusal(d, in); (f == nil) != d.Allowed || f != nil && (f.Text == "" || f.Cause == "" || f.Reason == "") {
				t.Errorf("the refusal says %+v", f)
			}
		})
	}
}
