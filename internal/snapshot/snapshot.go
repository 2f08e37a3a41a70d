// Package snapshot is the picture: the dated, read-only view of roles, locks and settings that decisions are made by.
package snapshot

import (
	"crypto/ed25519"
	"crypto/x509"
	"maps"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Picture is one state of the cluster. It is never changed once it is out; its zero value refuses everything.
type Picture struct {
	Revision    uint64
	Roles       map[string]*access.Policy
	Locks       []lock.Lock
	Settings    cluster.Settings
	Servers     map[string]*identity.Server
	Authorities Authorities
}

// Authorities are the public keys that hosts decide by; several of a kind during a rotation.
type Authorities struct {
	SSHUser    []ssh.PublicKey
	SSHHost    []ssh.PublicKey
	TLSUser    []*x509.Certificate
	DialTicket []ed25519.PublicKey
}

// Ref names a resource.
type Ref struct {
	Kind manifest.Kind
	Name string
}

// Change is a step from one picture to the next. A Complete one holds everything: what it does not put is gone.
type Change struct {
	Revision    uint64
	Complete    bool
	Put         []*manifest.Resource
	Removed     []Ref
	Authorities *Authorities
}

// Decide asks access by this picture.
func (p *Picture) Decide(who *identity.User, where target.Target, what target.Action, now time.Time) (access.Decision, access.Input) {
	in := access.Input{Identity: who, Target: where, Action: what, Roles: p.Roles, Locks: p.Locks, Settings: p.Settings, Now: now}
	return access.Decide(in), in
}

// HostLocked reports whether a lock refuses a host.
func (p *Picture) HostLocked(id string, now time.Time) bool {
	return slices.ContainsFunc(p.Locks, func(l lock.Lock) bool { return l.InForce(now) && l.MatchesHost(id) })
}

// next builds the picture after a change.
func (p *Picture) next(c Change) *Picture {
	n := &Picture{Revision: c.Revision, Settings: p.Settings, Authorities: p.Authorities,
		Roles: map[string]*access.Policy{}, Servers: map[string]*identity.Server{}}
	if c.Authorities != nil {
		n.Authorities = *c.Authorities
	}
	if c.Complete {
		n.Settings = cluster.Settings{}
	} else {
		n.Roles, n.Servers, n.Locks = maps.Clone(p.Roles), maps.Clone(p.Servers), slices.Clone(p.Locks)
		if n.Roles == nil {
			n.Roles, n.Servers = map[string]*access.Policy{}, map[string]*identity.Server{}
		}
	}
	for _, r := range c.Removed {
		n.remove(r)
	}
	for _, r := range c.Put {
		n.put(r)
	}
	return n
}

func (p *Picture) remove(r Ref) {
	switch r.Kind {
	case manifest.Role:
		delete(p.Roles, r.Name)
	case manifest.Node:
		delete(p.Servers, r.Name)
	case manifest.Lock:
		p.Locks = slices.DeleteFunc(p.Locks, func(l lock.Lock) bool { return l.Name == r.Name })
	case manifest.Cap:
		p.Settings = cluster.Settings{} // and so every mode is required
	}
}

func (p *Picture) put(r *manifest.Resource) {
	switch s := r.Spec.(type) {
	case *role.Role:
		policy, _ := access.Compile(*s) // one that cannot be judged still denies and demands
		p.Roles[s.Name] = policy
	case *lock.Lock:
		p.remove(Ref{manifest.Lock, s.Name})
		p.Locks = append(p.Locks, *s)
	case *cluster.Settings:
		p.Settings = *s
	case *identity.Server:
		p.Servers[s.ID] = s
	}
}

// Lists reports whether a listing shows a target to somebody.
func (p *Picture) Lists(who *identity.User, where target.Target, now time.Time) bool {
	return access.Selects(access.Input{Identity: who, Target: where, Roles: p.Roles, Locks: p.Locks, Settings: p.Settings, Now: now})
}

// Unreadable stands for a resource that this build cannot judge, at its strictest.
func Unreadable(kind manifest.Kind, name string) *manifest.Resource {
	res := &manifest.Resource{Kind: kind, Metadata: manifest.Metadata{Name: name}}
	switch kind {
	case manifest.Role:
		res.Spec = &role.Role{Name: name, Deny: access.Everything()}
	case manifest.Lock:
		res.Spec = access.LockEverybody(name)
	case manifest.Cap:
		res.Spec = access.Strictest()
	}
	return res
}
