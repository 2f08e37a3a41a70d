package roster

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// removeServer locks a host's id for longer than its certificates could live and frees the names that it holds.
func (s *Service) removeServer(ctx context.Context, from identity.Caller, id string) ([]store.Op, error) {
	end, err := records.Put(manifest.New(&lock.Lock{Name: uuid.NewString(), Target: lock.Target{ServerID: id},
		Message: "the host was removed", Expires: s.Now().UTC().Add(ca.HostLife + time.Hour), CreatedBy: from.Name()}, 0))
	if err != nil {
		return nil, err
	}
	names, err := s.Records.FreeNames(ctx, id)
	return append([]store.Op{end}, names...), err
}

// away finds, by id or name, a node that is not listed any more because it was not heard of for long: it can still be
// removed, as whoever has its key can still come back.
func (s *Service) away(ctx context.Context, named string, notFound error) (*manifest.Resource, error) {
	id, err := s.Records.NameHolder(ctx, identity.RoleNode, named)
	if err != nil {
		return nil, err
	}
	if id == "" {
		id = named
	}
	held, err := s.Records.FreeNames(ctx, id)
	if err != nil {
		return nil, err
	}
	if len(held) == 0 {
		return nil, fault.Of(notFound).WithFix("tctl lock --node=ID   (where it has an id and no name)")
	}
	return manifest.New(&identity.Server{ID: id, Role: identity.RoleNode}, 0), nil
}

// Ambiguous is the fault of a name that several hosts have.
func Ambiguous(name string, ids []string) error {
	slices.Sort(ids)
	return fault.New(fault.Invalid, "several nodes are called %q", name).WithReason("ambiguous_node").
		WithCause("they are %s", strings.Join(ids, ", ")).WithFix("use the id in place of the name")
}

// Target makes a target of a server.
func Target(srv *identity.Server) target.Target {
	name := srv.Hostname
	if name == "" {
		name = srv.ID
	}
	return target.Target{Kind: target.Node, ID: srv.ID, Name: name, Labels: srv.Labels}
}

// Listing asks for a page of targets: of a kind, that a query matches, behind a name.
type Listing struct {
	Kind  target.Kind
	Query string
	After string
	Limit int
}

// reachable are the targets of a kind that hosts serve. A resource that several agents serve is one target; should they
// say other labels of it, each set is a target of its own, so that none hides another.
func reachable(servers map[string]*identity.Server, kind target.Kind) []target.Target {
	var out []target.Target
	seen := map[string]bool{}
	for _, srv := range servers {
		if kind == target.Node && srv.Role == identity.RoleNode {
			out = append(out, Target(srv))
		}
		if role := (map[target.Kind]identity.HostRole{target.Database: identity.RoleDB, target.Kube: identity.RoleKube})[kind]; role == "" || srv.Role != role {
			continue
		}
		for _, served := range srv.Serves {
			t := target.Target{Kind: kind, ID: served.Name, Name: served.Name, Labels: served.Labels, Protocol: served.Protocol}
			if key := t.Name + "\x00" + t.Labels.String(); !seen[key] {
				seen[key] = true
				out = append(out, t)
			}
		}
	}
	return out
}

// Targets lists what the caller may reach, by name.
func (s *Service) Targets(_ context.Context, from identity.Caller, l Listing) ([]target.Target, string, error) {
	after, limit := l.After, l.Limit
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	query, err := access.ParseQuery(l.Query)
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "--query: %v", err).WithReason("bad_query").
			WithFix("tsh ls --query='resource.labels.env == \"prod\"'")
	}
	picture, _ := s.Pictures.Current()
	var out []target.Target
	for _, t := range reachable(picture.Servers, l.Kind) {
		// Listing asks whether a role selects the target; a device is asked for at its door.
		if (from.Local || picture.Lists(from.User, t, s.Now())) && query.Matches(t) {
			out = append(out, t)
		}
	}
	key := func(t target.Target) string { return t.Name + "\x00" + t.ID + "\x00" + t.Labels.String() }
	slices.SortFunc(out, func(a, b target.Target) int { return strings.Compare(key(a), key(b)) })
	out = slices.DeleteFunc(out, func(t target.Target) bool { return after != "" && key(t) <= after })
	if len(out) > limit {
		return out[:limit], key(out[limit-1]), nil
	}
	return out, "", nil
}

// Question is what Explain is asked: may this user, from this device, do this there?
type Question struct {
	User   string
	Device string
	Kind   string
	Name   string
	Login  string
	Verb   string
	DBUser string
	DBName string
}

// Answer is a decision in words, and what would change it.
type Answer struct {
	Decision access.Decision
	Text     string
	Changes  []string
}

// Explain decides for a user as their next login would be decided, and tries what would change it.
func (s *Service) Explain(ctx context.Context, from identity.Caller, q Question) (Answer, error) {
	if err := s.may(from, manifest.User, "read", nil); err != nil {
		return Answer{}, err
	}
	account, _, err := s.Records.Account(ctx, q.User)
	if err != nil {
		return Answer{}, err
	}
	if err := s.may(from, manifest.User, "read", manifest.New(account, 0)); err != nil {
		return Answer{}, err
	}
	who := &identity.User{Name: account.Name, Kind: account.Kind, Roles: account.Roles, Traits: account.Traits, KeyPolicy: identity.KeyAnywhere,
		Grant:    identity.Grant{PTY: true, PortForwarding: true, AgentForwarding: true},
		Validity: identity.Validity{IssuedAt: s.Now(), Expires: s.Now().Add(time.Hour)}}
	if q.Device != "" {
		if err := s.explainDevice(ctx, q.Device, who); err != nil {
			return Answer{}, err
		}
	}
	t, action, err := s.explainTarget(ctx, q)
	if err != nil {
		return Answer{}, err
	}
	picture, _ := s.Pictures.Current()
	d, in := picture.Decide(who, t, action, s.Now())
	a := Answer{Decision: d, Text: fmt.Sprintf("allowed by role %q", d.Source.Name)}
	if !d.Allowed {
		a.Text = access.Refusal(d, in).Lines()
	}
	a.Changes = access.WhatIf(in)
	return a, nil
}

func (s *Service) explainDevice(ctx context.Context, named string, who *identity.User) error {
	d, _, err := s.Inventory.ByTag(ctx, "", named)
	if fault.Is(err, fault.NotFound) {
		d, _, err = s.Inventory.Get(ctx, named)
	}
	if err != nil {
		return err
	}
	if !d.Enrolled() {
		return fault.New(fault.Invalid, "device %q is not enrolled", d.AssetTag).WithFix("tctl devices enroll --asset-tag=%s", d.AssetTag)
	}
	c := d.Credentials[0]
	who.Device = &identity.Device{ID: d.ID, AssetTag: d.AssetTag, CredentialID: c.ID, Level: c.Attestation, OS: d.OSType}
	if n := len(d.Collected); n > 0 {
		who.Device.Claims = device.Claims{OSVersion: d.Collected[n-1].OSVersion}
	}
	h := d.CloneHealth()
	if _, who.Device.Claims.CountersBack = h.Found(device.CountersBack); h.Boot != nil {
		who.Device.Claims.SecureBoot = h.Boot.SecureBoot
	}
	if c.Attestation.Hardware() {
		who.KeyPolicy = identity.KeyHardware
	}
	return nil
}

func (s *Service) explainTarget(ctx context.Context, q Question) (target.Target, target.Action, error) {
	if q.Kind == string(target.Node) {
		res, err := s.read(ctx, manifest.Node, q.Name)
		if err != nil {
			return target.Target{}, target.Action{}, err
		}
		srv, ok := res.Spec.(*identity.Server)
		if !ok {
			return target.Target{}, target.Action{}, fmt.Errorf("node %q is something else", q.Name)
		}
		return Target(srv), target.Action{Login: q.Login}, nil
	}
	kind, err := manifest.ParseKind(q.Kind)
	if err != nil {
		return target.Target{}, target.Action{}, err
	}
	if (kind == manifest.DB || kind == manifest.Kube) && q.Name != "" {
		return s.explainServed(q, target.Kind(kind))
	}
	verb := q.Verb
	if verb == "" {
		verb = "read"
	}
	return target.Target{Kind: target.Administration, Name: string(kind)}, target.Action{Verb: verb}, nil
}

// explainServed finds a resource that agents serve, and what is asked there.
func (s *Service) explainServed(q Question, kind target.Kind) (target.Target, target.Action, error) {
	picture, _ := s.Pictures.Current()
	for _, t := range reachable(picture.Servers, kind) {
		if t.Name != q.Name {
			continue
		}
		if kind == target.Database {
			return t, target.Action{DBUser: q.DBUser, DBName: q.DBName, AsIs: !t.Protocol.Makes()}, nil
		}
		return t, target.Action{Verb: "list"}, nil
	}
	return target.Target{}, target.Action{}, fault.New(fault.NotFound, "%s %q is served by no agent", kind, q.Name).WithReason("not_found")
}

// Authority is a public key for others to trust.
type Authority struct {
	Use    string
	Public string
}

// Authorities exports the public halves of the cluster's authorities.
func (s *Service) Authorities(ctx context.Context) ([]Authority, error) {
	p, err := s.CA.Public(ctx)
	if err != nil {
		return nil, err
	}
	line := func(k ssh.PublicKey) string { return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(k))) }
	out := []Authority{
		{"ssh-user", line(p.SSHUser)}, {"ssh-host", "@cert-authority * " + line(p.SSHHost)},
		{"ssh-jump", line(p.SSHJump)},
		{"tls-user", pemOf("CERTIFICATE", p.TLSUser.Raw)}, {"tls-host", pemOf("CERTIFICATE", p.TLSHost.Raw)},
	}
	for _, k := range []struct {
		use string
		key any
	}{{"dial-tickets", p.DialTicket}, {"audit-heads", p.AuditHeads}} {
		der, err := x509.MarshalPKIXPublicKey(k.key)
		if err != nil {
			return nil, err
		}
		out = append(out, Authority{k.use, pemOf("PUBLIC KEY", der)})
	}
	return out, nil
}

func pemOf(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// State is what `tctl status` shows.
type State struct {
	Cluster  string
	Pin      string
	Mode     device.Mode
	Factors  []string
	Locking  string
	Ages     string // how old an agent's picture may be
	Counts   map[string]uint64
	Warnings []string
}

// Status gathers the state of the cluster.
func (s *Service) Status(ctx context.Context) (State, error) {
	p, err := s.CA.Public(ctx)
	if err != nil {
		return State{}, err
	}
	picture, _ := s.Pictures.Current()
	set := picture.Settings
	st := State{Cluster: s.CA.Cluster(), Pin: cluster.Pin(p.TLSHost), Mode: set.DeviceTrust.Mode, Factors: set.SecondFactors, Locking: set.LockingMode, Ages: fmt.Sprintf("admits by a view of %s at most, sessions live to %s", set.AdmitAge(), set.LiveAge()),
		Counts: map[string]uint64{"roles": uint64(len(picture.Roles)), "locks": uint64(picture.Locks.Len()), "hosts": uint64(len(picture.Servers))}}
	var demand []string // who requires a device
	if set.DeviceTrust.Mode.Demands() {
		demand = append(demand, "the cluster's mode")
	}
	for name, r := range picture.Roles {
		o := r.Options()
		if o.DeviceTrustMode.Demands() || o.DeviceRequirements != nil {
			demand = append(demand, "role "+name)
		}
		if o.Lock == "best_effort" {
			st.Warnings = append(st.Warnings, fmt.Sprintf("role %q sets lock: best_effort: its sessions live on while agents do not hear from auth", name))
		}
	}
	slices.Sort(st.Warnings)
	slices.Sort(demand)
	if len(demand) > 0 && len(set.DeviceTrust.EKCertAllowedCAs) == 0 {
		st.Warnings = append(st.Warnings, fmt.Sprintf("a trusted device is required (by %s) and no EK authority is listed (device_trust.ekcert_allowed_cas): a software TPM would enroll", strings.Join(demand, ", ")))
	}
	if set.DeviceTrust.EKCertPolicy == cluster.Monitor {
		st.Warnings = append(st.Warnings, "ekcert_policy is monitor: TPMs that no listed authority vouches for enroll, and are noted (tctl devices ls --noticed=ekcert_untrusted)")
	}
	if len(set.SecondFactors) == 0 {
		st.Warnings = append(st.Warnings, "second factors are off: a password alone logs in")
	}
	if set.LockingMode == "best_effort" {
		st.Warnings = append(st.Warnings, "locking_mode is best_effort: sessions live on while agents do not hear from auth")
	}
	for name, kind := range map[string]manifest.Kind{"users": manifest.User, "devices": manifest.Device} {
		n, err := s.count(ctx, kind)
		if err != nil {
			return st, err
		}
		st.Counts[name] = n
	}
	return st, nil
}

func (s *Service) count(ctx context.Context, kind manifest.Kind) (uint64, error) {
	var n uint64
	after := ""
	for {
		list, next, err := s.page(ctx, kind, after, 1000)
		n += uint64(len(list))
		if err != nil || next == "" {
			return n, err
		}
		after = next
	}
}
