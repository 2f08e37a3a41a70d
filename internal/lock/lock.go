// Package lock is a refusal that is in force at once, wherever it names somebody or something.
package lock

import (
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Target says what a lock refuses: everything that has all of the fields that are set.
type Target struct {
	User             string `json:"user,omitempty"`
	Role             string `json:"role,omitempty"`
	Login            string `json:"login,omitempty"`
	Device           string `json:"device,omitempty"`
	DeviceCredential string `json:"device_credential,omitempty"`
	ServerID         string `json:"server_id,omitempty"`
	MFADevice        string `json:"mfa_device,omitempty"`
}

// Lock is one lock. With IssuedBefore set it touches only what was issued before that moment.
type Lock struct {
	Name         string    `json:"-"`
	Target       Target    `json:"target"`
	IssuedBefore time.Time `json:"issued_before,omitzero"`
	Message      string    `json:"message,omitempty"`
	Expires      time.Time `json:"expires,omitzero"`
	CreatedBy    string    `json:"created_by,omitempty"`
}

// Margin is how far ahead of the clock a lock on what was issued before is written: what is issued while the lock is on
// its way into the store is issued before it too. Who logs in meanwhile waits for that long.
const Margin = 2 * time.Second

// Check refuses a lock that names nothing.
func (l Lock) Check() error {
	if l.Target == (Target{}) {
		return errors.New("a lock needs a target: user, role, login, device, device_credential, server_id or mfa_device")
	}
	return nil
}

// InForce reports whether the lock counts at a time.
func (l *Lock) InForce(now time.Time) bool { return l.Expires.IsZero() || now.Before(l.Expires) }

// Matches reports whether the lock refuses this identity at this target, whose id and login are those of the action.
// A lock with a target that this build cannot compare matches everybody it might mean.
// A lock on a node keeps people off the node, not administrators off its record.
func (l *Lock) Matches(who *identity.User, where target.Target, what target.Action) bool {
	t := &l.Target
	if t.User != "" && t.User != who.Name {
		return false
	}
	if t.Role != "" && !has(who.Roles, t.Role) {
		return false
	}
	if t.Login != "" && t.Login != what.Login {
		return false
	}
	if t.Device != "" && (who.Device == nil || who.Device.ID != t.Device) {
		return false
	}
	if t.DeviceCredential != "" && (who.Device == nil || who.Device.CredentialID != t.DeviceCredential) {
		return false
	}
	if t.ServerID != "" && (t.ServerID != where.ID || where.Kind == target.Administration) {
		return false
	}
	if t.MFADevice != "" && t.MFADevice != who.MFADevice {
		return false
	}
	if *t == (Target{}) { // it cannot be read, or names what this build does not know
		return true
	}
	return l.IssuedBefore.IsZero() || who.Validity.IssuedAt.Before(l.IssuedBefore)
}

func has(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

// MatchesHost reports whether the lock refuses a host.
func (l Lock) MatchesHost(id string) bool {
	return l.Target.ServerID == id && l.Target == Target{ServerID: id}
}

// String is the lock's target as refusals print it: `Device:"<id>"`.
func (t Target) String() string {
	for _, f := range []struct{ kind, value string }{
		{"Device", t.Device}, {"Device", t.DeviceCredential}, {"User", t.User}, {"Role", t.Role}, {"Login", t.Login},
		{"Node", t.ServerID}, {"MFADevice", t.MFADevice},
	} {
		if f.value != "" {
			return fmt.Sprintf("%s:%q", f.kind, f.value)
		}
	}
	return "everything"
}
