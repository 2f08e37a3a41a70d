package identity

import (
	"fmt"
	"net/netip"
	"time"
)

// Account is a user as the cluster's records hold it, the resource user of version v2.
type Account struct {
	Name      string              `json:"-"`
	Kind      Kind                `json:"kind,omitempty"`
	Roles     []string            `json:"roles"`
	Traits    map[string][]string `json:"traits,omitempty"`
	CreatedBy *CreatedBy          `json:"created_by,omitempty"`
	Addresses []string            `json:"addresses,omitempty"` // of a bot: CIDRs that it logs in from
	Expires   time.Time           `json:"expires"`
	Status    Status              `json:"status"`
}

// CreatedBy says who made an account, and when.
type CreatedBy struct {
	Time time.Time `json:"time,omitzero"`
	User string    `json:"user,omitempty"`
}

// Status is whether an account may log in.
type Status struct {
	IsLocked bool `json:"is_locked"`
}

// Check refuses an account that cannot go into a certificate; the error names the field.
func (a Account) Check() error {
	if !ValidName(a.Name) {
		return fmt.Errorf("metadata.name: %q is not 1 to 128 printable ASCII characters without space or comma", a.Name)
	}
	if a.Kind != "" && a.Kind != Human && a.Kind != Bot {
		return fmt.Errorf("kind: unknown kind %q, want human or bot", a.Kind)
	}
	if len(a.Addresses) > 0 && a.Kind != Bot {
		return fmt.Errorf("addresses: only a bot has them; a role pins people by pin_source_ip")
	}
	for i, p := range a.Addresses {
		if _, err := netip.ParsePrefix(p); err != nil {
			return fmt.Errorf("addresses[%d]: %q is no CIDR, such as 10.0.0.0/8", i, p)
		}
	}
	for i, r := range a.Roles {
		if !ValidName(r) {
			return fmt.Errorf("roles[%d]: %q is no role name", i, r)
		}
	}
	for name, values := range a.Traits {
		if !ValidName(name) {
			return fmt.Errorf("traits: %q is no trait name", name)
		}
		for _, v := range values {
			if !ValidName(v) {
				return fmt.Errorf("traits.%s: %q is not 1 to 128 printable ASCII characters without space or comma", name, v)
			}
		}
	}
	return nil
}

// From reports whether an address is one that the account names; none are named by none.
func (a Account) From(addr netip.Addr) bool {
	for _, s := range a.Addresses {
		if p, err := netip.ParsePrefix(s); err == nil && p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// Locked reports whether the account may not log in at a time.
func (a Account) Locked(now time.Time) bool {
	return a.Status.IsLocked || (!a.Expires.IsZero() && a.Expires.Year() > 1 && !now.Before(a.Expires))
}
