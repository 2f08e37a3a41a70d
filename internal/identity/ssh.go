package identity

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// Names of SSH certificate extensions (OpenSSH PROTOCOL.certkeys). The teleport-device-* names are those that the
// guide shows.
const (
	ExtLoginIP          = "login-ip"
	ExtKeyPolicy        = "private-key-policy"
	ExtDeviceID         = "teleport-device-id"
	ExtDeviceTag        = "teleport-device-asset-tag"
	ExtDeviceCredential = "teleport-device-credential-id"
	ExtIdentity         = "sallyport-identity"
	ExtHost             = "sallyport-host"

	extPTY   = "permit-pty"
	extPort  = "permit-port-forwarding"
	extAgent = "permit-agent-forwarding"

	// optSourceAddress is the critical option that pins a certificate to an address.
	optSourceAddress = "source-address"
)

// lower64 masks what an SSH certificate's serial number holds of the identity's.
var lower64 = new(big.Int).SetUint64(1<<64 - 1)

// SSHPermissions is what a user's SSH certificate says of this identity.
func (u *User) SSHPermissions() (ssh.Permissions, error) {
	raw, err := u.attributes()
	if err != nil {
		return ssh.Permissions{}, err
	}
	p := ssh.Permissions{Extensions: map[string]string{
		ExtIdentity:  string(raw),
		ExtKeyPolicy: string(u.KeyPolicy),
	}}
	for name, granted := range map[string]bool{
		extPTY: u.Grant.PTY, extPort: u.Grant.PortForwarding, extAgent: u.Grant.AgentForwarding,
	} {
		if granted {
			p.Extensions[name] = ""
		}
	}
	if u.LoginIP.IsValid() {
		p.Extensions[ExtLoginIP] = u.LoginIP.String()
	}
	if d := u.Device; d != nil {
		p.Extensions[ExtDeviceID], p.Extensions[ExtDeviceTag] = d.ID, d.AssetTag
		p.Extensions[ExtDeviceCredential] = d.CredentialID
	}
	if u.PinnedIP.IsValid() {
		p.CriticalOptions = map[string]string{
			optSourceAddress: netip.PrefixFrom(u.PinnedIP, u.PinnedIP.BitLen()).String(),
		}
	}
	return p, nil
}

// FromSSH reads the identity of a user's SSH certificate. It judges what the certificate says, not who signed it:
// verify the signature, the times and the certificate's type first.
func FromSSH(c *ssh.Certificate) (*User, error) {
	if c.CertType != ssh.UserCert {
		return nil, errors.New("not a user certificate")
	}
	for name := range c.CriticalOptions {
		if name != optSourceAddress {
			return nil, fmt.Errorf("unknown critical option %q", name)
		}
	}
	if len(c.ValidPrincipals) == 0 {
		return nil, errors.New("certificate without principals")
	}
	if slices.ContainsFunc(c.ValidPrincipals, func(p string) bool { return !ValidName(p) }) {
		return nil, errors.New("a principal that is not printable ASCII without space or comma")
	}
	u := &User{Name: c.KeyId}
	if c.ValidBefore > 1<<62 {
		return nil, errors.New("certificate without an end")
	}
	u.Validity.Expires = time.Unix(int64(c.ValidBefore), 0).UTC()
	if err := parseAttributes([]byte(c.Extensions[ExtIdentity]), u); err != nil {
		return nil, err
	}
	return u, u.agrees(c)
}

// agrees compares what the certificate says twice, in names of its own and in the attributes.
func (u *User) agrees(c *ssh.Certificate) error {
	want, err := u.SSHPermissions()
	if err != nil {
		return err
	}
	for _, name := range []string{ExtKeyPolicy, ExtDeviceID, ExtDeviceTag, ExtDeviceCredential, extPTY, extPort, extAgent} {
		have, ok := c.Extensions[name]
		expect, wanted := want.Extensions[name]
		if have != expect || ok != wanted {
			return fmt.Errorf("extension %s does not agree with the identity", name)
		}
	}
	if n, ok := new(big.Int).SetString(u.Validity.Serial, 16); ok && n.And(n, lower64).Uint64() != c.Serial {
		return errors.New("serial number does not agree with the identity")
	}
	if c.CriticalOptions[optSourceAddress] != want.CriticalOptions[optSourceAddress] {
		return errors.New("source-address does not agree with the identity")
	}
	return nil
}

// SSHPermissions is what a host's SSH certificate says of it.
func (h Host) SSHPermissions() (ssh.Permissions, error) {
	raw, err := h.attributes()
	return ssh.Permissions{Extensions: map[string]string{ExtHost: string(raw)}}, err
}

// HostFromSSH reads the host of an SSH host certificate, as FromSSH does a user.
func HostFromSSH(c *ssh.Certificate) (*Host, error) {
	if c.CertType != ssh.HostCert {
		return nil, errors.New("not a host certificate")
	}
	if len(c.CriticalOptions) > 0 {
		return nil, errors.New("a host certificate with critical options")
	}
	return parseHostAttributes([]byte(c.Extensions[ExtHost]))
}
