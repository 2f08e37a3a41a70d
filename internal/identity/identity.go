// Package identity is who somebody is to a cluster, as their certificates say it.
package identity

import (
	"net/netip"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/target"
)

// Kind is whether a user is a person or a program. Whatever is not Bot counts as a person.
type Kind string

// The kinds of users.
const (
	Human Kind = "human"
	Bot   Kind = "bot"
)

// KeyPolicy says where the session key lives.
type KeyPolicy string

// The key policies, under the names that `tsh status` and `ssh-keygen -L` show.
const (
	KeyAnywhere KeyPolicy = "none"
	KeyHardware KeyPolicy = "hardware_key"
)

// Backdate is how far before its issue a certificate starts, so that clocks a little behind accept it.
const Backdate = 2 * time.Minute

// MaxLifetime is the longest that any user certificate lives, and so the longest that a lock on what was issued
// before a moment has to.
const MaxLifetime = 30 * time.Hour

// Grant is what a login lets an SSH client ask of a node; whether a node gives it is decided there again.
type Grant struct {
	PTY             bool `json:"pty,omitempty"`
	PortForwarding  bool `json:"port_forwarding,omitempty"`
	AgentForwarding bool `json:"agent_forwarding,omitempty"`
}

// User is a user's identity. Its zero value names nobody and is refused everywhere.
type User struct {
	Name      string              `json:"name"`
	Cluster   string              `json:"cluster"`
	Kind      Kind                `json:"kind"`
	Roles     []string            `json:"roles"`
	Traits    map[string][]string `json:"traits,omitempty"`
	Device    *Device             `json:"device,omitempty"`
	KeyPolicy KeyPolicy           `json:"key_policy"`
	Grant     Grant               `json:"grant"`
	MFADevice string              `json:"mfa_device,omitempty"` // the id of the login's second factor, "" where there was none
	LoginIP   netip.Addr          `json:"login_ip,omitzero"`
	PinnedIP  netip.Addr          `json:"pinned_ip,omitzero"`
	Validity  Validity            `json:"validity"`
}

// Validity is when an identity was issued and when it ends, in UTC, and the serial number of its certificates, in hex:
// the X.509 certificate's, whose lower 64 bits are the SSH certificate's.
type Validity struct {
	Serial   string    `json:"serial,omitempty"`
	IssuedAt time.Time `json:"issued_at"`
	Expires  time.Time `json:"expires"`
}

// Device is the trusted device that an identity is bound to. All of ID, AssetTag and CredentialID are set, or there
// is no Device.
type Device struct {
	ID           string        `json:"device_id"`
	AssetTag     string        `json:"asset_tag"`
	CredentialID string        `json:"credential_id"`
	Level        device.Level  `json:"level"`
	OS           device.OS     `json:"os_type"`
	Claims       device.Claims `json:"claims,omitzero"`
}

// HostRole is what a host's certificate lets it be.
type HostRole string

// The host roles.
const (
	RoleAuth  HostRole = "auth"
	RoleProxy HostRole = "proxy"
	RoleNode  HostRole = "node"
	RoleDB    HostRole = "db"
	RoleKube  HostRole = "kube"
	RoleApp   HostRole = "app"
)

// ParseHostRole takes a role that a join token may give.
func ParseHostRole(s string) (HostRole, bool) {
	switch r := HostRole(s); r {
	case RoleProxy, RoleNode, RoleDB, RoleKube, RoleApp:
		return r, true
	}
	return "", false
}

// Host is a server of the cluster: its UUID, its role, and the name it serves under, empty where it has the UUID
// alone.
type Host struct {
	ID      string
	Role    HostRole
	Name    string
	Cluster string
}

// DNSName is the name that a host's TLS certificate bears: auth.CLUSTER, proxy.CLUSTER, and UUID.ROLE.CLUSTER for
// agents.
func (h Host) DNSName() string {
	switch h.Role {
	case RoleAuth, RoleProxy:
		return string(h.Role) + "." + h.Cluster
	}
	return h.ID + "." + string(h.Role) + "." + h.Cluster
}

// ServedDNSName is the name by which an agent is reached for a resource that it serves.
func (h Host) ServedDNSName(resource string) string {
	return target.SNIName(resource) + "." + string(h.Role) + "." + h.Cluster
}

// Caller is who makes a call: a user, a host, the server's own administrator through the admin socket (Local), or,
// with none of them, somebody without a certificate. Addr is where the call comes from, as far as it is known.
type Caller struct {
	User  *User
	Host  *Host
	Local bool
	Addr  netip.Addr
	// Certificate is SHA-256 of the DER of the certificate that the caller showed, nil where there was none; Expires is
	// its end.
	Certificate []byte
	Expires     time.Time
}

// LocalUser is the name under which the admin socket's changes are audited.
const LocalUser = "system:local"

// Name is the caller's name in audit events.
func (c Caller) Name() string {
	switch {
	case c.Local:
		return LocalUser
	case c.User != nil:
		return c.User.Name
	case c.Host != nil:
		return "host:" + c.Host.ID
	}
	return ""
}

// ValidName reports whether s is fit for a certificate: a user's, login's or role's name of 1 to 128 printable ASCII
// characters without space or comma. Look-alike letters are refused because they are not ASCII.
func ValidName(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' })
}

// NoLogin is the one principal of a user with no logins: no agent accepts it.
func NoLogin(uuid string) string { return "-sallyport-nologin-" + uuid }
