// Package membership lets hosts join the cluster, renew their certificates, and say what they serve.
package membership

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
)

// PresenceLife is how long a host is listed after it was last heard of; PresenceEvery is how often it says so.
const (
	PresenceLife  = 15 * time.Minute
	PresenceEvery = 5 * time.Minute
)

// Pictures gives the current picture.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Reached(ctx context.Context, revision uint64)
}

// Audit records an event together with what it tells of.
type Audit interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
}

// Serving knows who may serve a resource.
type Serving interface {
	Serves(ctx context.Context, host identity.Host, name string) (bool, error)
}

// Service is the use case. Store holds which host has which name.
type Service struct {
	Records  *records.Records
	Store    store.Store
	CA       *ca.CA
	Audit    Audit
	Pictures Pictures
	Now      func() time.Time
	Serving  Serving
}

// Request is a host's wish for certificates.
type Request struct {
	Token      string
	Role       identity.HostRole
	Name       string
	TLSKey     crypto.PublicKey
	SSHKey     ssh.PublicKey
	PublicAddr []string
	Version    string
	Protocol   uint32
}

// Granted is what a host gets. Notice says why it has no name, where it wanted one.
type Granted struct {
	ca.HostCertificates
	Host   identity.Host
	Notice string
}

// checkProtocol refuses programs whose enforcement this server cannot vouch for.
// CheckProtocol refuses a host of another protocol: it may not enforce what this cluster promises.
func CheckProtocol(version string, protocol uint32) error {
	if protocol != cluster.ProtocolVersion {
		return fault.New(fault.Unsupported, "this host speaks protocol %d (version %.32q), the cluster speaks %d", protocol, version, cluster.ProtocolVersion).
			WithReason("protocol_version").WithFix("install Sallyport %s on the host", cluster.Version)
	}
	return nil
}

// InvalidToken is the one fault of every join token that does not open, to a host that wants a role.
func InvalidToken(role identity.HostRole) *fault.Error {
	return fault.New(fault.Denied, "invalid join token").WithReason("invalid_join_token").
		WithCause("it is unknown, was used, is over, or is for other roles").WithFix("tctl tokens add --type=%s", role)
}

// Join spends a token for a host's first certificates.
func (s *Service) Join(ctx context.Context, from identity.Caller, r Request) (Granted, error) {
	g, err := s.join(ctx, r)
	if err != nil {
		ev := event.Event{Kind: event.HostJoin, Message: fault.Of(err).Text,
			Session:  &event.Session{Addr: from.Addr.String(), Reason: fault.Of(err).Reason},
			Resource: &event.Resource{}}
		if role, ok := identity.ParseHostRole(string(r.Role)); ok {
			ev.Resource.ResourceKind = string(role)
		}
		if _, rerr := s.Audit.Record(context.WithoutCancel(ctx), ev); rerr != nil {
			return g, rerr
		}
	}
	return g, err
}

func (s *Service) join(ctx context.Context, r Request) (Granted, error) {
	if err := CheckProtocol(r.Version, r.Protocol); err != nil {
		return Granted{}, err
	}
	role, ok := identity.ParseHostRole(string(r.Role))
	if !ok {
		return Granted{}, InvalidToken(identity.RoleNode)
	}
	res, err := s.Records.Get(ctx, manifest.Token, records.TokenID(r.Token))
	if fault.Is(err, fault.NotFound) {
		return Granted{}, InvalidToken(role)
	}
	if err != nil {
		return Granted{}, err
	}
	t, ok := res.Spec.(*identity.JoinToken)
	if !ok || !slices.Contains(t.Roles, role) || !s.Now().Before(t.Expires) {
		return Granted{}, InvalidToken(role)
	}
	host := identity.Host{ID: uuid.NewString(), Role: role, Cluster: s.CA.Cluster()}
	ops := []store.Op{records.Unchanged(manifest.Token, t.ID, res.Metadata.Revision), spend(t, role)}
	notice := ""
	switch {
	case t.Name != "":
		host.Name = t.Name
		ops = append(ops, store.Put(records.GivenNameKey(role, t.Name, host.ID), []byte(host.ID)))
	case r.Name != "":
		take, holder, err := s.takeName(ctx, role, r.Name, host.ID)
		if err != nil {
			return Granted{}, err
		}
		if holder != "" {
			notice = fmt.Sprintf("the name %q is held by %s; this host serves under its id %s alone (to free the name: tctl rm node/%s)", r.Name, holder, host.ID, holder)
		} else {
			host.Name = r.Name
			ops = append(ops, take...)
		}
	}
	prepared, err := s.CA.PrepareHost(ca.HostRequest{Host: host, TLSKey: r.TLSKey, SSHKey: r.SSHKey, PublicAddr: r.PublicAddr})
	if err != nil {
		return Granted{}, fault.New(fault.Invalid, "%v", err).WithReason("host_request")
	}
	ev := event.Event{Kind: event.HostJoin, User: "host:" + host.ID, Success: true,
		Resource: &event.Resource{ResourceKind: string(role), ResourceName: host.Name}}
	if _, err := s.Audit.Record(ctx, ev, ops...); err != nil {
		if errors.Is(err, store.ErrConflict) {
			return Granted{}, InvalidToken(role)
		}
		return Granted{}, err
	}
	certs, err := prepared.Issue(ctx)
	return Granted{HostCertificates: certs, Host: host, Notice: notice}, err
}

// spend uses a token up for one role: one that lets several parts of a host join lets each of them join once.
func spend(t *identity.JoinToken, role identity.HostRole) store.Op {
	rest := *t
	rest.Roles = slices.DeleteFunc(slices.Clone(t.Roles), func(r identity.HostRole) bool { return r == role })
	if len(rest.Roles) > 0 {
		if op, err := records.Put(manifest.New(&rest, 0)); err == nil {
			return op
		}
	}
	return records.Delete(manifest.Token, t.ID)
}

// takeName gives the operations that take a name nobody holds, or says who does.
func (s *Service) takeName(ctx context.Context, role identity.HostRole, name, id string) ([]store.Op, string, error) {
	if !identity.ValidName(name) {
		return nil, "", fault.New(fault.Invalid, "host name %q is not 1 to 128 printable ASCII characters without space or comma", name).WithReason("host_name")
	}
	if _, err := uuid.Parse(name); err == nil {
		return nil, "", fault.New(fault.Invalid, "host name %q is the id of a host", name).WithReason("host_name").
			WithCause("its certificate would be that of the host with this id")
	}
	key := records.HostNameKey(role, name)
	rec, err := s.Store.Get(ctx, key)
	if !errors.Is(err, store.ErrNotFound) {
		return nil, string(rec.Value), err
	}
	given, err := s.Store.List(ctx, store.Range{Prefix: records.GivenNameKey(role, name, ""), Limit: 1})
	if err != nil {
		return nil, "", err
	}
	if len(given.Records) > 0 { // a token gave it: what hosts of that name share is not for others
		return nil, string(given.Records[0].Value), nil
	}
	return []store.Op{store.CheckRevision(key, 0), store.Put(key, []byte(id))}, "", nil
}

// Renew gives a host new certificates for what it is.
func (s *Service) Renew(ctx context.Context, from identity.Caller, r Request) (Granted, error) {
	if from.Host == nil {
		return Granted{}, fault.New(fault.Unauthenticated, "only a host renews a host's certificates")
	}
	if err := CheckProtocol(r.Version, r.Protocol); err != nil {
		return Granted{}, err
	}
	picture, _ := s.Pictures.Current()
	if picture.HostLocked(from.Host.ID, s.Now()) {
		return Granted{}, Removed(from.Host.ID)
	}
	prepared, err := s.CA.PrepareHost(ca.HostRequest{Host: *from.Host, TLSKey: r.TLSKey, SSHKey: r.SSHKey, PublicAddr: r.PublicAddr})
	if err != nil {
		return Granted{}, fault.New(fault.Invalid, "%v", err).WithReason("host_request")
	}
	certs, err := prepared.Issue(ctx)
	return Granted{HostCertificates: certs, Host: *from.Host}, err
}

// Removed is what a host is told that was removed from the cluster.
func Removed(id string) error {
	return fault.New(fault.Denied, "host %s was removed from the cluster", id).WithReason("host_removed").
		WithFix("join it anew: tctl tokens add --type=node")
}

// mayServe refuses a resource that was created for other agents, or whose name another agent holds.
func (s *Service) mayServe(ctx context.Context, host identity.Host, name string) error {
	serves, err := s.Serving.Serves(ctx, host, name)
	if err != nil {
		return err
	}
	if !serves {
		return fault.New(fault.Denied, "host %s does not serve %q", host.ID, name).WithReason("not_served")
	}
	return nil
}

// Serve writes down what a host serves. Its id, role and name are those of its certificate, whatever it says.
func (s *Service) Serve(ctx context.Context, host identity.Host, said identity.Server) error {
	said.ID, said.Role, said.Hostname = host.ID, host.Role, host.Name
	now := s.Now().UTC()
	said.LastSeen = now
	if host.Role == identity.RoleNode || host.Role == identity.RoleProxy {
		said.Serves = nil
	}
	for _, served := range said.Serves { // what it says must be its own: proxies send people there
		if err := s.mayServe(ctx, host, served.Name); err != nil {
			return err
		}
	}
	res := manifest.New(&said, 0)
	if err := res.Check(); err != nil {
		return err
	}
	op, err := records.Put(res)
	if err != nil {
		return err
	}
	_, err = s.Store.Txn(ctx, []store.Op{op.Until(now.Add(PresenceLife))})
	return err
}
