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
	"github.com/sallyport/sallyport/internal/access/strictest"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Picture is one state of the cluster. It is never changed once it is out; its zero value refuses everything.
type Picture struct {
	Revision    uint64
	Roles       map[string]*access.Policy
	Locks       lock.Set
	Settings    cluster.Settings
	Servers     map[string]*identity.Server
	Databases   map[string]*target.DatabaseServer
	Clusters    map[string]*target.KubeCluster
	Logins      map[string]*identity.Login // later logins that sessions go on as, by device credential
	Ended       map[string]*live.End       // sessions that an administrator ended, by id
	Authorities Authorities
}

// Authorities are the public keys that hosts decide by; several of a kind during a rotation.
type Authorities struct {
	SSHUser    []ssh.PublicKey
	SSHHost    []ssh.PublicKey
	TLSUser    []*x509.Certificate
	DialTicket []ed25519.PublicKey
	Recording  *recording.Recipient // whom recordings are sealed for; nil where the cluster keeps none
}

// Ref names a resource.
type Ref struct {
	Kind manifest.Kind
	Name string
}

// Change is a step from one picture to the next. A Complete one holds everything: what it does not put is gone, and
// names the run that tells it: revisions of one run say nothing to another.
type Change struct {
	Run         uint64
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

// Assigned reports whether a resource was created by hand, and if so whether a host is among the agents that serve it.
func (p *Picture) Assigned(h identity.Host, name string) (byHand, serves bool) {
	var agents []string
	switch d, k := p.Databases[name], p.Clusters[name]; {
	case h.Role == identity.RoleDB && d != nil:
		agents = d.Agents
	case h.Role == identity.RoleKube && k != nil:
		agents = k.Agents
	default:
		return false, false
	}
	return true, len(agents) == 0 || slices.Contains(agents, h.ID) || h.Name != "" && slices.Contains(agents, h.Name)
}

// HostLocked reports whether a lock refuses a host.
func (p *Picture) HostLocked(id string, now time.Time) bool {
	return p.Locks.MatchHost(id, now)
}

// next builds the picture after a change; what the change does not touch is shared.
func (p *Picture) next(c Change) *Picture {
	n := &Picture{}
	if !c.Complete {
		*n = *p
	}
	n.Revision, n.Authorities = c.Revision, p.Authorities
	if c.Authorities != nil {
		n.Authorities = *c.Authorities
	}
	var gone []string
	var locks []lock.Lock
	for _, k := range c.kinds() {
		n.unshare(k)
	}
	for _, r := range c.Removed {
		if r.Kind == manifest.Lock {
			gone = append(gone, r.Name)
		}
		n.remove(r)
	}
	for _, r := range c.Put {
		if l, ok := r.Spec.(*lock.Lock); ok {
			locks = append(locks, *l)
		}
		n.put(r)
	}
	if len(gone)+len(locks) > 0 {
		n.Locks = n.Locks.Change(gone, locks)
	}
	return n
}

// kinds are those that a change touches.
func (c *Change) kinds() []manifest.Kind {
	var out []manifest.Kind
	add := func(k manifest.Kind) {
		if !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	for _, r := range c.Removed {
		add(r.Kind)
	}
	for _, r := range c.Put {
		add(r.Kind)
	}
	return out
}

// unshare gives the picture its own map of a kind.
func (p *Picture) unshare(k manifest.Kind) {
	switch k {
	case manifest.Role:
		p.Roles = own(p.Roles)
	case manifest.Node:
		p.Servers = own(p.Servers)
	case manifest.DB:
		p.Databases = own(p.Databases)
	case manifest.Kube:
		p.Clusters = own(p.Clusters)
	case manifest.FollowedLogin:
		p.Logins = own(p.Logins)
	case manifest.SessionEnd:
		p.Ended = own(p.Ended)
	}
}

func own[V any](m map[string]V) map[string]V {
	if m == nil {
		return map[string]V{}
	}
	return maps.Clone(m)
}

func (p *Picture) remove(r Ref) {
	switch r.Kind {
	case manifest.Role:
		delete(p.Roles, r.Name)
	case manifest.Node:
		delete(p.Servers, r.Name)
	case manifest.DB:
		delete(p.Databases, r.Name)
	case manifest.Kube:
		delete(p.Clusters, r.Name)
	case manifest.Cap:
		p.Settings = cluster.Settings{} // and so every mode is required
	case manifest.FollowedLogin:
		delete(p.Logins, r.Name)
	case manifest.SessionEnd:
		delete(p.Ended, r.Name)
	}
}

func (p *Picture) put(r *manifest.Resource) {
	switch s := r.Spec.(type) {
	case *role.Role:
		policy, _ := access.Compile(*s) // one that cannot be judged still denies and demands
		p.Roles[s.Name] = policy
	case *cluster.Settings:
		p.Settings = *s
	case *identity.Server:
		p.Servers[s.ID] = s
	case *target.DatabaseServer:
		p.Databases[s.Name] = s
	case *target.KubeCluster:
		p.Clusters[s.Name] = s
	case *identity.Login:
		p.Logins[s.Credential] = s
	case *live.End:
		p.Ended[s.Session] = s
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
		res.Spec = &role.Role{Name: name, Deny: strictest.Role()}
	case manifest.Lock:
		res.Spec = strictest.Lock(name)
	case manifest.Cap:
		res.Spec = strictest.Settings()
	case manifest.SessionEnd:
		res.Spec = &live.End{Session: name}
	}
	return res
}
