// Package role is what an administrator lets people do, and under which conditions.
package role

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
)

// Role is one role of version v7.
type Role struct {
	Name    string     `json:"-"`
	Options Options    `json:"options,omitzero"`
	Allow   Conditions `json:"allow,omitzero"`
	Deny    Conditions `json:"deny,omitzero"`
}

// Options are what a role demands or limits. The zero value demands nothing and grants nothing.
type Options struct {
	MaxSessionTTL         Duration      `json:"max_session_ttl,omitempty"`
	ForwardAgent          bool          `json:"forward_agent,omitempty"`
	PortForwarding        bool          `json:"port_forwarding,omitempty"`
	ClientIdleTimeout     Duration      `json:"client_idle_timeout,omitempty"`
	DisconnectExpiredCert bool          `json:"disconnect_expired_cert,omitempty"`
	RequireSessionMFA     bool          `json:"require_session_mfa,omitempty"`
	DeviceTrustMode       device.Mode   `json:"device_trust_mode,omitempty"`
	DeviceRequirements    *Requirements `json:"device_requirements,omitempty"`
	Lock                  string        `json:"lock,omitempty"`
	PinSourceIP           bool          `json:"pin_source_ip,omitempty"`
	RecordSession         RecordMode    `json:"record_session,omitempty"`
	CreateDBUserMode      DBUserMode    `json:"create_db_user_mode,omitempty"`
}

// DBUserMode is whether database users are made on demand: each of its login's own name, with the roles in db_roles.
type DBUserMode string

// The modes. Unset says nothing; off makes none, whatever other roles say; keep makes them and disables them after their
// last session. An unknown one counts as off.
const (
	DBUsersUnset DBUserMode = ""
	DBUsersOff   DBUserMode = "off"
	DBUsersKeep  DBUserMode = "keep"
)

// RecordMode is whether what sessions with nodes and clusters show is recorded, where the cluster keeps recordings.
type RecordMode string

// The modes. Unset records, and ends a session whose recording breaks; of streams that no terminal shows it keeps the
// first RecordMost bytes. Strict keeps all of them, and demands that the cluster keeps recordings; an unknown one counts as
// strict. With best_effort a session goes on without its recording.
const (
	RecordUnset      RecordMode = ""
	RecordOff        RecordMode = "off"
	RecordBestEffort RecordMode = "best_effort"
	RecordStrict     RecordMode = "strict"
)

// RecordMost is how many bytes of a stream that no terminal shows are recorded, unless a role is strict.
const RecordMost = 64 << 20

// Stricter is the stricter of what two roles say; who says nothing leaves it to the other.
func (m RecordMode) Stricter(o RecordMode) RecordMode {
	switch a, b := m.strictness(), o.strictness(); {
	case max(a, b) == strictest:
		return RecordStrict
	case a > b:
		return m
	default:
		return o
	}
}

const strictest = 3

// strictness orders what is known; all else is the strictest.
func (m RecordMode) strictness() int {
	switch m {
	case RecordUnset:
		return 0
	case RecordOff:
		return 1
	case RecordBestEffort:
		return 2
	}
	return strictest
}

// Requirements are what a role demands of the device.
type Requirements struct {
	Attestation []device.Level `json:"attestation,omitempty"`
	SessionKey  string         `json:"session_key,omitempty"`
	SecureBoot  bool           `json:"secure_boot,omitempty"`
	OSVersion   string         `json:"os_version,omitempty"`
}

// Conditions are one side of a role, allow or deny.
type Conditions struct {
	Logins              []string       `json:"logins,omitempty"`
	NodeLabels          label.Selector `json:"node_labels,omitempty"`
	DBLabels            label.Selector `json:"db_labels,omitempty"`
	DBNames             []string       `json:"db_names,omitempty"`
	DBUsers             []string       `json:"db_users,omitempty"`
	DBRoles             []string       `json:"db_roles,omitempty"` // of users that are made on demand
	KubernetesLabels    label.Selector `json:"kubernetes_labels,omitempty"`
	KubernetesGroups    []string       `json:"kubernetes_groups,omitempty"`
	KubernetesUsers     []string       `json:"kubernetes_users,omitempty"`
	KubernetesResources []KubeResource `json:"kubernetes_resources,omitempty"`
	AppLabels           label.Selector `json:"app_labels,omitempty"`
	Rules               []Rule         `json:"rules,omitempty"`
}

// KubeResource names objects in a cluster.
type KubeResource struct {
	Kind      string   `json:"kind"`
	Namespace string   `json:"namespace,omitempty"`
	Name      string   `json:"name"`
	Verbs     []string `json:"verbs"`
}

// Rule grants verbs on resource kinds; Where, if set, is a CEL predicate over user and resource.
type Rule struct {
	Resources []string `json:"resources"`
	Verbs     []string `json:"verbs"`
	Where     string   `json:"where,omitempty"`
}

// Verbs lists the verbs that rules may name.
func Verbs() []string {
	return []string{"list", "read", "create", "update", "delete", "create_enroll_token", "enroll", "*"}
}

// Kinds lists the resource kinds that rules may name.
func Kinds() []string {
	return []string{"user", "role", "device", "lock", "token", "cluster_auth_preference", "node", "db", "kube_cluster",
		"app", "oidc", "event", "session", "recording", "authority", "*"}
}

// Duration is a span that is written as `8h` or `30m`.
type Duration time.Duration

// UnmarshalJSON takes a string that time.ParseDuration takes, not negative.
func (d *Duration) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return errors.New(`want a duration like "8h" or "30m"`)
	}
	v, err := time.ParseDuration(s)
	if err != nil || v < 0 {
		return fmt.Errorf(`%q is no duration: want one like "8h" or "30m"`, s)
	}
	*d = Duration(v)
	return nil
}

// MarshalJSON prints it as UnmarshalJSON takes it.
func (d Duration) MarshalJSON() ([]byte, error) {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return json.Marshal(s)
}

// Unenforced names the options of the role that this build does not enforce. A role that has any is refused when it
// is written, and admits nobody when it is found in state.
func (r *Role) Unenforced() []string {
	var out []string
	add := func(set bool, name string) {
		if set {
			out = append(out, name)
		}
	}
	o := r.Options
	add(o.RequireSessionMFA, "options.require_session_mfa")
	return out
}

// Check refuses a role that says what cannot be judged; the error names the field below spec.
func (r *Role) Check() error {
	if !identity.ValidName(r.Name) {
		return fmt.Errorf("metadata.name: %q is not 1 to 128 printable ASCII characters without space or comma", r.Name)
	}
	if names := r.Unenforced(); len(names) > 0 {
		return fmt.Errorf("%s is not enforced by this build", names[0])
	}
	if err := r.Options.check(); err != nil {
		return fmt.Errorf("options.%w", err)
	}
	if err := r.Allow.check(); err != nil {
		return fmt.Errorf("allow.%w", err)
	}
	for _, v := range r.Allow.DBRoles {
		if strings.Contains(v, "*") {
			return fmt.Errorf("allow.db_roles: %q: a role of the database is named to the letter", v)
		}
	}
	if err := r.Deny.check(); err != nil {
		return fmt.Errorf("deny.%w", err)
	}
	return nil
}

func (o *Options) check() error {
	if o.DeviceTrustMode != device.ModeUnset && !o.DeviceTrustMode.Known() {
		return fmt.Errorf("device_trust_mode: unknown mode %q, want off, optional, required or required-for-humans", o.DeviceTrustMode)
	}
	if o.Lock != "" && o.Lock != "strict" && o.Lock != "best_effort" {
		return fmt.Errorf("lock: unknown mode %q, want strict or best_effort", o.Lock)
	}
	if m := o.RecordSession; m != RecordUnset && m != RecordOff && m != RecordBestEffort && m != RecordStrict {
		return fmt.Errorf("record_session: unknown mode %q, want strict, best_effort or off", m)
	}
	if m := o.CreateDBUserMode; m != DBUsersUnset && m != DBUsersOff && m != DBUsersKeep {
		return fmt.Errorf("create_db_user_mode: unknown mode %q, want off or keep", m)
	}
	if time.Duration(o.MaxSessionTTL) > identity.MaxLifetime {
		return fmt.Errorf("max_session_ttl: no certificate lives longer than %s", identity.MaxLifetime)
	}
	q := o.DeviceRequirements
	if q == nil {
		return nil
	}
	for _, l := range q.Attestation {
		if !l.Known() {
			return fmt.Errorf("device_requirements.attestation: unknown level %q", l)
		}
	}
	if q.SessionKey != "" && q.SessionKey != "hardware" {
		return fmt.Errorf("device_requirements.session_key: unknown value %q, want hardware", q.SessionKey)
	}
	if q.OSVersion != "" {
		if _, err := device.ParseVersionRule(q.OSVersion); err != nil {
			return fmt.Errorf("device_requirements.os_version: %w", err)
		}
	}
	return nil
}

func (c *Conditions) check() error {
	lists := []struct {
		name   string
		values []string
	}{{"logins", c.Logins}, {"db_users", c.DBUsers}, {"db_names", c.DBNames}, {"db_roles", c.DBRoles},
		{"kubernetes_groups", c.KubernetesGroups}, {"kubernetes_users", c.KubernetesUsers}}
	for _, l := range lists {
		for _, v := range l.values {
			if strings.Contains(v, "{{") {
				if _, ok := Variable(v); !ok {
					return fmt.Errorf("%s: %q is no variable: want {{internal.NAME}} or {{external.NAME}}", l.name, v)
				}
			} else if !identity.ValidName(v) {
				return fmt.Errorf("%s: %q is not 1 to 128 printable ASCII characters without space or comma", l.name, v)
			}
		}
	}
	for i, r := range c.KubernetesResources {
		if err := r.check(); err != nil {
			return fmt.Errorf("kubernetes_resources[%d].%w", i, err)
		}
	}
	for i, r := range c.Rules {
		if err := r.check(); err != nil {
			return fmt.Errorf("rules[%d].%w", i, err)
		}
	}
	return nil
}

// KubeVerbs lists the verbs that kubernetes_resources may name: Kubernetes' own, and exec (attach too), portforward and
// proxy for what is reached through an object.
func KubeVerbs() []string {
	return []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "exec", "portforward", "proxy", "*"}
}

func (r KubeResource) check() error {
	if r.Kind == "" || strings.ContainsAny(r.Kind, " ,") {
		return fmt.Errorf("kind: want a resource such as pods, deployments.apps, serviceaccounts/token or *, got %q", r.Kind)
	}
	if kind, sub, _ := strings.Cut(r.Kind, "/"); slices.Contains([]string{"log", "status", "scale", "ephemeralcontainers", "resize", "binding"}, sub) ||
		!strings.Contains(kind, ".") && slices.Contains([]string{"exec", "attach", "portforward", "proxy", "eviction"}, sub) {
		return fmt.Errorf("kind: %s is decided with its object: write %s and a verb", r.Kind, kind)
	}
	if r.Name == "" {
		return errors.New("name: want an object's name, a pattern, or *")
	}
	if len(r.Verbs) == 0 {
		return errors.New("verbs: a resource needs at least one")
	}
	for _, v := range r.Verbs {
		if !slices.Contains(KubeVerbs(), v) {
			return fmt.Errorf("verbs: unknown verb %q", v)
		}
	}
	return nil
}

func (r Rule) check() error {
	for _, k := range r.Resources {
		if !slices.Contains(Kinds(), k) {
			return fmt.Errorf("resources: unknown kind %q", k)
		}
	}
	for _, v := range r.Verbs {
		if !slices.Contains(Verbs(), v) {
			return fmt.Errorf("verbs: unknown verb %q", v)
		}
	}
	if len(r.Resources) == 0 || len(r.Verbs) == 0 {
		return errors.New("resources: a rule needs resources and verbs")
	}
	return nil
}

// Variable reads `{{internal.logins}}` or `{{external.claim}}` and returns the trait's name.
func Variable(s string) (trait string, ok bool) {
	inner, found := strings.CutPrefix(strings.TrimSpace(s), "{{")
	if !found {
		return "", false
	}
	inner, found = strings.CutSuffix(inner, "}}")
	if !found {
		return "", false
	}
	inner = strings.TrimSpace(inner)
	for _, scope := range []string{"internal.", "external."} {
		if name, is := strings.CutPrefix(inner, scope); is && identity.ValidName(name) && !strings.ContainsAny(name, "{}.") {
			return name, true
		}
	}
	return "", false
}

// Expand replaces variables by a user's traits. What a trait holds is a literal and never a pattern, so a `*` in one
// is dropped, as is what is not fit for a certificate.
func Expand(values []string, traits map[string][]string) []string {
	var out []string
	for _, v := range values {
		trait, is := Variable(v)
		if !is {
			if !strings.Contains(v, "{{") {
				out = append(out, v)
			}
			continue
		}
		for _, t := range traits[trait] {
			if identity.ValidName(t) && !strings.Contains(t, "*") {
				out = append(out, t)
			}
		}
	}
	return out
}
