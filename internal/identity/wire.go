package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"strings"
	"time"
)

// attributes is the part of an identity that has no field of its own in a certificate: JSON, in the SSH extension
// sallyport-identity and in the X.509 extension OIDAttributes. Its format is docs/protocol/certificate.md.
type attributes struct {
	V        int                 `json:"v"`
	Cluster  string              `json:"cluster"`
	Kind     Kind                `json:"kind"`
	Roles    []string            `json:"roles"`
	Traits   map[string][]string `json:"traits,omitempty"`
	Device   *Device             `json:"device,omitempty"`
	Key      KeyPolicy           `json:"key_policy"`
	Grant    Grant               `json:"grant"`
	LoginIP  netip.Addr          `json:"login_ip,omitzero"`
	PinnedIP netip.Addr          `json:"pinned_ip,omitzero"`
	MFA      string              `json:"mfa_device,omitempty"`
	issue
}

// issue is which certificate it is.
type issue struct {
	Serial   string    `json:"serial,omitempty"`
	IssuedAt time.Time `json:"issued_at"`
}

// attributesVersion is the only version that this build reads.
const attributesVersion = 1

// maxAttributes bounds what is parsed, in bytes.
const maxAttributes = 32 << 10

func (u *User) attributes() ([]byte, error) {
	if err := u.check(); err != nil {
		return nil, err
	}
	return json.Marshal(attributes{
		V: attributesVersion, Cluster: u.Cluster, Kind: u.Kind, Roles: u.Roles, Traits: u.Traits, Device: u.Device,
		Key: u.KeyPolicy, Grant: u.Grant, LoginIP: u.LoginIP, PinnedIP: u.PinnedIP, MFA: u.MFADevice,
		issue: issue{u.Validity.Serial, u.Validity.IssuedAt.UTC()},
	})
}

func parseAttributes(raw []byte, u *User) error {
	if len(raw) > maxAttributes {
		return errors.New("identity attributes too large")
	}
	var a attributes
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return fmt.Errorf("identity attributes: %w", err)
	}
	if d.More() {
		return errors.New("identity attributes: data behind the end")
	}
	if a.V != attributesVersion {
		return fmt.Errorf("identity attributes of version %d, this build reads %d", a.V, attributesVersion)
	}
	u.Cluster, u.Kind, u.Roles, u.Traits, u.Device = a.Cluster, a.Kind, a.Roles, a.Traits, a.Device
	u.KeyPolicy, u.Grant, u.LoginIP, u.PinnedIP = a.Key, a.Grant, a.LoginIP, a.PinnedIP
	u.MFADevice, u.Validity.Serial, u.Validity.IssuedAt = a.MFA, a.Serial, a.IssuedAt
	return u.check()
}

// check holds what is true of every identity, on the way into a certificate and out of one.
func (u *User) check() error {
	if !ValidName(u.Name) {
		return fmt.Errorf("user name %q is not fit for a certificate", u.Name)
	}
	if u.Cluster == "" {
		return errors.New("identity without a cluster")
	}
	if u.Kind != Human && u.Kind != Bot {
		return fmt.Errorf("unknown user kind %q", u.Kind)
	}
	if u.KeyPolicy != KeyAnywhere && u.KeyPolicy != KeyHardware {
		return fmt.Errorf("unknown key policy %q", u.KeyPolicy)
	}
	for _, r := range u.Roles {
		if !ValidName(r) {
			return fmt.Errorf("role name %q is not fit for a certificate", r)
		}
	}
	if u.Validity.IssuedAt.IsZero() {
		return errors.New("identity without a time of issue")
	}
	if u.MFADevice != "" && !ValidName(u.MFADevice) {
		return errors.New("second factor's id is not fit for a certificate")
	}
	if s := u.Validity.Serial; s != "" {
		if n, ok := new(big.Int).SetString(s, 16); !ok || n.Sign() <= 0 || n.BitLen() > 160 {
			return errors.New("identity with a serial number that is none")
		}
	}
	return u.checkDevice()
}

func (u *User) checkDevice() error {
	d := u.Device
	if d == nil {
		if u.KeyPolicy == KeyHardware {
			return errors.New("a hardware key without a device")
		}
		return nil
	}
	for _, s := range []string{d.ID, d.AssetTag, d.CredentialID} {
		if !ValidName(s) {
			return fmt.Errorf("device attribute %q is not fit for a certificate", s)
		}
	}
	if !d.Level.Known() {
		return fmt.Errorf("unknown device level %q", d.Level)
	}
	if d.Level.Hardware() != (u.KeyPolicy == KeyHardware) {
		return fmt.Errorf("level %s with key policy %s", d.Level, u.KeyPolicy)
	}
	return nil
}

// Extensions lists the names that `tsh status` shows for this identity, in their order.
func (u *User) Extensions() []string {
	var names []string
	add := func(ok bool, name string) {
		if ok {
			names = append(names, name)
		}
	}
	add(u.LoginIP.IsValid(), ExtLoginIP)
	add(u.Grant.AgentForwarding, extAgent)
	add(u.Grant.PortForwarding, extPort)
	add(u.Grant.PTY, extPTY)
	add(true, ExtKeyPolicy)
	add(u.Device != nil, ExtDeviceTag)
	add(u.Device != nil, ExtDeviceCredential)
	add(u.Device != nil, ExtDeviceID)
	return names
}

// hostAttributes is what a host's certificates say beside its names.
type hostAttributes struct {
	V       int      `json:"v"`
	Cluster string   `json:"cluster"`
	Role    HostRole `json:"role"`
	ID      string   `json:"id"`
	Name    string   `json:"name,omitempty"`
}

func (h Host) attributes() ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, err
	}
	return json.Marshal(hostAttributes{V: attributesVersion, Cluster: h.Cluster, Role: h.Role, ID: h.ID, Name: h.Name})
}

func (h Host) check() error {
	if h.Role != RoleAuth {
		if _, ok := ParseHostRole(string(h.Role)); !ok {
			return fmt.Errorf("unknown host role %q", h.Role)
		}
	}
	if !ValidName(h.ID) || strings.ContainsAny(h.ID, "./*") || h.Cluster == "" {
		return errors.New("host without an id or a cluster")
	}
	if h.Name != "" && !ValidName(h.Name) {
		return fmt.Errorf("host name %q is not fit for a certificate", h.Name)
	}
	return nil
}

func parseHostAttributes(raw []byte) (*Host, error) {
	if len(raw) > maxAttributes {
		return nil, errors.New("host attributes too large")
	}
	var a hostAttributes
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return nil, fmt.Errorf("host attributes: %w", err)
	}
	if a.V != attributesVersion {
		return nil, fmt.Errorf("host attributes of version %d, this build reads %d", a.V, attributesVersion)
	}
	h := Host{ID: a.ID, Role: a.Role, Name: a.Name, Cluster: a.Cluster}
	return &h, h.check()
}
