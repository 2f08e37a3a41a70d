package gate

import (
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// index is the live sessions by what a change may name, so that a change costs what it touches.
type index struct {
	all map[string]*Session // by id
	by  map[lock.Subject]map[*Session]struct{}
}

func newIndex() index {
	return index{all: map[string]*Session{}, by: map[lock.Subject]map[*Session]struct{}{}}
}

// keys are what a session is found by: what locks may name of whom it goes on as, and of whom it was let in as.
func keys(s *Session, who *identity.User) []lock.Subject {
	list := lock.Subjects(who, s.request.Target, s.request.Action)
	if who != s.origin {
		list = append(list, lock.Subjects(s.origin, s.request.Target, s.request.Action)...)
	}
	return list
}

// add takes a session in, under the identity that it has.
func (x *index) add(s *Session, who *identity.User) {
	x.all[s.id] = s
	for _, key := range keys(s, who) {
		if x.by[key] == nil {
			x.by[key] = map[*Session]struct{}{}
		}
		x.by[key][s] = struct{}{}
	}
}

// remove takes a session out, under the identity that it had; it reports whether it was there.
func (x *index) remove(s *Session, who *identity.User) bool {
	if x.all[s.id] != s {
		return false
	}
	delete(x.all, s.id)
	for _, key := range keys(s, who) {
		delete(x.by[key], s)
		if len(x.by[key]) == 0 {
			delete(x.by, key)
		}
	}
	return true
}

// touched gathers the sessions that a delta may decide otherwise.
func (x *index) touched(d snapshot.Delta, into map[*Session]struct{}) {
	some := func(key lock.Subject) {
		for s := range x.by[key] {
			into[s] = struct{}{}
		}
	}
	everything := d.Everything
	for _, l := range d.Locks {
		key := l.Subject()
		everything = everything || key == lock.Subject{}
		some(key)
	}
	if everything {
		for _, s := range x.all {
			into[s] = struct{}{}
		}
		return
	}
	for _, r := range d.Roles {
		some(lock.Subject{Kind: lock.ByRole, Value: r})
	}
	for _, l := range d.Logins {
		some(lock.Subject{Kind: lock.ByCredential, Value: l.Credential})
	}
	for _, id := range d.Ended {
		if s := x.all[id]; s != nil {
			into[s] = struct{}{}
		}
	}
}
