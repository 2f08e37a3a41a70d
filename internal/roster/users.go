package roster

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/store"
)

// InviteTTL is how long an invite lives.
const InviteTTL = time.Hour

// prepareUser keeps what is read-only, and locks what was issued before a loss.
func (s *Service) prepareUser(from identity.Caller, a *identity.Account, old *manifest.Resource, bots bool) ([]store.Op, error) {
	if a.Kind == "" {
		a.Kind = identity.Human
	}
	if strings.HasPrefix(a.Name, "system:") || strings.HasPrefix(a.Name, "host:") {
		return nil, fault.New(fault.Invalid, "user names that begin with system: or host: are the cluster's own").WithReason("reserved_name")
	}
	if a.Kind == identity.Bot && (old == nil || old.Spec == nil) && !bots {
		return nil, fault.New(fault.Unsupported, "user %q: bots are made by tctl bots add", a.Name).WithReason("bot_by_hand").
			WithFix("tctl bots add %s --roles=ROLE", a.Name)
	}
	if old == nil {
		a.CreatedBy = &identity.CreatedBy{Time: s.Now().UTC(), User: from.Name()}
		return nil, nil
	}
	before, ok := old.Spec.(*identity.Account)
	if !ok { // what is stored cannot be read, so nobody knows what is lost
		op, err := s.issuedBefore(a.Name, "the user was written anew", from)
		return []store.Op{op}, err
	}
	if a.Kind != before.Kind {
		return nil, fault.New(fault.Invalid, "user %q: kind: is read-only", a.Name).WithReason("read_only")
	}
	a.CreatedBy = before.CreatedBy
	if !loses(before, a) {
		return nil, nil
	}
	op, err := s.issuedBefore(a.Name, "roles, traits or status of the user were taken away", from)
	return []store.Op{op}, err
}

// disinherit takes from devices the credentials of a user who was removed, so that nobody of the same name comes to them.
// That the user is not there is the caller's to know: enrollments are given that their user did not move, so none follows.
func (s *Service) disinherit(ctx context.Context, from identity.Caller, user string) error {
	theirs := func(c device.Credential) bool { return c.Owner == user }
	filter := inventory.Filter{Matches: func(d *device.Device) bool { return slices.ContainsFunc(d.Credentials, theirs) }}
	for after := ""; ; {
		list, next, err := s.Inventory.Select(ctx, filter, after, 0)
		if err != nil {
			return err
		}
		for _, e := range list {
			without := *e.Device
			without.Credentials = slices.DeleteFunc(slices.Clone(without.Credentials), theirs)
			if len(without.Credentials) == 0 {
				without.EnrollStatus, without.Credentials = device.NotEnrolled, nil
			}
			if _, err := s.Devices.Change(ctx, from, e.Device, &without, e.Revision); err != nil {
				return err
			}
		}
		if after = next; next == "" {
			return nil
		}
	}
}

// loses reports whether a user has less after an edit than before.
func loses(before, after *identity.Account) bool {
	if after.Status.IsLocked && !before.Status.IsLocked {
		return true
	}
	if ends := after.Expires.Year() > 1; ends && (before.Expires.Year() <= 1 || after.Expires.Before(before.Expires)) {
		return true
	}
	missing := func(a, b []string) bool {
		return slices.ContainsFunc(a, func(x string) bool { return !slices.Contains(b, x) })
	}
	if missing(before.Roles, after.Roles) || !slices.Equal(before.Addresses, after.Addresses) {
		return true
	}
	for name, values := range before.Traits {
		if missing(values, after.Traits[name]) {
			return true
		}
	}
	return false
}

// issuedBefore locks what was issued to a user before now, for as long as any certificate could live.
func (s *Service) issuedBefore(user, why string, from identity.Caller) (store.Op, error) {
	now := s.Now().UTC()
	return records.Put(manifest.New(&lock.Lock{Name: uuid.NewString(), Target: lock.Target{User: user}, IssuedBefore: now.Add(lock.Margin),
		Message: why, Expires: now.Add(identity.MaxLifetime), CreatedBy: from.Name()}, 0))
}

// judge holds the rules of roles and settings that need more than the noun.
func (s *Service) judge(res *manifest.Resource) error {
	switch spec := res.Spec.(type) {
	case *role.Role:
		if _, err := access.Compile(*spec); err != nil {
			return fault.New(fault.Invalid, "role %q: %v", spec.Name, err).WithReason("invalid_resource")
		}
	case *cluster.Settings:
		if _, err := attestation.ParseRoots([]byte(strings.Join(spec.DeviceTrust.EKCertAllowedCAs, "\n"))); err != nil && len(spec.DeviceTrust.EKCertAllowedCAs) > 0 {
			return fault.New(fault.Invalid, "device_trust.ekcert_allowed_cas: %v", err).WithReason("invalid_resource")
		}
		if res.Metadata.Name != manifest.CapName {
			return fault.New(fault.Invalid, "there is one cluster_auth_preference, %q", manifest.CapName)
		}
	}
	return nil
}

// Invited is what a new user, bot or host begins with.
type Invited struct {
	Token   string
	Expires time.Time
}

// AddUser makes a user, with a password or with an invite.
func (s *Service) AddUser(ctx context.Context, from identity.Caller, a *identity.Account, password string) (Invited, error) {
	res := manifest.New(a, 0)
	if err := res.Check(); err != nil {
		return Invited{}, err
	}
	if err := s.rolesExist(a.Roles); err != nil {
		return Invited{}, err
	}
	if a.Kind == identity.Bot && password != "" {
		return Invited{}, fault.New(fault.Invalid, "a bot has no password").WithReason("bot_password")
	}
	b := batch{bots: a.Kind == identity.Bot}
	if _, err := s.write(ctx, from, res, false, &b); err != nil {
		return Invited{}, err
	}
	return s.begin(ctx, &b, a.Name, password, 0)
}

func (s *Service) rolesExist(names []string) error {
	picture, _ := s.Pictures.Current()
	for _, n := range names {
		if picture.Roles[n] == nil {
			return fault.New(fault.NotFound, "role %q not found", n).WithReason("not_found").WithFix("tctl get roles")
		}
	}
	return nil
}

// begin sets a password or makes an invite, in the batch's transaction. revision is that of the user's secret.
func (s *Service) begin(ctx context.Context, b *batch, user, password string, revision uint64) (Invited, error) {
	var out Invited
	if password != "" {
		hash, err := s.Hasher.Hash(ctx, password)
		if err != nil {
			return out, err
		}
		ops, err := records.PutSecret(user, records.Secret{Password: hash, Changed: s.Now().UTC()}, revision)
		if err != nil {
			return out, err
		}
		b.ops = append(b.ops, ops...)
	} else {
		out = Invited{Token: records.NewToken(), Expires: s.Now().UTC().Add(InviteTTL).Truncate(time.Second)}
		op, err := records.PutInvite(out.Token, records.Invite{User: user, Expires: out.Expires, Bot: b.bots})
		if err != nil {
			return out, err
		}
		b.ops = append(b.ops, op)
	}
	_, err := s.commit(ctx, b)
	return out, err
}

// ResetUser takes a user's password and codes, ends what was issued to them, and makes an invite.
func (s *Service) ResetUser(ctx context.Context, from identity.Caller, name string) (Invited, error) {
	res, err := s.Records.Get(ctx, manifest.User, name)
	if err != nil {
		return Invited{}, err
	}
	if err := s.may(from, manifest.User, "update", res); err != nil {
		return Invited{}, err
	}
	var b batch
	if a, ok := res.Spec.(*identity.Account); ok {
		b.bots = a.Kind == identity.Bot
	}
	ev := s.eventOf(from, event.UserUpdate, res)
	ev.Message, ev.Resource.Changes = "reset", []string{"password", "otp"}
	end, err := s.issuedBefore(name, "the user was reset", from)
	if err != nil {
		return Invited{}, err
	}
	// The record is written as it is: a login under way is given that it did not move.
	same, err := records.Put(res)
	if err != nil {
		return Invited{}, err
	}
	b.add(ev, records.Unchanged(manifest.User, name, res.Metadata.Revision), same, store.Delete(records.SecretKey(name)), end)
	if err := s.dropInvites(ctx, name, &b); err != nil {
		return Invited{}, err
	}
	return s.begin(ctx, &b, name, "", 0)
}

func (s *Service) dropInvites(ctx context.Context, user string, b *batch) error {
	keys, err := s.Records.InvitesOf(ctx, user)
	for _, k := range keys {
		b.ops = append(b.ops, store.Delete(k))
	}
	return err
}

// AddToken makes a join token.
func (s *Service) AddToken(ctx context.Context, from identity.Caller, t identity.JoinToken, ttl time.Duration) (Invited, error) {
	if ttl <= 0 {
		ttl = InviteTTL
	}
	secret := records.NewToken()
	t.ID, t.Expires = records.TokenID(secret), s.Now().UTC().Add(ttl).Truncate(time.Second)
	res := manifest.New(&t, 0)
	if err := res.Check(); err != nil {
		return Invited{}, err
	}
	if err := s.may(from, manifest.Token, "create", res); err != nil {
		return Invited{}, err
	}
	put, err := records.Put(res)
	if err != nil {
		return Invited{}, err
	}
	_, err = s.Audit.RecordAll(ctx, []event.Event{s.eventOf(from, event.ResourceCreate, res)}, put)
	return Invited{Token: secret, Expires: t.Expires}, err
}

// Delete removes a resource, and ends what hangs on it.
func (s *Service) Delete(ctx context.Context, from identity.Caller, kind manifest.Kind, name string) (*manifest.Resource, error) {
	res, err := s.read(ctx, kind, name)
	if kind == manifest.Node && fault.Is(err, fault.NotFound) {
		res, err = s.away(ctx, name, err)
	}
	if err != nil {
		return nil, err
	}
	if err := s.may(from, kind, "delete", res); err != nil {
		return nil, err
	}
	name = res.Metadata.Name
	kinds, ok := kindEvents[kind]
	if !ok {
		kinds[2] = event.ResourceDelete
	}
	var b batch
	b.add(s.eventOf(from, kinds[2], res), records.Unchanged(kind, name, res.Metadata.Revision), records.Delete(kind, name))
	switch spec := res.Spec.(type) {
	case *identity.Account:
		end, err := s.issuedBefore(name, "the user was removed", from)
		if err != nil {
			return nil, err
		}
		b.ops = append(b.ops, end, store.Delete(records.SecretKey(name)))
		if err := s.dropInvites(ctx, name, &b); err != nil {
			return nil, err
		}
	case *cluster.Settings:
		return nil, fault.New(fault.Invalid, "cluster_auth_preference cannot be removed").WithFix("tctl edit cap")
	case *identity.Server:
		ops, err := s.removeServer(ctx, from, spec.ID)
		if err != nil {
			return nil, err
		}
		b.ops = append(b.ops[:0], ops...)
		b.ops = append(b.ops, records.Delete(kind, name))
	}
	if _, err := s.commit(ctx, &b); err != nil {
		return nil, err
	}
	if kind == manifest.User { // what is left by an error here is taken before the name is given again
		return res, s.disinherit(ctx, from, name)
	}
	return res, nil
}
