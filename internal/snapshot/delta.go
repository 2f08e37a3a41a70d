package snapshot

import (
	"reflect"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
)

// Delta is what of one picture may decide otherwise than an earlier one did. What only opens doors is not in it.
type Delta struct {
	Everything bool // the settings, which bear on everybody
	Roles      []string
	Locks      []*lock.Lock
	Logins     []*identity.Login
	Ended      []string // sessions, by id
}

// Since compares a picture with an earlier one.
func (p *Picture) Since(before *Picture) Delta {
	var d Delta
	if p == before {
		return d
	}
	d.Everything = !reflect.DeepEqual(p.Settings, before.Settings)
	for name, policy := range p.Roles {
		if before.Roles[name] != policy {
			d.Roles = append(d.Roles, name)
		}
	}
	for name := range before.Roles {
		if p.Roles[name] == nil {
			d.Roles = append(d.Roles, name)
		}
	}
	for l := range p.Locks.Changed(before.Locks) {
		d.Locks = append(d.Locks, l)
	}
	for credential, l := range p.Logins {
		if before.Logins[credential] != l {
			d.Logins = append(d.Logins, l)
		}
	}
	for id := range p.Ended {
		if before.Ended[id] == nil {
			d.Ended = append(d.Ended, id)
		}
	}
	return d
}

// Continues gives the identity that a session of u goes on as, after a later login on its device; nil where there is
// none.
func (p *Picture) Continues(u *identity.User) *identity.User {
	if u.Device == nil {
		return nil
	}
	l := p.Logins[u.Device.CredentialID]
	if l == nil {
		return nil
	}
	return l.Continues(u)
}
