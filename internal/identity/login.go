package identity

import (
	"slices"
	"time"
)

// Login is a user's later login on one device, as agents hear of it until what it follows is over: sessions that the
// certificates it follows let in go on as it, through those certificates' end.
type Login struct {
	Credential string     `json:"-"`
	Follows    []Validity `json:"follows"`
	Identity   User       `json:"identity"`
}

// Continues gives the identity that a session of u goes on as after this login, nil where it does not: the login's
// roles, traits, device and times, and what hangs on the session's own connection, its addresses and grants, as it was.
func (l *Login) Continues(u *User) *User {
	if u.Device == nil || l.Identity.Device == nil || u.Device.CredentialID != l.Identity.Device.CredentialID ||
		u.Name != l.Identity.Name || u.Kind != l.Identity.Kind || u.Cluster != l.Identity.Cluster || u.Validity.Serial == "" {
		return nil
	}
	if !slices.ContainsFunc(l.Follows, func(i Validity) bool { return i.Serial == u.Validity.Serial }) {
		return nil
	}
	next := l.Identity
	next.Grant, next.LoginIP, next.PinnedIP = u.Grant, u.LoginIP, u.PinnedIP
	return &next
}

// History is the certificates that a device credential has, as auth remembers them from one login to the next.
type History struct {
	User   string     `json:"user"`
	Issued []Validity `json:"issued"`
}

// maxHistory bounds how many certificates of one credential are remembered, the newest.
const maxHistory = 64

// Follow adds a login to the history of its credential and returns what it follows: certificates of the same user that
// are good at now and end before the login's own. An earlier one that lost is refused by its lock, whoever follows it.
func (h *History) Follow(u *User, now time.Time, lost func(Validity) bool) []Validity {
	if h.User != u.Name {
		*h = History{User: u.Name}
	}
	h.Issued = slices.DeleteFunc(h.Issued, func(i Validity) bool { return !now.Before(i.Expires) || lost(i) })
	if n := len(h.Issued) - maxHistory + 1; n > 0 {
		h.Issued = slices.Delete(h.Issued, 0, n)
	}
	var follows []Validity
	for _, i := range h.Issued {
		if i.Expires.Before(u.Validity.Expires) {
			follows = append(follows, i)
		}
	}
	h.Issued = append(h.Issued, u.Validity)
	return follows
}

// LastEnd is when the last of some certificates ends.
func LastEnd(list []Validity) time.Time {
	var end time.Time
	for _, i := range list {
		if i.Expires.After(end) {
			end = i.Expires
		}
	}
	return end
}
