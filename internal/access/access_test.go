package access

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/access/strictest"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

func locked(by lock.Lock) func(*situation) {
	return func(s *situation) { by.Name = "l"; s.device("tpm_ekpub"); s.locks = append(s.locks, by) }
}

var isLocked = want{Locked, FromLock, "l"}

var lockRows = []row{
	{"nothing in the way", func(*situation) {}, want{"", FromRole, "access"}},
	{"lock on the user", locked(lock.Lock{Target: lock.Target{User: "alice"}}), isLocked},
	{"lock on another user", locked(lock.Lock{Target: lock.Target{User: "bob"}}), want{}},
	{"lock on a role", locked(lock.Lock{Target: lock.Target{Role: "access"}}), isLocked},
	{"lock on another role", locked(lock.Lock{Target: lock.Target{Role: "editor"}}), want{}},
	{"lock on the login", locked(lock.Lock{Target: lock.Target{Login: "root"}}), isLocked},
	{"lock on another login", locked(lock.Lock{Target: lock.Target{Login: "ubuntu"}}), want{}},
	{"lock on the device", locked(lock.Lock{Target: lock.Target{Device: "d1"}}), isLocked},
	{"lock on another device", locked(lock.Lock{Target: lock.Target{Device: "d2"}}), want{}},
	{"lock on a device, of a login without one", func(s *situation) { s.locks = []lock.Lock{{Target: lock.Target{Device: "d1"}}} }, want{}},
	{"lock on the credential", locked(lock.Lock{Target: lock.Target{DeviceCredential: "c1"}}), isLocked},
	{"lock on another credential", locked(lock.Lock{Target: lock.Target{DeviceCredential: "c2"}}), want{}},
	{"lock on the node", locked(lock.Lock{Target: lock.Target{ServerID: "n1"}}), isLocked},
	{"lock on another node", locked(lock.Lock{Target: lock.Target{ServerID: "n2"}}), want{}},
	{"lock on a node, which is to be removed", func(s *situation) {
		s.admin("node", "delete", role.Rule{Resources: []string{"node"}, Verbs: []string{"delete"}})
		s.target.ID = "n1"
		s.locks = []lock.Lock{{Target: lock.Target{ServerID: "n1"}}}
	}, want{}},
	{"lock on a second factor", func(s *situation) {
		s.who.MFADevice = "m1"
		s.locks = []lock.Lock{{Name: "l", Target: lock.Target{MFADevice: "m1"}}}
	}, isLocked},
	{"lock on another second factor", locked(lock.Lock{Target: lock.Target{MFADevice: "m1"}}), want{}},
	{"lock on two, of which one fits", locked(lock.Lock{Target: lock.Target{User: "alice", Login: "ubuntu"}}), want{}},
	{"lock on what was issued before", locked(lock.Lock{Target: lock.Target{User: "alice"}, IssuedBefore: noon}), isLocked},
	{"lock on what was issued before, issued after", locked(lock.Lock{Target: lock.Target{User: "alice"}, IssuedBefore: noon.Add(-2 * time.Hour)}), want{}},
	{"lock on what was issued before, issued then", locked(lock.Lock{Target: lock.Target{User: "alice"}, IssuedBefore: noon.Add(-time.Hour)}), want{}},
	{"lock still in force", locked(lock.Lock{Target: lock.Target{User: "alice"}, Expires: noon.Add(time.Second)}), isLocked},
	{"lock that has expired", locked(lock.Lock{Target: lock.Target{User: "alice"}, Expires: noon}), want{}},
	{"lock without a target", locked(lock.Lock{}), isLocked},
	{"lock that cannot be read", func(s *situation) { s.locks = []lock.Lock{*strictest.Lock("l")} }, isLocked},
	{"second of two locks", func(s *situation) {
		s.locks = []lock.Lock{{Name: "k", Target: lock.Target{User: "bob"}}, {Name: "l", Target: lock.Target{User: "alice"}}}
	}, isLocked},
}

func TestLocks(t *testing.T) { runRows(t, lockRows) }

var identityRows = []row{
	{"no name", func(s *situation) { s.who.Name = "" }, want{reason: NoIdentity}},
	{"name with a comma", func(s *situation) { s.who.Name = "alice,root" }, want{reason: NoIdentity}},
	{"login is over", func(s *situation) { s.who.Validity.Expires = noon }, want{ExpiredLogin, FromLogin, ""}},
	{"login lasts another second", func(s *situation) { s.who.Validity.Expires = noon.Add(time.Second) }, want{}},
	{"login without an end", func(s *situation) { s.who.Validity.Expires = time.Time{} }, want{reason: ExpiredLogin}},
	{"no clock", func(s *situation) { s.now = time.Time{} }, want{reason: ExpiredLogin}},
	{"pinned, from its address", func(s *situation) { s.who.PinnedIP = home }, want{}},
	{"pinned, from its address as IPv6", func(s *situation) { s.who.PinnedIP = netip.MustParseAddr("::ffff:192.0.2.7") }, want{}},
	{"pinned, from another address", func(s *situation) { s.who.PinnedIP = netip.MustParseAddr("192.0.2.8") }, want{WrongAddress, FromLogin, ""}},
	{"pinned, from nowhere", func(s *situation) { s.who.PinnedIP, s.action.From = home, netip.Addr{} }, want{WrongAddress, FromLogin, ""}},
	{"pin_source_ip, not pinned", func(s *situation) { s.role("access").Options.PinSourceIP = true }, want{WrongAddress, FromRole, "access"}},
	{"pin_source_ip, pinned", func(s *situation) { s.role("access").Options.PinSourceIP, s.who.PinnedIP = true, home }, want{}},
	{"pin_source_ip of a role for other nodes", func(s *situation) {
		r := s.role("other")
		r.Options.PinSourceIP, r.Allow.NodeLabels = true, label.Selector{"env": {"dev"}}
	}, want{}},
}

func TestIdentity(t *testing.T) { runRows(t, identityRows) }

var roleRows = []row{
	{"no roles", func(s *situation) { s.who.Roles = nil }, want{reason: NotGranted}},
	{"role that is not there", func(s *situation) { s.who.Roles = []string{"gone"} }, want{reason: NotGranted}},
	{"role that is not there, beside one that grants", func(s *situation) { s.who.Roles = []string{"gone", "access"} }, want{"", FromRole, "access"}},
	{"node_labels of another value", func(s *situation) { s.target.Labels = label.Set{"env": "dev"} }, want{reason: NotGranted}},
	{"node_labels of a node without labels", func(s *situation) { s.target.Labels = nil }, want{reason: NotGranted}},
	{"node_labels with a pattern", func(s *situation) { s.role("access").Allow.NodeLabels = label.Selector{"env": {"pr*"}} }, want{}},
	{"node_labels for all", func(s *situation) { s.role("access").Allow.NodeLabels, s.target.Labels = all, nil }, want{}},
	{"node_labels for none", func(s *situation) { s.role("access").Allow.NodeLabels = nil }, want{reason: NotGranted}},
	{"node_labels of two, one fits", func(s *situation) {
		s.role("access").Allow.NodeLabels = label.Selector{"env": {"prod"}, "team": {"db"}}
	}, want{reason: NotGranted}},
	{"db_labels do not open nodes", func(s *situation) { s.role("access").Allow.NodeLabels, s.role("access").Allow.DBLabels = nil, all }, want{reason: NotGranted}},
	{"another login", func(s *situation) { s.action.Login = "ubuntu" }, want{reason: NotGranted}},
	{"no login", func(s *situation) { s.action.Login = "" }, want{reason: NotGranted}},
	{"no login, to list", func(s *situation) { s.action = target.Action{Verb: "list"} }, want{}},
	{"login in other case", func(s *situation) { s.action.Login = "Root" }, want{reason: NotGranted}},
	{"login by trait", func(s *situation) { s.role("access").Allow.Logins = []string{"{{internal.logins}}"} }, want{}},
	{"login by external trait", func(s *situation) { s.role("access").Allow.Logins = []string{"{{external.logins}}"} }, want{}},
	{"login by a trait of other values", func(s *situation) {
		s.role("access").Allow.Logins, s.who.Traits = []string{"{{internal.logins}}"}, map[string][]string{"logins": {"ubuntu"}}
	}, want{reason: NotGranted}},
	{"star in logins is a letter", func(s *situation) { s.role("access").Allow.Logins = []string{"*"} }, want{reason: NotGranted}},
	{"star within logins is a letter", func(s *situation) { s.role("access").Allow.Logins = []string{"ro*"} }, want{reason: NotGranted}},
	{"star in a trait is a letter", func(s *situation) {
		s.role("access").Allow.Logins, s.who.Traits = []string{"{{internal.logins}}"}, map[string][]string{"logins": {"*"}}
	}, want{reason: NotGranted}},
	{"star in a trait, for databases too", func(s *situation) {
		s.database()
		s.role("access").Allow.DBUsers, s.who.Traits = []string{"{{internal.db_users}}"}, map[string][]string{"db_users": {"*"}}
	}, want{reason: NotGranted}},
	{"deny by login", func(s *situation) { s.role("deny").Deny.Logins = []string{"root"} }, want{DeniedByRole, FromRole, "deny"}},
	{"deny by login pattern", func(s *situation) { s.role("deny").Deny.Logins = []string{"r*"} }, want{DeniedByRole, FromRole, "deny"}},
	{"deny by another login", func(s *situation) { s.role("deny").Deny.Logins = []string{"ubuntu"} }, want{}},
	{"deny by node_labels", func(s *situation) { s.role("deny").Deny.NodeLabels = all }, want{DeniedByRole, FromRole, "deny"}},
	{"deny by other node_labels", func(s *situation) { s.role("deny").Deny.NodeLabels = label.Selector{"env": {"dev"}} }, want{}},
	{"deny in the role that grants", func(s *situation) { s.role("access").Deny.Logins = []string{"root"} }, want{DeniedByRole, FromRole, "access"}},
	{"role that cannot be read denies", func(s *situation) { s.role("broken").Deny = strictest.Role() }, want{DeniedByRole, FromRole, "broken"}},
	{"database by label, user and name", func(s *situation) { s.database() }, want{"", FromRole, "access"}},
	{"db_labels of another value", func(s *situation) { s.database(); s.role("access").Allow.DBLabels = label.Selector{"env": {"dev"}} }, want{reason: NotGranted}},
	{"db_users of another", func(s *situation) { s.database(); s.action.DBUser = "postgres" }, want{reason: NotGranted}},
	{"db_users of nobody", func(s *situation) { s.database(); s.action.DBUser = "" }, want{reason: NotGranted}},
	{"db_names of another", func(s *situation) { s.database(); s.action.DBName = "postgres" }, want{reason: NotGranted}},
	{"create_db_user_mode grants the login's own name", func(s *situation) { s.making() }, want{"", FromRole, "access"}},
	{"create_db_user_mode grants no other name", func(s *situation) { s.making(); s.action.DBUser = "bob" }, want{reason: NotGranted}},
	{"create_db_user_mode grants no name in other case", func(s *situation) { s.making(); s.action.DBUser = "Alice" }, want{reason: NotGranted}},
	{"create_db_user_mode grants no other database", func(s *situation) { s.making(); s.action.DBName = "postgres" }, want{reason: NotGranted}},
	{"create_db_user_mode off wins", func(s *situation) {
		s.making()
		s.role("other").Allow.DBLabels = all
		s.role("other").Options.CreateDBUserMode = "off"
	}, want{reason: NotGranted}},
	{"an unknown create_db_user_mode counts as off", func(s *situation) {
		s.making()
		s.role("other").Allow.DBLabels, s.role("other").Options.CreateDBUserMode = all, "sometimes"
	}, want{reason: NotGranted}},
	{"create_db_user_mode off for other databases", func(s *situation) {
		s.making()
		s.role("other").Allow.DBLabels, s.role("other").Options.CreateDBUserMode = label.Selector{"env": {"dev"}}, "off"
	}, want{}},
	{"replication is in no pattern", func(s *situation) {
		s.database()
		s.role("access").Allow.DBNames = []string{"*"}
		s.action.Verb = "replicate"
	}, want{reason: NotGranted}},
	{"replication to the letter", func(s *situation) {
		s.database()
		s.role("access").Allow.DBNames, s.action.Verb = []string{"orders", "replication"}, "replicate"
	}, want{}},
	{"replication of everything", func(s *situation) {
		s.database()
		s.role("access").Allow.DBNames, s.action.Verb, s.action.DBName = []string{"replication"}, "replicate", "replication"
	}, want{}},
	{"replication denied", func(s *situation) {
		s.database()
		s.role("access").Allow.DBNames, s.action.Verb = []string{"orders", "replication"}, "replicate"
		s.role("deny").Deny.DBNames = []string{"repl*"}
	}, want{DeniedByRole, FromRole, "deny"}},
	{"database to list", func(s *situation) { s.database(); s.action = target.Action{Verb: "list"} }, want{}},
	{"deny by db_users", func(s *situation) { s.database(); s.role("deny").Deny.DBUsers = []string{"reader"} }, want{DeniedByRole, FromRole, "deny"}},
	{"deny by db_names", func(s *situation) { s.database(); s.role("deny").Deny.DBNames = []string{"ord*"} }, want{DeniedByRole, FromRole, "deny"}},
	{"deny by db_labels", func(s *situation) { s.database(); s.role("deny").Deny.DBLabels = all }, want{DeniedByRole, FromRole, "deny"}},
	{"cluster by kubernetes_labels", func(s *situation) { s.kube("get", pod("dev", "web")) }, want{}},
	{"cluster without kubernetes_labels", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesLabels = nil
	}, want{reason: NotGranted}},
	{"deny by kubernetes_labels", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesLabels, s.role("access").Deny.KubernetesLabels = all, all
	}, want{reason: DeniedByRole}},
	{"application by app_labels", func(s *situation) { s.target.Kind = target.App; s.role("access").Allow.AppLabels = all }, want{}},
	{"application without app_labels", func(s *situation) { s.target.Kind = target.App }, want{reason: NotGranted}},
	{"deny by app_labels", func(s *situation) {
		s.target.Kind = target.App
		s.role("access").Allow.AppLabels, s.role("access").Deny.AppLabels = all, all
	}, want{reason: DeniedByRole}},
	{"target of an unknown kind", func(s *situation) { s.target.Kind = "mainframe" }, want{reason: NotGranted}},
	{"several roles grant, the first by name is told", func(s *situation) {
		s.role("aaa").Allow = s.role("access").Allow
	}, want{"", FromRole, "aaa"}},
}

func TestRoles(t *testing.T) { runRows(t, roleRows) }

func rule(kind, verb, where string) role.Rule {
	return role.Rule{Resources: []string{kind}, Verbs: []string{verb}, Where: where}
}

// onObject is a verb on one resource.
func onObject(r role.Rule, object map[string]any) func(*situation) {
	return func(s *situation) { s.admin("device", "read", r); s.target.Object = object }
}

var hers, his = map[string]any{"owner": "alice"}, map[string]any{"owner": "bob"}

const broken, mine = "resource.owner ==", "resource.owner == user.name"

func denying(kind, where string, object map[string]any) func(*situation) {
	return func(s *situation) {
		s.admin(kind, "read", rule(kind, "read", ""))
		s.target.Object = object
		s.role("deny").Deny.Rules = []role.Rule{rule(kind, "read", where)}
	}
}

var isDenied = want{DeniedByRole, FromRole, "deny"}

var ruleRows = []row{
	{"rule", func(s *situation) { s.admin("role", "read", rule("role", "read", "")) }, want{"", FromRole, "access"}},
	{"rule of another verb", func(s *situation) { s.admin("role", "delete", rule("role", "read", "")) }, want{reason: NotGranted}},
	{"rule of another kind", func(s *situation) { s.admin("user", "read", rule("role", "read", "")) }, want{reason: NotGranted}},
	{"rule of every verb", func(s *situation) { s.admin("role", "delete", rule("role", "*", "")) }, want{}},
	{"rule of every kind", func(s *situation) { s.admin("user", "read", rule("*", "read", "")) }, want{}},
	{"rule of every verb, and none is asked", func(s *situation) { s.admin("role", "", rule("role", "*", "")) }, want{reason: NotGranted}},
	{"second of two rules", func(s *situation) { s.admin("role", "read", rule("role", "list", ""), rule("role", "read", "")) }, want{}},
	{"no rules", func(s *situation) { s.admin("role", "read") }, want{reason: NotGranted}},
	{"where holds", onObject(rule("device", "read", mine), hers), want{}},
	{"where does not hold", onObject(rule("device", "read", mine), his), want{reason: NotGranted}},
	{"where by roles of the user", onObject(rule("device", "read", `"access" in user.roles && user.kind == "human"`), hers), want{}},
	{"where by traits of the user", onObject(rule("device", "read", `"root" in user.traits.logins`), hers), want{}},
	{"where fails on what is not there", onObject(rule("device", "read", `resource.colour == "red"`), hers), want{reason: NotGranted}},
	{"where on a kind as a whole", onObject(rule("device", "read", mine), nil), want{}},
	{"where on a kind that is never asked for by object", func(s *situation) { s.admin("event", "list", rule("event", "list", mine)) }, want{reason: NotGranted}},
	{"where that is broken", onObject(rule("device", "read", broken), hers), want{reason: NotGranted}},
	{"where that is broken, on a kind as a whole", onObject(rule("device", "read", broken), nil), want{reason: NotGranted}},
	{"where that gives a number", onObject(rule("device", "read", "1 + 1"), hers), want{reason: NotGranted}},
	{"where that is endless", onObject(rule("device", "read", `[1,2,3,4,5,6,7,8,9].all(a, [1,2,3,4,5,6,7,8,9].all(b, [1,2,3,4,5,6,7,8,9].all(c, [1,2,3,4,5,6,7,8,9].all(d, [1,2,3,4,5,6,7,8,9].all(e, true)))))`), hers), want{reason: NotGranted}},
	{"deny rule", denying("device", "", hers), isDenied},
	{"deny rule, on a kind as a whole", denying("device", "", nil), isDenied},
	{"deny where holds", denying("device", mine, hers), isDenied},
	{"deny where does not hold", denying("device", mine, his), want{}},
	{"deny where fails", denying("device", `resource.colour == "red"`, hers), isDenied},
	{"deny where that is broken", denying("device", broken, hers), isDenied},
	{"deny where on a kind as a whole", denying("device", mine, nil), want{}},
	{"deny where that is broken, on a kind as a whole", denying("device", broken, nil), isDenied},
	{"deny where on a kind that is never asked for by object", denying("event", mine, nil), isDenied},
	{"deny rule of another verb", func(s *situation) {
		s.admin("role", "read", rule("role", "*", ""))
		s.role("deny").Deny.Rules = []role.Rule{rule("role", "delete", "")}
	}, want{}},
}

func TestRules(t *testing.T) { runRows(t, ruleRows) }

// TestZeroValuesRefuse holds it for the zero Input and for each part of a granted one.
func TestZeroValuesRefuse(t *testing.T) {
	if d := Decide(Input{}); d.Allowed {
		t.Error("the zero Input is allowed")
	}
	if (Decision{}).Allowed || Refusal(Decision{}, Input{Identity: &identity.User{}}) == nil {
		t.Error("the zero Decision allows")
	}
	for name, zero := range map[string]func(*Input){
		"Identity": func(in *Input) { in.Identity = nil }, "User": func(in *Input) { in.Identity = &identity.User{} },
		"Target": func(in *Input) { in.Target = target.Target{} }, "Action": func(in *Input) { in.Action = target.Action{} },
		"Roles": func(in *Input) { in.Roles = nil }, "Now": func(in *Input) { in.Now = time.Time{} },
		"Settings": func(in *Input) { in.Settings.DeviceTrust.Mode = "" },
		"Policy":   func(in *Input) { in.Roles = map[string]*Policy{"access": {}} },
		"Lock":     func(in *Input) { in.Locks = lock.NewSet(lock.Lock{}) },
	} {
		in := granted().input()
		zero(&in)
		if d := Decide(in); d.Allowed {
			t.Errorf("zero %s is allowed", name)
		}
	}
}

// TestA31LockMessage brings an administrator's words to the person, and nothing that their terminal would obey.
func TestA31LockMessage(t *testing.T) {
	s := granted()
	s.locks = []lock.Lock{{Name: "l", Target: lock.Target{User: "alice"}, Message: "laptop lost\n\x1b]0;owned\x07\u009b2J"}}
	in := s.input()
	f := Refusal(Decide(in), in)
	if f == nil || !strings.HasPrefix(f.Cause, "laptop lost  ]0;owned") || strings.ContainsAny(f.Lines(), "\x1b\x07\u009b") {
		t.Fatalf("%q", f.Lines())
	}
}

// TestRemedyNames: the command that a refusal shows asks what was asked, and is never more than a command.
func TestRemedyNames(t *testing.T) {
	for name, want := range map[string]string{"bob": " --db-user=bob --db-name=bob", "a_b-c.d@e": " --db-user=a_b-c.d@e --db-name=a_b-c.d@e", "$(id)": "", "a b": "", "x;y": "", "`id`": "", "a\nb": "", "é": ""} {
		s := granted()
		s.database()
		in := s.input()
		in.Action.DBUser, in.Action.DBName = name, name
		fix := Refusal(Decide(in), in).Fix
		if command, found := strings.CutPrefix(fix, "ask an administrator: tctl access explain --user=alice --resource="); !found || !strings.HasSuffix(command, "/"+in.Target.Name+want) {
			t.Errorf("%q: %s", name, fix)
		}
	}
	s := granted()
	in := s.input()
	for name, want := range map[string]string{"bob": " --login=bob", "$(id)": ""} {
		in.Action.Login = name
		if fix := Refusal(Decide(in), in).Fix; !strings.HasSuffix(fix, "/"+in.Target.Name+want) {
			t.Errorf("%q: %s", name, fix)
		}
	}
}
