package access

import (
	"fmt"
	"slices"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// WhatIf tries small changes to a question and says, one sentence each, which of them would turn the decision.
func WhatIf(in Input) []string {
	var out []string
	allowed := Decide(in).Allowed
	try := func(changed Input, allows, refuses string) {
		switch now := Decide(changed).Allowed; {
		case now && !allowed:
			out = append(out, allows)
		case !now && allowed:
			out = append(out, refuses)
		}
	}
	for _, l := range device.Levels() {
		who := *in.Identity
		who.Device = &identity.Device{ID: "any", AssetTag: "any", CredentialID: "any", Level: l}
		who.KeyPolicy = identity.KeyAnywhere
		if l.Hardware() {
			who.KeyPolicy = identity.KeyHardware
		}
		c := in
		c.Identity = &who
		n := len(out)
		try(c, fmt.Sprintf("a login from a trusted device of level %s or stronger", l), "")
		if len(out) > n && l != device.LevelTPMTrusted {
			out = out[:n]
			out = append(out, fmt.Sprintf("a login from a trusted device of level %s", l))
		}
	}
	if in.Identity.Device != nil {
		try(withSecureBoot(in), "a login that proves Secure Boot", "")
		try(withoutDevice(in), "", "a login without the device would be refused")
	}
	for l := range in.Locks.Candidates(in.Identity, in.Target, in.Action) {
		c := in
		c.Locks = in.Locks.Change([]string{l.Name}, nil)
		try(c, fmt.Sprintf("removing the lock: tctl rm lock/%s", l.Name), "")
	}
	for _, name := range in.Identity.Roles {
		who := *in.Identity
		who.Roles = slices.DeleteFunc(slices.Clone(who.Roles), func(r string) bool { return r == name })
		c := in
		c.Identity = &who
		try(c, fmt.Sprintf("taking role %q from the user", name), fmt.Sprintf("without role %q it would be refused", name))
	}
	for name := range in.Roles {
		if slices.Contains(in.Identity.Roles, name) || allowed {
			continue
		}
		who := *in.Identity
		who.Roles = append(slices.Clone(who.Roles), name)
		c := in
		c.Identity = &who
		try(c, fmt.Sprintf("giving the user role %q", name), "")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// withoutDevice is the question of a login that proves no device.
func withoutDevice(in Input) Input {
	who := *in.Identity
	who.Device, who.KeyPolicy = nil, identity.KeyAnywhere
	in.Identity = &who
	return in
}

// withSecureBoot is the question of the same login, had its device proven Secure Boot.
func withSecureBoot(in Input) Input {
	who, proven, on := *in.Identity, *in.Identity.Device, true
	proven.Claims.SecureBoot, who.Device = &on, &proven
	in.Identity = &who
	return in
}

// Selects reports whether some role of the identity grants something on the target, whatever device and login it is
// asked with: what a listing shows.
func Selects(in Input) bool {
	if in.Identity == nil || in.Now.IsZero() || !in.Now.Before(in.Identity.Validity.Expires) {
		return false
	}
	if in.Locks.Match(in.Identity, in.Target, in.Action, in.Now) != nil {
		return false
	}
	in.Action = target.Action{Verb: "list"}
	granted, _ := rolesSay(&in, gather(&in, nil))
	return granted != nil
}
