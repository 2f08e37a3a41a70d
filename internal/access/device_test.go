package access

import (
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/access/strictest"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

var (
	byRole    = want{NoDevice, FromRole, "access"}
	byCluster = want{NoDevice, FromCluster, ""}
)

// mode sets the cluster's mode and the role's.
func mode(clusters, roles device.Mode) func(*situation) {
	return func(s *situation) {
		s.settings.DeviceTrust.Mode = clusters
		s.role("access").Options.DeviceTrustMode = roles
	}
}

func and(steps ...func(*situation)) func(*situation) {
	return func(s *situation) {
		for _, f := range steps {
			f(s)
		}
	}
}

func onDevice(l device.Level) func(*situation) { return func(s *situation) { s.device(l) } }

// demandOf makes the role access demand something of the device.
func demandOf(q role.Requirements) func(*situation) {
	return func(s *situation) { s.role("access").Options.DeviceRequirements = &q }
}

// bot makes the user a bot, with a pinned address or without.
func bot(pinned bool) func(*situation) {
	return func(s *situation) {
		s.who.Kind = identity.Bot
		if pinned {
			s.who.PinnedIP = home
		}
	}
}

var modeRows = []row{
	{"off everywhere", mode("off", "off"), want{}},
	{"optional everywhere", mode("optional", "optional"), want{}},
	{"cluster requires, no device", mode("required", ""), byCluster},
	{"cluster requires, role is off", mode("required", "off"), byCluster},
	{"cluster requires, device", and(mode("required", ""), onDevice(device.LevelTPMPub)), want{}},
	{"role requires, no device", mode("off", "required"), byRole},
	{"role requires, device", and(mode("off", "required"), onDevice(device.LevelEnclave)), want{}},
	{"both require: the role is named", mode("required", "required"), byRole},
	{"cluster is stricter: the cluster is named", mode("required", "required-for-humans"), byCluster},
	{"role is stricter: the role is named", mode("required-for-humans", "required"), byRole},
	{"settings never read", mode("", ""), byCluster},
	{"settings that cannot be read", func(s *situation) { s.settings = *strictest.Settings() }, byCluster},
	{"unknown mode of the cluster", mode("sometimes", ""), byCluster},
	{"unknown mode of a role", mode("off", "sometimes"), byRole},
	{"unknown mode, a bot with a pinned address", and(mode("off", "sometimes"), bot(true)), byRole},
	{"unknown mode, device", and(mode("sometimes", "sometimes"), onDevice(device.LevelTPMCert)), want{}},
	{"unknown level is no device", and(mode("off", "required"), onDevice("quantum")), byRole},
	{"device without a credential is none", and(mode("off", "required"), onDevice(device.LevelTPMPub), func(s *situation) { s.who.Device.CredentialID = "" }), byRole},
	{"device without a tag is none", and(mode("off", "required"), onDevice(device.LevelTPMPub), func(s *situation) { s.who.Device.AssetTag = "" }), byRole},
	{"device without an id is none", and(mode("off", "required"), onDevice(device.LevelTPMPub), func(s *situation) { s.who.Device.ID = "" }), byRole},
	{"mode of a role for other nodes", func(s *situation) {
		r := s.role("other")
		r.Options.DeviceTrustMode, r.Allow.NodeLabels = "required", label.Selector{"env": {"dev"}}
	}, want{}},
	{"mode of a role that matches and does not grant", func(s *situation) {
		r := s.role("other")
		r.Options.DeviceTrustMode, r.Allow.NodeLabels = "required", all
	}, want{NoDevice, FromRole, "other"}},
	{"mode of a role that the user has not", func(s *situation) {
		s.role("other").Options.DeviceTrustMode, s.role("other").Allow.NodeLabels = "required", all
		s.who.Roles = []string{"access"}
	}, want{}},
	{"of two roles of one mode the first by name is told", func(s *situation) {
		for _, name := range []string{"zzz", "aaa"} {
			r := s.role(name)
			r.Options.DeviceTrustMode, r.Allow.NodeLabels = "required", all
		}
	}, want{NoDevice, FromRole, "aaa"}},
	{"mode bears on administration", func(s *situation) {
		s.admin("role", "read", rule("role", "read", ""))
		s.role("access").Options.DeviceTrustMode = "required"
	}, byRole},
	{"mode bears on a kind whatever the verb", func(s *situation) {
		s.admin("role", "read", rule("role", "read", ""))
		r := s.role("other")
		r.Options.DeviceTrustMode, r.Allow.Rules = "required", []role.Rule{rule("role", "delete", "")}
	}, want{NoDevice, FromRole, "other"}},
	{"mode bears on databases", func(s *situation) { s.database(); s.role("access").Options.DeviceTrustMode = "required" }, byRole},
	{"for humans, a human", mode("off", "required-for-humans"), byRole},
	{"for humans, a human with a pinned address", and(mode("off", "required-for-humans"), func(s *situation) { s.who.PinnedIP = home }), byRole},
	{"for humans, a user of no kind", and(mode("required-for-humans", ""), func(s *situation) { s.who.Kind, s.who.PinnedIP = "", home }), byCluster},
	{"for humans, a bot with a pinned address", and(mode("off", "required-for-humans"), bot(true)), want{}},
	{"for humans of the cluster, a bot with a pinned address", and(mode("required-for-humans", ""), bot(true)), want{}},
	{"for humans, a bot without a pinned address", and(mode("off", "required-for-humans"), bot(false)), byRole},
	{"for humans, a bot with a device", and(mode("off", "required-for-humans"), bot(false), onDevice(device.LevelTPMPub)), want{}},
	{"required, a bot with a pinned address", and(mode("required-for-humans", "required"), bot(true)), byRole},
}

func TestModes(t *testing.T) { runRows(t, modeRows) }

var (
	soft   = onDevice(device.LevelSoftware)
	listed = role.Requirements{Attestation: []device.Level{device.LevelSoftware, device.LevelTPMPub}}
	weak   = want{WeakDevice, FromRole, "access"}
	noSoft = want{SoftwareDevice, FromRole, "access"}
)

// second adds a role that matches, and demands.
func second(m device.Mode, q *role.Requirements) func(*situation) {
	return func(s *situation) {
		r := s.role("other")
		r.Options.DeviceTrustMode, r.Options.DeviceRequirements, r.Allow.NodeLabels = m, q, all
	}
}

var softwareRows = []row{
	{"software where nothing is demanded", soft, want{}},
	{"software, the cluster requires and no role lists it", and(mode("required", ""), soft), want{SoftwareDevice, FromCluster, ""}},
	{"software, the role requires and does not list it", and(mode("off", "required"), soft), noSoft},
	{"software, the role lists it", and(mode("off", "required"), demandOf(listed), soft), want{}},
	{"software, the role lists it without a mode", and(demandOf(listed), soft), want{}},
	{"software, the cluster requires and a role lists it", and(mode("required", ""), demandOf(listed), soft), want{}},
	{"software, one role lists it and another requires", and(demandOf(listed), second("required", nil), soft), want{SoftwareDevice, FromRole, "other"}},
	{"software, one role lists it and another demands else", and(demandOf(listed), second("", &role.Requirements{OSVersion: ">=20"}), soft), want{SoftwareDevice, FromRole, "other"}},
	{"software, two roles list it", and(demandOf(listed), second("required", &listed), soft), want{}},
	{"software, one role lists it and another says off", and(demandOf(listed), second("off", nil), soft), want{}},
	{"software, a role for other nodes does not list it", and(demandOf(listed), second("required", nil), soft, func(s *situation) {
		s.role("other").Allow.NodeLabels = label.Selector{"env": {"dev"}}
	}), want{}},
	{"software, a role for other nodes lists it", and(mode("required", ""), second("", &listed), soft, func(s *situation) {
		s.role("other").Allow.NodeLabels = label.Selector{"env": {"dev"}}
	}), want{SoftwareDevice, FromCluster, ""}},
	{"software, for humans, a bot with a pinned address", and(mode("required-for-humans", ""), bot(true), soft), want{}},
}

func TestSoftware(t *testing.T) { runRows(t, softwareRows) }

func claims(c device.Claims) func(*situation) { return func(s *situation) { s.who.Device.Claims = c } }

var yes, no = true, false

var requirementRows = []row{
	{"requirements alone mean required", demandOf(role.Requirements{OSVersion: ">=20"}), byRole},
	{"requirements with mode optional mean required", and(mode("off", "optional"), demandOf(role.Requirements{OSVersion: ">=20"})), byRole},
	{"requirements that are empty mean required", demandOf(role.Requirements{}), byRole},
	{"attestation met", and(demandOf(role.Requirements{Attestation: []device.Level{"tpm_ekcert_trusted", "secure_enclave"}}), onDevice("secure_enclave")), want{}},
	{"attestation not met", and(demandOf(role.Requirements{Attestation: []device.Level{"tpm_ekcert_trusted"}}), onDevice("tpm_ekcert")), weak},
	{"attestation by a level that nobody knows", and(demandOf(role.Requirements{Attestation: []device.Level{"quantum"}}), onDevice("quantum")), byRole},
	{"session_key in hardware", and(demandOf(role.Requirements{SessionKey: "hardware"}), onDevice("tpm_ekpub")), want{}},
	{"session_key in a file", and(demandOf(role.Requirements{SessionKey: "hardware"}), onDevice("tpm_ekpub"), func(s *situation) { s.who.KeyPolicy = identity.KeyAnywhere }), weak},
	{"session_key of a software device that says hardware", and(demandOf(role.Requirements{SessionKey: "hardware", Attestation: listed.Attestation}), soft, func(s *situation) { s.who.KeyPolicy = identity.KeyHardware }), weak},
	{"session_key of an unknown word", and(demandOf(role.Requirements{SessionKey: "moon"}), onDevice("tpm_ekpub"), func(s *situation) { s.who.KeyPolicy = identity.KeyAnywhere }), weak},
	{"os_version met", and(demandOf(role.Requirements{OSVersion: ">=22"}), onDevice("tpm_ekpub")), want{}},
	{"os_version too old", and(demandOf(role.Requirements{OSVersion: ">=24"}), onDevice("tpm_ekpub")), weak},
	{"os_version not said", and(demandOf(role.Requirements{OSVersion: ">=1"}), onDevice("tpm_ekpub"), claims(device.Claims{})), weak},
	{"os_version by a rule that cannot be read", and(demandOf(role.Requirements{OSVersion: "new"}), onDevice("tpm_ekpub")), weak},
	{"os_version of another system", and(demandOf(role.Requirements{OSVersion: "macos >=14"}), onDevice("tpm_ekpub")), weak},
	{"os_version of this system", and(demandOf(role.Requirements{OSVersion: "macos >=14, linux >=22.04"}), onDevice("tpm_ekpub")), want{}},
	{"attestation of a TPM whose counters went back", and(demandOf(role.Requirements{Attestation: []device.Level{"tpm_ekpub"}}), onDevice("tpm_ekpub"), claims(device.Claims{CountersBack: true})), weak},
	{"counters that went back where no level is demanded", and(demandOf(role.Requirements{SessionKey: "hardware"}), onDevice("tpm_ekpub"), claims(device.Claims{CountersBack: true})), want{}},
	{"secure_boot proven", and(demandOf(role.Requirements{SecureBoot: true}), onDevice("tpm_ekpub"), claims(device.Claims{SecureBoot: &yes})), want{}},
	{"secure_boot not proven", and(demandOf(role.Requirements{SecureBoot: true}), onDevice("tpm_ekpub")), weak},
	{"secure_boot proven to be off", and(demandOf(role.Requirements{SecureBoot: true}), onDevice("tpm_ekpub"), claims(device.Claims{SecureBoot: &no})), weak},
	{"secure_boot of a level that proves none", and(demandOf(role.Requirements{SecureBoot: true}), onDevice("secure_enclave")), weak},
	{"secure_boot of a role that matches still demands", and(second("", &role.Requirements{SecureBoot: true}), onDevice("tpm_ekpub")), want{WeakDevice, FromRole, "other"}},
	{"requirements of a role that matches and does not grant", and(second("", &role.Requirements{OSVersion: ">=24"}), onDevice("tpm_ekpub")), want{WeakDevice, FromRole, "other"}},
	{"requirements add up", and(demandOf(role.Requirements{OSVersion: ">=20"}), second("", &role.Requirements{SessionKey: "hardware"}), onDevice("tpm_ekpub"),
		func(s *situation) { s.who.KeyPolicy = identity.KeyAnywhere }), want{WeakDevice, FromRole, "other"}},
	{"requirements of a role for other nodes", and(second("", &role.Requirements{OSVersion: ">=24"}), func(s *situation) {
		s.role("other").Allow.NodeLabels = label.Selector{"env": {"dev"}}
	}), want{}},
	{"device_trust_mode off does not undo requirements", and(mode("off", "off"), demandOf(role.Requirements{OSVersion: ">=20"})), byRole},
}

func TestRequirements(t *testing.T) { runRows(t, requirementRows) }

// TestEachUnmetDemandIsNamed holds every demand against every kind of evidence: what is not met is named, all of it,
// each with what to type, and nothing that is met.
func TestEachUnmetDemandIsNamed(t *testing.T) {
	demands := []struct {
		name, what, fix string
		add             func(*role.Requirements)
		met             func(d *identity.Device, key identity.KeyPolicy) bool
	}{
		{"attestation", "attestation one of [tpm_ekcert_trusted]", "tsh login", func(q *role.Requirements) { q.Attestation = []device.Level{"tpm_ekcert_trusted"} },
			func(d *identity.Device, _ identity.KeyPolicy) bool { return d.Level == "tpm_ekcert_trusted" }},
		{"session_key", "a session key in hardware", "tsh device enroll", func(q *role.Requirements) { q.SessionKey = "hardware" },
			func(d *identity.Device, k identity.KeyPolicy) bool {
				return k == identity.KeyHardware && d.Level != "software"
			}},
		{"secure_boot", "Secure Boot", "tsh login", func(q *role.Requirements) { q.SecureBoot = true },
			func(d *identity.Device, _ identity.KeyPolicy) bool {
				return d.Claims.SecureBoot != nil && *d.Claims.SecureBoot
			}},
		{"os_version", "os_version >=24", "update the system", func(q *role.Requirements) { q.OSVersion = ">=24" },
			func(d *identity.Device, _ identity.KeyPolicy) bool { return d.Claims.OSVersion == "24.04" }},
	}
	for _, level := range device.Levels() {
		for _, boot := range []*bool{nil, &no, &yes} {
			for _, version := range []string{"", "22.04", "24.04"} {
				for _, key := range []identity.KeyPolicy{identity.KeyAnywhere, identity.KeyHardware} {
					d := identity.Device{ID: "d", AssetTag: "T", CredentialID: "c", Level: level, OS: device.Linux,
						Claims: device.Claims{OSVersion: version, SecureBoot: boot}}
					for set := 1; set < 1<<len(demands); set++ {
						var q role.Requirements
						for i, x := range demands {
							if set>>i&1 == 1 {
								x.add(&q)
							}
						}
						p, err := Compile(role.Role{Name: "r", Options: role.Options{DeviceRequirements: &q}})
						if err != nil {
							t.Fatal(err)
						}
						miss := p.unmet(&d, key)
						text, fix := wording(miss), remedies(miss)
						for i, x := range demands {
							if want := set>>i&1 == 1 && !x.met(&d, key); strings.Contains(text, x.what) != want {
								t.Errorf("%s %v %q %s, demands %b: %s named: %t, want %t: %q", level, boot, version, key, set, x.name, !want, want, text)
							} else if want && x.name != "attestation" && !strings.Contains(fix, x.fix) {
								t.Errorf("%s: no %q in %q", x.name, x.fix, fix)
							}
						}
						if (len(miss) == 0) != (text == "") || strings.Contains(fix, "; and ;") {
							t.Errorf("%q %q", text, fix)
						}
					}
				}
			}
		}
	}
}

var unenforcedRows = []row{
	{"require_session_mfa admits nobody", func(s *situation) { s.role("access").Options.RequireSessionMFA = true }, want{reason: NotGranted}},
	{"a role that admits nobody still denies", func(s *situation) {
		r := s.role("other")
		r.Options.RequireSessionMFA, r.Deny.Logins = true, []string{"root"}
	}, want{DeniedByRole, FromRole, "other"}},
	{"a role that admits nobody still demands", and(second("required", nil), func(s *situation) { s.role("other").Options.RequireSessionMFA = true }),
		want{NoDevice, FromRole, "other"}},
}

func TestUnenforced(t *testing.T) { runRows(t, unenforcedRows) }

// limitRows name what of an allowed session is checked.
var limitRows = []struct {
	name   string
	change func(*situation)
	want   func(Limits) bool
}{
	{"nothing is said", func(*situation) {}, func(l Limits) bool { return l == Limits{Strict: true, PTY: true} }},
	{"kubernetes_groups of the roles that grant", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesGroups = []string{"devs", "{{external.team}}", "sys*"}
		s.role("other").Allow = role.Conditions{KubernetesLabels: all, KubernetesGroups: []string{"admins", "devs"}}
		s.role("third").Allow = role.Conditions{KubernetesLabels: label.Selector{"env": {"nowhere"}}, KubernetesGroups: []string{"others"}}
	}, func(l Limits) bool { return l.KubeUsers == "alice" && l.KubeGroups == "admins,blue,devs" }},
	{"kubernetes_users of the roles that grant", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesUsers = []string{"robot", "{{external.team}}", "*"}
	}, func(l Limits) bool { return l.KubeUsers == "blue,robot" && l.KubeGroups == "" }},
	{"kubernetes_groups that another role denies", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesGroups = []string{"devs", "system:masters"}
		s.role("deny").Deny.KubernetesGroups = []string{"system:*"}
	}, func(l Limits) bool { return l.KubeGroups == "devs" }},
	{"kubernetes_users that another role denies", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesUsers = []string{"robot", "root"}
		s.role("deny").Deny.KubernetesUsers = []string{"root"}
	}, func(l Limits) bool { return l.KubeUsers == "robot" }},
	{"kubernetes_users of none, and a name of Kubernetes' own", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.who.Name = "system:kube-controller-manager"
	}, func(l Limits) bool { return l.KubeUsers == "" }},
	{"kubernetes_users that name one of Kubernetes' own", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesUsers = []string{"system:kube-scheduler"}
	}, func(l Limits) bool { return l.KubeUsers == "system:kube-scheduler" }},
	{"kubernetes_users that are denied, every one", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("access").Allow.KubernetesUsers = []string{"robot"}
		s.role("deny").Deny.KubernetesUsers = []string{"robot"}
	}, func(l Limits) bool { return l.KubeUsers == "" }},
	{"the login's own name, denied", func(s *situation) {
		s.kube("get", pod("dev", "web"))
		s.role("deny").Deny.KubernetesUsers = []string{"al*"}
	}, func(l Limits) bool { return l.KubeUsers == "" }},
	{"db_roles of the roles that make the user, each once", func(s *situation) {
		s.making()
		s.role("other").Allow, s.role("other").Options.CreateDBUserMode = role.Conditions{DBLabels: all, DBNames: []string{"orders"}, DBRoles: []string{"admins", "readers"}}, "keep"
		s.role("third").Allow = role.Conditions{DBLabels: all, DBNames: []string{"orders"}, DBUsers: []string{"alice"}, DBRoles: []string{"more"}}
	}, func(l Limits) bool { return l.CreateDBUser && l.DBRoles == "admins,blue,readers,writers" }},
	{"db_roles that another role denies", func(s *situation) { s.making(); s.role("deny").Deny.DBRoles = []string{"w*", "blue"} },
		func(l Limits) bool { return l.CreateDBUser && l.DBRoles == "readers" }},
	{"db_roles of a user that is there anyway", func(s *situation) {
		s.making()
		s.role("access").Options.CreateDBUserMode, s.role("access").Allow.DBUsers = "off", []string{"alice"}
	}, func(l Limits) bool { return !l.CreateDBUser && l.DBRoles == "" }},
	{"max_session_ttl, the shortest", func(s *situation) {
		s.role("access").Options.MaxSessionTTL = role.Duration(2 * time.Hour)
		s.role("other").Options.MaxSessionTTL, s.role("other").Allow.NodeLabels = role.Duration(time.Hour), all
		s.role("third").Options.MaxSessionTTL, s.role("third").Allow.NodeLabels = role.Duration(3*time.Hour), all
	}, func(l Limits) bool { return l.MaxTTL == time.Hour }},
	{"client_idle_timeout, the shortest", func(s *situation) {
		s.role("access").Options.ClientIdleTimeout = role.Duration(time.Minute)
		s.role("other").Options.ClientIdleTimeout, s.role("other").Allow.NodeLabels = role.Duration(time.Hour), all
	}, func(l Limits) bool { return l.IdleTimeout == time.Minute }},
	{"disconnect_expired_cert of any", func(s *situation) {
		s.role("other").Options.DisconnectExpiredCert, s.role("other").Allow.NodeLabels = true, all
	}, func(l Limits) bool { return l.DisconnectExpiredCert }},
	{"forward_agent of the role that grants", func(s *situation) { s.role("access").Options.ForwardAgent = true }, func(l Limits) bool { return l.AgentForwarding }},
	{"forward_agent of a role that does not grant", func(s *situation) {
		s.role("other").Options.ForwardAgent, s.role("other").Allow.NodeLabels = true, all
	}, func(l Limits) bool { return !l.AgentForwarding }},
	{"forward_agent that the login has not", func(s *situation) {
		s.role("access").Options.ForwardAgent, s.who.Grant.AgentForwarding = true, false
	}, func(l Limits) bool { return !l.AgentForwarding }},
	{"port_forwarding of the role that grants", func(s *situation) { s.role("access").Options.PortForwarding = true }, func(l Limits) bool { return l.PortForwarding }},
	{"port_forwarding of a role that does not grant", func(s *situation) {
		s.role("other").Options.PortForwarding, s.role("other").Allow.NodeLabels = true, all
	}, func(l Limits) bool { return !l.PortForwarding }},
	{"record_session, the strictest that is said", func(s *situation) {
		s.role("access").Options.RecordSession = role.RecordOff
		s.role("other").Options.RecordSession, s.role("other").Allow.NodeLabels = role.RecordStrict, all
		s.role("third").Options.RecordSession, s.role("third").Allow.NodeLabels = role.RecordBestEffort, all
	}, func(l Limits) bool { return l.Record == role.RecordStrict }},
	{"record_session best_effort before off", func(s *situation) {
		s.role("access").Options.RecordSession = role.RecordBestEffort
		s.role("other").Options.RecordSession, s.role("other").Allow.NodeLabels = role.RecordOff, all
	}, func(l Limits) bool { return l.Record == role.RecordBestEffort }},
	{"record_session off, another role says nothing", func(s *situation) {
		s.role("access").Options.RecordSession = role.RecordOff
		s.role("other").Allow.NodeLabels = all
	}, func(l Limits) bool { return l.Record == role.RecordOff }},
	{"record_session of an unknown word is strict", func(s *situation) { s.role("access").Options.RecordSession = "enhanced" }, func(l Limits) bool { return l.Record == role.RecordStrict }},
	{"record_session of a role for other nodes", func(s *situation) {
		s.role("other").Options.RecordSession, s.role("other").Allow.NodeLabels = role.RecordStrict, label.Selector{"env": {"dev"}}
	}, func(l Limits) bool { return l.Record == role.RecordUnset }},
	{"terminal that the login has not", func(s *situation) { s.who.Grant.PTY = false }, func(l Limits) bool { return !l.PTY }},
	{"lock strict before best_effort", func(s *situation) {
		s.role("access").Options.Lock = "best_effort"
		s.role("other").Options.Lock, s.role("other").Allow.NodeLabels = "strict", all
	}, func(l Limits) bool { return l.Strict }},
	{"lock best_effort is a choice", func(s *situation) { s.role("access").Options.Lock = "best_effort" }, func(l Limits) bool { return !l.Strict }},
	{"lock of an unknown word is strict", func(s *situation) {
		s.role("access").Options.Lock, s.settings.LockingMode = "maybe", "best_effort"
	}, func(l Limits) bool { return l.Strict }},
	{"locking_mode best_effort of the cluster", func(s *situation) { s.settings.LockingMode = "best_effort" }, func(l Limits) bool { return !l.Strict }},
	{"locking_mode best_effort, a role is strict", func(s *situation) {
		s.settings.LockingMode, s.role("access").Options.Lock = "best_effort", "strict"
	}, func(l Limits) bool { return l.Strict }},
	{"options of a role for other nodes", func(s *situation) {
		o := &s.role("other").Options
		o.MaxSessionTTL, o.ClientIdleTimeout, o.DisconnectExpiredCert, o.Lock = 1, 1, true, "best_effort"
		s.role("other").Allow.NodeLabels = label.Selector{"env": {"dev"}}
	}, func(l Limits) bool { return l == Limits{Strict: true, PTY: true} }},
}

func TestLimits(t *testing.T) {
	for _, r := range limitRows {
		t.Run(r.name, func(t *testing.T) {
			s := granted()
			r.change(s)
			if d := Decide(s.input()); !d.Allowed || !r.want(d.Limits) {
				t.Errorf("got %+v", d)
			}
		})
	}
}

// TestSelects holds what a listing shows: what some role grants, whatever device is asked for.
func TestSelects(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*situation)
		want   bool
	}{
		{"granted", func(*situation) {}, true},
		{"granted on a device that is not there", mode("off", "required"), true},
		{"another login", func(s *situation) { s.action = target.Action{Login: "ubuntu"} }, true},
		{"other labels", func(s *situation) { s.target.Labels = nil }, false},
		{"denied by labels", func(s *situation) { s.role("access").Deny.NodeLabels = all }, false},
		{"locked", func(s *situation) { s.locks = append(s.locks, *strictest.Lock("l")) }, false},
		{"expired", func(s *situation) { s.who.Validity.Expires = noon }, false},
		{"no clock", func(s *situation) { s.now = time.Time{} }, false},
	} {
		s := granted()
		r.change(s)
		if got := Selects(s.input()); got != r.want {
			t.Errorf("%s: %v", r.name, got)
		}
	}
}
