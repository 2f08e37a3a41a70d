// Package manifest is resources as YAML and JSON: read strictly, with the line of each error, and printed.
//
//	kind: role
//	version: v7
//	metadata: {name: access, labels: {…}, revision: 12}
//	spec: {…}
//
// Unknown fields, duplicate fields and unknown kinds are errors; metadata.id is read and ignored.
package manifest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Kind is a resource kind as it is stored; people may also type a plural or a short name.
type Kind string

// The kinds.
const (
	User    Kind = "user"
	Role    Kind = "role"
	Device  Kind = "device"
	Lock    Kind = "lock"
	Token   Kind = "token"
	Cap     Kind = "cluster_auth_preference"
	Node    Kind = "node"
	DB      Kind = "db"
	Kube    Kind = "kube_cluster"
	App     Kind = "app"
	OIDC    Kind = "oidc"
	CapName      = "cluster-auth-preference"

	// What agents hear of beside resources; nobody reads or writes these by name.
	FollowedLogin Kind = "followed_login"
	SessionEnd    Kind = "session_end"
	// Session is what rules call live sessions.
	Session Kind = "session"
)

// Metadata is what every resource says of itself.
type Metadata struct {
	Name     string    `json:"name"`
	Labels   label.Set `json:"labels,omitempty"`
	Revision uint64    `json:"revision,omitempty"`
	ID       any       `json:"id,omitempty"`
}

// Resource is one resource. Spec points to the noun of its kind: *identity.Account, *role.Role, *device.Device,
// *lock.Lock, *identity.JoinToken, *cluster.Settings, *identity.Server, *target.DatabaseServer,
// *target.KubeCluster.
type Resource struct {
	Kind     Kind
	Metadata Metadata
	Spec     any
}

// document is a resource as it is written.
type document struct {
	Kind     Kind     `json:"kind"`
	Version  string   `json:"version"`
	Metadata Metadata `json:"metadata"`
	Spec     any      `json:"spec"`
}

// shape is what a kind is made of. One without words is the programs' own.
type shape struct {
	version string
	words   []string
	spec    func() any
}

var shapes = map[Kind]shape{
	User:   {"v2", []string{"users"}, func() any { return new(identity.Account) }},
	Role:   {"v7", []string{"roles"}, func() any { return new(role.Role) }},
	Device: {"v1", []string{"devices"}, func() any { return new(device.Device) }},
	Lock:   {"v2", []string{"locks"}, func() any { return new(lock.Lock) }},
	Token:  {"v2", []string{"tokens"}, func() any { return new(identity.JoinToken) }},
	Cap:    {"v2", []string{"cap", "cluster-auth-preference"}, func() any { return new(cluster.Settings) }},
	Node:   {"v2", []string{"nodes"}, func() any { return new(identity.Server) }},
	DB:     {"v3", []string{"dbs", "database", "databases"}, func() any { return new(target.DatabaseServer) }},
	Kube:   {"v3", []string{"kube_clusters", "kube", "kubernetes"}, func() any { return new(target.KubeCluster) }},

	FollowedLogin: {"v1", nil, func() any { return new(identity.Login) }},
	SessionEnd:    {"v1", nil, func() any { return new(live.End) }},
}

// notYet are kinds of the contract whose doors this build does not have.
var notYet = map[string]Kind{"app": App,
	"apps": App, "oidc": OIDC}

// ParseKind takes a kind as people type it.
func ParseKind(s string) (Kind, error) {
	s = strings.ToLower(s)
	for k, sh := range shapes {
		if len(sh.words) > 0 && (string(k) == s || slices.Contains(sh.words, s)) {
			return k, nil
		}
	}
	if k, ok := notYet[s]; ok {
		return "", fault.New(fault.Unsupported, "kind %s is not enforced by this build", k).WithReason("kind_unsupported")
	}
	return "", fault.New(fault.Invalid, "unknown kind %q", s).
		WithCause("kinds are user, role, device, lock, token, cap, node, db, kube_cluster").WithReason("unknown_kind")
}

// ParseRef takes KIND or KIND/NAME.
func ParseRef(s string) (Kind, string, error) {
	kind, name, _ := strings.Cut(s, "/")
	k, err := ParseKind(kind)
	if k == Cap && name == "" {
		name = CapName
	}
	return k, name, err
}

// setName gives the noun its name, which the spec does not carry.
func (r *Resource) setName() {
	name := r.Metadata.Name
	switch s := r.Spec.(type) {
	case *identity.Account:
		s.Name = name
	case *role.Role:
		s.Name = name
	case *device.Device:
		s.ID = name
	case *lock.Lock:
		s.Name = name
	case *identity.JoinToken:
		s.ID = name
	case *identity.Server:
		s.ID = name
	case *target.DatabaseServer:
		s.Name, s.Labels = name, r.Metadata.Labels
	case *target.KubeCluster:
		s.Name, s.Labels = name, r.Metadata.Labels
	case *identity.Login:
		s.Credential = name
	case *live.End:
		s.Session = name
	}
}

// Check judges the noun by its own rules.
func (r *Resource) Check() error {
	var err error
	switch s := r.Spec.(type) {
	case *identity.Account:
		err = s.Check()
	case *role.Role:
		err = s.Check()
	case *device.Device:
		err = checkDevice(s)
	case *lock.Lock:
		err = s.Check()
	case *identity.JoinToken:
		err = s.Check()
	case *cluster.Settings:
		err = s.Check()
	case *identity.Server:
		err = s.Check()
	case *target.DatabaseServer:
		err = s.Check()
	case *target.KubeCluster:
		err = s.Check()
	default:
		err = fmt.Errorf("unknown kind %q", r.Kind)
	}
	if err != nil {
		return fault.New(fault.Invalid, "%s %q: %v", r.Kind, r.Metadata.Name, err).WithReason("invalid_resource")
	}
	return nil
}

func checkDevice(d *device.Device) error {
	if os, ok := device.ParseOS(string(d.OSType)); !ok {
		return fmt.Errorf("os_type: unknown system %q, want linux, macos or windows", d.OSType)
	} else {
		d.OSType = os
	}
	d.AssetTag = device.NormalTag(d.AssetTag)
	if !device.ValidTag(d.AssetTag) {
		return fmt.Errorf("asset_tag: %q is not 1 to 128 printable ASCII characters without space or comma", d.AssetTag)
	}
	if d.EKHash != "" && !device.ValidEKHash(d.EKHash) {
		return fmt.Errorf("ek_hash: %q is not 64 lower-case hex digits", d.EKHash)
	}
	if d.EnrollStatus != "" && d.EnrollStatus != device.Enrolled && d.EnrollStatus != device.NotEnrolled {
		return fmt.Errorf("enroll_status: unknown status %q, want enrolled or not_enrolled", d.EnrollStatus)
	}
	return nil
}

// New makes a resource of a noun.
func New(spec any, revision uint64) *Resource {
	r := &Resource{Spec: spec, Metadata: Metadata{Revision: revision}}
	switch s := spec.(type) {
	case *identity.Account:
		r.Kind, r.Metadata.Name = User, s.Name
	case *role.Role:
		r.Kind, r.Metadata.Name = Role, s.Name
		if slices.ContainsFunc(role.Presets(), func(p role.Role) bool { return p.Name == s.Name }) {
			r.Metadata.Labels = label.Set{role.PresetLabel: role.PresetValue}
		}
	case *device.Device:
		r.Kind, r.Metadata.Name = Device, s.ID
	case *lock.Lock:
		r.Kind, r.Metadata.Name = Lock, s.Name
	case *identity.JoinToken:
		r.Kind, r.Metadata.Name = Token, s.ID
	case *cluster.Settings:
		r.Kind, r.Metadata.Name = Cap, CapName
	case *identity.Server:
		r.Kind, r.Metadata.Name = Node, s.ID
	case *target.DatabaseServer:
		r.Kind, r.Metadata.Name, r.Metadata.Labels = DB, s.Name, s.Labels
	case *target.KubeCluster:
		r.Kind, r.Metadata.Name, r.Metadata.Labels = Kube, s.Name, s.Labels
	case *identity.Login:
		r.Kind, r.Metadata.Name = FollowedLogin, s.Credential
	case *live.End:
		r.Kind, r.Metadata.Name = SessionEnd, s.Session
	}
	return r
}

// JSON prints the resource; ParseJSON reads it again.
func (r *Resource) JSON() ([]byte, error) {
	m := r.Metadata
	m.ID = nil
	spec := r.Spec
	if d, ok := spec.(*device.Device); ok {
		spec = Shown(d)
	}
	return json.Marshal(document{Kind: r.Kind, Version: shapes[r.Kind].version, Metadata: m, Spec: spec})
}

// Shown leaves out of a device what means nothing outside the cluster: the figures of attestations are obfuscated per
// key, and the key area says what public_key says.
func Shown(d *device.Device) *device.Device {
	c := *d
	c.Credentials = slices.Clone(d.Credentials)
	for i := range c.Credentials {
		c.Credentials[i].Clock, c.Credentials[i].AKArea = nil, nil
	}
	return &c
}

// Decode reads one resource from the JSON that JSON prints, strictly but without lines: for what programs send and
// store.
func Decode(raw []byte) (*Resource, error) {
	var head struct {
		Kind    Kind   `json:"kind"`
		Version string `json:"version"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, fault.New(fault.Invalid, "resource is no JSON").Wrapping(err)
	}
	sh, ok := shapes[head.Kind]
	if !ok || sh.version != head.Version {
		return nil, fault.New(fault.Unsupported, "kind %q of version %q is not known to this build", head.Kind, head.Version)
	}
	doc := document{Spec: sh.spec()}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&doc); err != nil {
		return nil, fault.New(fault.Invalid, "%s %q: %v", head.Kind, doc.Metadata.Name, err).WithReason("invalid_resource")
	}
	res := &Resource{Kind: head.Kind, Metadata: doc.Metadata, Spec: doc.Spec}
	res.setName()
	return res, nil
}
