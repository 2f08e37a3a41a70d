package access

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
)

// shown names for every field of a role the row that shows it enforced: a field that is added to a role and not here
// fails the test, and so does a row that is gone.
var shown = map[string]string{
	"Options.MaxSessionTTL":         "max_session_ttl, the shortest",
	"Options.ForwardAgent":          "forward_agent of a role that does not grant",
	"Options.PortForwarding":        "port_forwarding of a role that does not grant",
	"Options.ClientIdleTimeout":     "client_idle_timeout, the shortest",
	"Options.DisconnectExpiredCert": "disconnect_expired_cert of any",
	"Options.RequireSessionMFA":     "require_session_mfa admits nobody",
	"Options.DeviceTrustMode":       "role requires, no device",
	"Options.DeviceRequirements":    "requirements alone mean required",
	"Options.Lock":                  "lock best_effort is a choice",
	"Options.PinSourceIP":           "pin_source_ip, not pinned",
	"Options.RecordSession":         "record_session, the strictest that is said",
	"Options.CreateDBUserMode":      "create_db_user_mode grants the login's own name",

	"Requirements.Attestation": "attestation not met",
	"Requirements.SessionKey":  "session_key in a file",
	"Requirements.SecureBoot":  "secure_boot not proven",
	"Requirements.OSVersion":   "os_version too old",

	"Allow.Logins":              "another login",
	"Allow.NodeLabels":          "node_labels of another value",
	"Allow.DBLabels":            "db_labels of another value",
	"Allow.DBNames":             "db_names of another",
	"Allow.DBUsers":             "db_users of another",
	"Allow.DBRoles":             "db_roles of the roles that make the user, each once",
	"Allow.KubernetesLabels":    "cluster without kubernetes_labels",
	"Allow.KubernetesGroups":    "kubernetes_groups of the roles that grant",
	"Allow.KubernetesUsers":     "kubernetes_users of the roles that grant",
	"Allow.KubernetesResources": "kubernetes_resources of another namespace",
	"Allow.AppLabels":           "application without app_labels",
	"Allow.Rules":               "no rules",
	"Deny.Logins":               "deny by login",
	"Deny.NodeLabels":           "deny by node_labels",
	"Deny.DBLabels":             "deny by db_labels",
	"Deny.DBNames":              "deny by db_names",
	"Deny.DBUsers":              "deny by db_users",
	"Deny.DBRoles":              "db_roles that another role denies",
	"Deny.KubernetesLabels":     "deny by kubernetes_labels",
	"Deny.KubernetesGroups":     "kubernetes_groups that another role denies",
	"Deny.KubernetesUsers":      "kubernetes_users that another role denies",
	"Deny.KubernetesResources":  "kubernetes_resources denied",
	"Deny.AppLabels":            "deny by app_labels",
	"Deny.Rules":                "deny rule",
	"Rule.Resources":            "rule of another kind",
	"Rule.Verbs":                "rule of another verb",
	"Rule.Where":                "where does not hold",

	"Target.User":             "lock on the user",
	"Target.Role":             "lock on a role",
	"Target.Login":            "lock on the login",
	"Target.Device":           "lock on the device",
	"Target.DeviceCredential": "lock on the credential",
	"Target.ServerID":         "lock on the node",
	"Target.MFADevice":        "lock on a second factor",
}

func TestEveryOptionIsShownEnforced(t *testing.T) {
	rows := map[string]bool{}
	for _, r := range slices.Concat(lockRows, identityRows, roleRows, kubeRows, ruleRows, modeRows, softwareRows, requirementRows, unenforcedRows) {
		if rows[r.name] {
			t.Errorf("two rows are called %q", r.name)
		}
		rows[r.name] = true
	}
	for _, r := range limitRows {
		rows[r.name] = true
	}
	fields := map[string]bool{}
	for prefix, noun := range map[string]any{"Options": role.Options{}, "Requirements": role.Requirements{}, "Allow": role.Conditions{},
		"Deny": role.Conditions{}, "Rule": role.Rule{}, "Target": lock.Target{}} {
		for f := range reflect.TypeOf(noun).Fields() {
			fields[prefix+"."+f.Name] = true
			switch by := shown[prefix+"."+f.Name]; {
			case by == "":
				t.Errorf("%s.%s is in no row: show that it is enforced, or refuse it in role.Unenforced", prefix, f.Name)
			case !rows[by]:
				t.Errorf("%s.%s: there is no row %q", prefix, f.Name, by)
			}
		}
	}
	for f := range shown {
		if !fields[f] {
			t.Errorf("%s is no field", f)
		}
	}
}

// TestWhatIf holds that what is named as a change is one, and that it is what `tctl access explain` is to say.
func TestWhatIf(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*situation)
		want   string
	}{
		{"no device", mode("off", "required"), "a login from a trusted device of level tpm_ekpub"},
		{"weak device", and(demandOf(role.Requirements{Attestation: []device.Level{"tpm_ekcert_trusted"}}), onDevice("tpm_ekpub")), "a login from a trusted device of level tpm_ekcert_trusted or stronger"},
		{"locked", locked(lock.Lock{Target: lock.Target{User: "alice"}}), "removing the lock: tctl rm lock/l"},
		{"denied", func(s *situation) { s.role("deny").Deny.NodeLabels = all }, `taking role "deny" from the user`},
		{"not granted", func(s *situation) { s.who.Roles = nil }, `giving the user role "access"`},
		{"granted by one role", func(*situation) {}, `without role "access" it would be refused`},
		{"granted on a device", and(mode("off", "required"), onDevice("tpm_ekpub")), "a login without the device would be refused"},
	} {
		s := granted()
		r.change(s)
		if got := WhatIf(s.input()); !slices.Contains(got, r.want) {
			t.Errorf("%s: %q", r.name, got)
		}
	}
}

// TestRefusalInTheWordsOfTheGuide holds the texts that people see first.
func TestRefusalInTheWordsOfTheGuide(t *testing.T) {
	for _, r := range []struct {
		name   string
		change func(*situation)
		want   []string
	}{
		{"a role's mode", mode("off", "required"), []string{"access denied to root connecting to web-1:0\n  role \"access\" requires a trusted device, and this login carries no device proof\n  to fix: tsh device enroll --current-device"}},
		{"the cluster's mode", mode("required", ""), []string{"unauthorized device\n", "the cluster's device_trust.mode requires a trusted device"}},
		{"a lock", locked(lock.Lock{Target: lock.Target{Device: "d1"}}), []string{`lock targeting Device:"d1" is in force`}},
		{"a database", func(s *situation) { s.database(); s.settings.DeviceTrust.Mode = "required" }, []string{"access to resource requires a trusted device\n"}},
		{"a login that nobody grants", func(s *situation) { s.action.Login = "ubuntu" }, []string{"access denied to ubuntu connecting to web-1:0", "none of the roles of alice grants login \"ubuntu\""}},
	} {
		s := granted()
		r.change(s)
		in := s.input()
		text := Refusal(Decide(in), in).Lines()
		for _, w := range r.want {
			if !strings.Contains(text, w) {
				t.Errorf("%s: no %q in\n%s", r.name, w, text)
			}
		}
	}
}
