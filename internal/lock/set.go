package lock

import (
	"cmp"
	"iter"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Set is some locks, found by what they name: a question costs what could match, not what there is. It is never
// changed once it is made; its zero value holds none.
type Set struct {
	all   []*Lock // by name
	named map[Subject][]*Lock
	rest  []*Lock // those that name nothing that is looked up: they are asked each time
	kinds uint8   // the kinds of subjects that some are found by, a bit each
}

// bit is a kind's bit in Set.kinds.
func (k SubjectKind) bit() uint8 {
	switch k {
	case ByCredential:
		return 1
	case ByDevice:
		return 2
	case ByUser:
		return 4
	case ByMFADevice:
		return 8
	case ByServer:
		return 16
	case ByRole:
		return 32
	case ByLogin:
		return 64
	}
	return 128
}

// Subject is one thing that locks name: a user, a role, a device.
type Subject struct {
	Kind  SubjectKind
	Value string
}

// SubjectKind is a kind of Subject.
type SubjectKind string

// The kinds of subjects, the narrowest first: a lock is kept under the first that it names.
const (
	ByCredential SubjectKind = "credential"
	ByDevice     SubjectKind = "device"
	ByUser       SubjectKind = "user"
	ByMFADevice  SubjectKind = "mfa_device"
	ByServer     SubjectKind = "server"
	ByRole       SubjectKind = "role"
	ByLogin      SubjectKind = "login"
)

// Subjects is everything by which locks may refuse an identity at a target.
func Subjects(who *identity.User, where target.Target, what target.Action) []Subject {
	list := []Subject{{ByUser, who.Name}, {ByMFADevice, who.MFADevice}, {ByServer, where.ID}, {ByLogin, what.Login}}
	if d := who.Device; d != nil {
		list = append(list, Subject{ByCredential, d.CredentialID}, Subject{ByDevice, d.ID})
	}
	for _, r := range who.Roles {
		list = append(list, Subject{ByRole, r})
	}
	return slices.DeleteFunc(list, func(s Subject) bool { return s.Value == "" })
}

// Subject is what the lock is found by: the narrowest of what it names, the zero Subject where it names nothing that is
// looked up.
func (l *Lock) Subject() Subject {
	for _, s := range []Subject{
		{ByCredential, l.Target.DeviceCredential}, {ByDevice, l.Target.Device}, {ByUser, l.Target.User},
		{ByMFADevice, l.Target.MFADevice}, {ByServer, l.Target.ServerID}, {ByRole, l.Target.Role}, {ByLogin, l.Target.Login},
	} {
		if s.Value != "" {
			return s
		}
	}
	return Subject{}
}

// NewSet holds locks; of two with one name the later counts.
func NewSet(locks ...Lock) Set {
	if len(locks) == 0 {
		return Set{}
	}
	byName := make(map[string]*Lock, len(locks))
	for i := range locks {
		byName[locks[i].Name] = &locks[i]
	}
	s := Set{all: make([]*Lock, 0, len(byName)), named: make(map[Subject][]*Lock, len(byName))}
	for _, l := range byName {
		s.all = append(s.all, l)
	}
	slices.SortFunc(s.all, func(a, b *Lock) int { return cmp.Compare(a.Name, b.Name) })
	for _, l := range s.all {
		if key := l.Subject(); key == (Subject{}) {
			s.rest = append(s.rest, l)
		} else {
			s.named[key] = append(s.named[key], l)
			s.kinds |= key.Kind.bit()
		}
	}
	return s
}

// Len is how many there are.
func (s Set) Len() int { return len(s.all) }

// All yields every lock, by name.
func (s Set) All() iter.Seq[*Lock] { return slices.Values(s.all) }

// Change is the set without the locks of some names and then with others.
func (s Set) Change(removed []string, put []Lock) Set {
	list := make([]Lock, 0, len(s.all)+len(put))
	for _, l := range s.all {
		if !slices.Contains(removed, l.Name) {
			list = append(list, *l)
		}
	}
	return NewSet(append(list, put...)...)
}

// Candidates yields the locks that could match: all that name the user, one of their roles, their device, the target,
// the login, and those that name nothing.
func (s Set) Candidates(who *identity.User, where target.Target, what target.Action) iter.Seq[*Lock] {
	return func(yield func(*Lock) bool) {
		some := func(list []*Lock) bool {
			for _, l := range list {
				if !yield(l) {
					return false
				}
			}
			return true
		}
		if len(s.all) == 0 || !some(s.rest) {
			return
		}
		ask := func(kind SubjectKind, value string) bool {
			return value == "" || s.kinds&kind.bit() == 0 || some(s.named[Subject{kind, value}])
		}
		if d := who.Device; d != nil && !(ask(ByCredential, d.CredentialID) && ask(ByDevice, d.ID)) {
			return
		}
		if !ask(ByUser, who.Name) || !ask(ByMFADevice, who.MFADevice) || !ask(ByServer, where.ID) || !ask(ByLogin, what.Login) {
			return
		}
		if s.kinds&ByRole.bit() == 0 {
			return
		}
		for _, r := range who.Roles {
			if !ask(ByRole, r) {
				return
			}
		}
	}
}

// Match is the lock in force that refuses this identity at this target, nil where none does; of several, the first by
// name, so that what is told does not depend on chance.
func (s Set) Match(who *identity.User, where target.Target, what target.Action, now time.Time) *Lock {
	var found *Lock
	for l := range s.Candidates(who, where, what) {
		if (found == nil || l.Name < found.Name) && l.InForce(now) && l.Matches(who, where, what) {
			found = l
		}
	}
	return found
}

// MatchUser is the lock in force that refuses all that this identity does, whatever the target and the login.
func (s Set) MatchUser(who *identity.User, now time.Time) *Lock {
	var found *Lock
	for l := range s.Candidates(who, target.Target{}, target.Action{}) {
		if l.Target.Login == "" && l.Target.ServerID == "" && (found == nil || l.Name < found.Name) &&
			l.InForce(now) && l.Matches(who, target.Target{}, target.Action{}) {
			found = l
		}
	}
	return found
}

// MatchHost reports whether a lock in force refuses a host.
func (s Set) MatchHost(id string, now time.Time) bool {
	return slices.ContainsFunc(s.named[Subject{ByServer, id}], func(l *Lock) bool { return l.InForce(now) && l.MatchesHost(id) })
}

// Changed yields the locks that s has and before had not, or had otherwise. What is gone can only open doors.
func (s Set) Changed(before Set) iter.Seq[*Lock] {
	return func(yield func(*Lock) bool) {
		old := before.all
		for _, l := range s.all {
			for len(old) > 0 && old[0].Name < l.Name {
				old = old[1:]
			}
			if len(old) > 0 && old[0].Name == l.Name && old[0].same(l) {
				continue
			}
			if !yield(l) {
				return
			}
		}
	}
}

func (l *Lock) same(o *Lock) bool {
	return l == o || (l.Target == o.Target && l.IssuedBefore.Equal(o.IssuedBefore) && l.Expires.Equal(o.Expires))
}

// Ahead is how long a lock on what was issued before still is ahead of the clock, by Margin at most; 0 where it is not.
func (l *Lock) Ahead(now time.Time) time.Duration {
	if d := l.IssuedBefore.Sub(now); !l.IssuedBefore.IsZero() && d > 0 && d <= Margin {
		return d
	}
	return 0
}

// Ahead is how long to wait until no lock is ahead of the clock that would refuse what is issued to somebody now.
func (s Set) Ahead(who *identity.User, now time.Time) time.Duration {
	fresh, longest := *who, time.Duration(0)
	fresh.Validity.IssuedAt = now
	for l := range s.Candidates(&fresh, target.Target{}, target.Action{}) {
		if l.InForce(now) && l.Target.Login == "" && l.Target.ServerID == "" && l.Matches(&fresh, target.Target{}, target.Action{}) {
			longest = max(longest, l.Ahead(now))
		}
	}
	return longest
}
