package role

import (
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/label"
)

// PresetLabel marks the roles that a new cluster starts with.
const (
	PresetLabel = "teleport.internal/resource-type"
	PresetValue = "preset"
)

// Presets are the roles of a new cluster.
func Presets() []Role {
	all := label.Selector{"*": {"*"}}
	everyVerb := []string{"*"}
	traits := Conditions{
		Logins: []string{"{{internal.logins}}"}, NodeLabels: all,
		DBLabels: all, DBUsers: []string{"{{internal.db_users}}"}, DBNames: []string{"{{internal.db_names}}"},
		KubernetesLabels: all, KubernetesGroups: []string{"{{internal.kubernetes_groups}}"},
		KubernetesUsers: []string{"{{internal.kubernetes_users}}"},
	}
	withApps := traits
	withApps.AppLabels = all
	session := Options{MaxSessionTTL: Duration(MaxPresetTTL), ForwardAgent: true, PortForwarding: true}
	required := session
	required.DeviceTrustMode = device.ModeRequired
	return []Role{
		{Name: "access", Options: session, Allow: withApps},
		{Name: "editor", Allow: Conditions{Rules: []Rule{{
			Resources: []string{"user", "role", "device", "lock", "token", "cluster_auth_preference", "node", "db",
				"kube_cluster", "app", "oidc", "event", "session", "recording", "authority"}, Verbs: everyVerb}}}},
		{Name: "auditor", Allow: Conditions{Rules: []Rule{{
			Resources: []string{"event", "session", "recording"}, Verbs: []string{"list", "read"}}}}},
		{Name: "device-admin", Allow: Conditions{Rules: []Rule{{Resources: []string{"device"},
			Verbs: []string{"list", "create", "read", "update", "delete", "create_enroll_token", "enroll"}}}}},
		{Name: "device-enroll", Allow: Conditions{Rules: []Rule{{
			Resources: []string{"device"}, Verbs: []string{"enroll"}}}}},
		{Name: "require-trusted-device", Options: required, Allow: traits},
	}
}

// MaxPresetTTL is how long a login lives by the preset roles.
const MaxPresetTTL = 12 * time.Hour
