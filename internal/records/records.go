// Package records is the cluster's resources as typed records in store.
//
//	live/KIND/NAME    role, lock, cluster_auth_preference, node, db, kube_cluster, followed_login, session_end: what pictures are made of
//	KIND/NAME         user, token
//	secret/NAME       what proves a user: never listed, never in a picture
//	invite/HASH       single-use invites
//	hostname/ROLE/NAME  the id of the host that holds a name
//	hostgiven/ROLE/NAME/ID  a host whose token gave it the name
//	served/KIND/NAME  the host, by its name or id, that first served a resource
//	login/CREDENTIAL  the certificates that a device credential has
//	session/HOST/ID   the sessions that agents say they carry
//
// Reads give resources with their revision; writes are operations, for the caller to commit with their audit event.
package records

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/sallyport/sallyport/internal/access/strictest"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/store"
)

// LivePrefix is where everything lies that pictures are made of.
const LivePrefix = "live/"

// Records reads resources. It holds nothing to close.
type Records struct {
	store store.Store
}

// New reads from s, which stays the caller's.
func New(s store.Store) *Records { return &Records{store: s} }

func prefix(k manifest.Kind) string {
	switch k {
	case manifest.Role, manifest.Lock, manifest.Cap, manifest.Node, manifest.DB, manifest.Kube, manifest.FollowedLogin, manifest.SessionEnd:
		return LivePrefix + string(k) + "/"
	}
	return string(k) + "/"
}

// Key is where a resource lies.
func Key(k manifest.Kind, name string) string { return prefix(k) + url.PathEscape(name) }

// FromKey reads kind and name of a key below LivePrefix.
func FromKey(key string) (manifest.Kind, string, bool) {
	rest, ok := strings.CutPrefix(key, LivePrefix)
	if !ok {
		return "", "", false
	}
	kind, escaped, ok := strings.Cut(rest, "/")
	if !ok {
		return "", "", false
	}
	name, err := url.PathUnescape(escaped)
	return manifest.Kind(kind), name, err == nil
}

// Decode reads a stored record.
func Decode(r store.Record) (*manifest.Resource, error) {
	res, err := manifest.Decode(r.Value)
	if err != nil {
		return nil, fmt.Errorf("stored %s: %w", r.Key, err)
	}
	res.Metadata.Revision = r.Revision
	return res, nil
}

// Get reads one resource; one that is not there is a NotFound fault that names it.
func (r *Records) Get(ctx context.Context, k manifest.Kind, name string) (*manifest.Resource, error) {
	rec, err := r.store.Get(ctx, Key(k, name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.NotFound, "%s %q not found", k, name).WithReason("not_found")
	}
	if err != nil {
		return nil, err
	}
	return Decode(rec)
}

// List reads a page of a kind, behind a name; next is empty on the last page.
func (r *Records) List(ctx context.Context, k manifest.Kind, after string, limit int) (list []*manifest.Resource, next string, err error) {
	rng := store.Range{Prefix: prefix(k), Limit: limit}
	if after != "" {
		rng.After = Key(k, after)
	}
	page, err := r.store.List(ctx, rng)
	if err != nil {
		return nil, "", err
	}
	for _, rec := range page.Records {
		res, err := Decode(rec)
		if err != nil {
			return nil, "", err
		}
		list = append(list, res)
	}
	if page.More && len(list) > 0 {
		next = list[len(list)-1].Metadata.Name
	}
	return list, next, nil
}

// Put is the operation that writes a resource, whatever was there.
func Put(res *manifest.Resource) (store.Op, error) {
	c := *res
	c.Metadata.Revision = 0
	raw, err := c.JSON()
	if err != nil {
		return store.Op{}, err
	}
	op := store.Put(Key(res.Kind, res.Metadata.Name), raw)
	if l, ok := res.Spec.(*lock.Lock); ok && !l.Expires.IsZero() {
		op = op.Until(l.Expires)
	}
	if t, ok := res.Spec.(*identity.JoinToken); ok && !t.Expires.IsZero() {
		op = op.Until(t.Expires)
	}
	if l, ok := res.Spec.(*identity.Login); ok {
		op = op.Until(identity.LastEnd(l.Follows))
	}
	if e, ok := res.Spec.(*live.End); ok {
		op = op.Until(e.Expires)
	}
	return op, nil
}

// Delete is the operation that removes a resource.
func Delete(k manifest.Kind, name string) store.Op { return store.Delete(Key(k, name)) }

// Unchanged is the condition that a resource has the revision that it was read with; 0, that there is none.
func Unchanged(k manifest.Kind, name string, revision uint64) store.Op {
	return store.CheckRevision(Key(k, name), revision)
}

// Account reads a user with the revision of its record.
func (r *Records) Account(ctx context.Context, name string) (*identity.Account, uint64, error) {
	res, err := r.Get(ctx, manifest.User, name)
	if err != nil {
		return nil, 0, err
	}
	a, ok := res.Spec.(*identity.Account)
	if !ok {
		return nil, 0, fmt.Errorf("stored user %q is something else", name)
	}
	return a, res.Metadata.Revision, nil
}

// Settings reads the cluster's settings; before the first start there are none.
func (r *Records) Settings(ctx context.Context) (cluster.Settings, error) {
	res, err := r.Get(ctx, manifest.Cap, manifest.CapName)
	if err != nil {
		return cluster.Settings{}, err
	}
	s, ok := res.Spec.(*cluster.Settings)
	if !ok {
		return cluster.Settings{}, errors.New("stored settings are something else")
	}
	return *s, nil
}

// Roles reads those of the named roles that exist.
func (r *Records) Roles(ctx context.Context, names []string) ([]*role.Role, error) {
	var out []*role.Role
	for _, n := range names {
		res, err := r.Get(ctx, manifest.Role, n)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if x, ok := res.Spec.(*role.Role); ok {
			out = append(out, x)
		}
	}
	return out, nil
}

// Locks reads every lock, for who may not be behind what is stored. One that this build cannot read locks everybody.
func (r *Records) Locks(ctx context.Context) (lock.Set, error) {
	var out []lock.Lock
	rng := store.Range{Prefix: prefix(manifest.Lock), Limit: store.MaxPage}
	for {
		page, err := r.store.List(ctx, rng)
		if err != nil {
			return lock.Set{}, err
		}
		for _, rec := range page.Records {
			out = append(out, readLock(rec))
			rng.After = rec.Key
		}
		if !page.More {
			return lock.NewSet(out...), nil
		}
	}
}

func readLock(rec store.Record) lock.Lock {
	res, err := Decode(rec)
	if err == nil {
		if l, ok := res.Spec.(*lock.Lock); ok {
			return *l
		}
	}
	_, name, _ := FromKey(rec.Key)
	return *strictest.Lock(name)
}

// HostNameKey is where the id of the host lies that holds a name.
func HostNameKey(role identity.HostRole, name string) string {
	return "hostname/" + string(role) + "/" + name
}

const givenPrefix = "hostgiven/"

// GivenNameKey is where it is kept that a token gave a host its name; without an id, what all of that name lie below.
func GivenNameKey(role identity.HostRole, name, id string) string {
	return givenPrefix + string(role) + "/" + url.PathEscape(name) + "/" + id
}

// NameHolder is the id of the host that holds a name, or "".
func (r *Records) NameHolder(ctx context.Context, role identity.HostRole, name string) (string, error) {
	rec, err := r.store.Get(ctx, HostNameKey(role, name))
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return string(rec.Value), err
}

// FreeNames are the operations that free the names that a host holds, and those of what it serves, and no other's.
func (r *Records) FreeNames(ctx context.Context, id string) ([]store.Op, error) {
	names, err := r.freeBelow(ctx, "hostname/", func(v []byte) bool { return string(v) == id })
	if err != nil {
		return nil, err
	}
	given, err := r.freeBelow(ctx, givenPrefix, func(v []byte) bool { return string(v) == id })
	if err != nil {
		return nil, err
	}
	served, err := r.freeBelow(ctx, servedPrefix, func(v []byte) bool {
		var c Claim
		return json.Unmarshal(v, &c) == nil && c.ID == id
	})
	return append(append(names, given...), served...), err
}

func (r *Records) freeBelow(ctx context.Context, prefix string, held func([]byte) bool) ([]store.Op, error) {
	var ops []store.Op
	after := ""
	for {
		page, err := r.store.List(ctx, store.Range{Prefix: prefix, After: after})
		if err != nil {
			return nil, err
		}
		for _, rec := range page.Records {
			if held(rec.Value) {
				ops = append(ops, store.CheckRevision(rec.Key, rec.Revision), store.Delete(rec.Key))
			}
			after = rec.Key
		}
		if !page.More {
			return ops, nil
		}
	}
}

// value reads a JSON value that is no resource, with its revision; found is false where there is none.
func (r *Records) value(ctx context.Context, key string, into any) (revision uint64, found bool, err error) {
	rec, err := r.store.Get(ctx, key)
	if errors.Is(err, store.ErrNotFound) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	if err := json.Unmarshal(rec.Value, into); err != nil {
		return 0, false, fmt.Errorf("stored %s: %w", key, err)
	}
	return rec.Revision, true, nil
}

// PutValue is the operation that writes a JSON value that is no resource.
func PutValue(key string, v any) (store.Op, error) {
	raw, err := json.Marshal(v)
	return store.Put(key, raw), err
}

// Conflict words a failed condition for a person.
func Conflict(err error) error {
	var c *store.ConflictError
	if !errors.As(err, &c) {
		return err
	}
	kind, name, ok := FromKey(c.Key)
	if !ok {
		k, escaped, _ := strings.Cut(c.Key, "/")
		kind = manifest.Kind(k)
		name, _ = url.PathUnescape(escaped)
	}
	if c.Revision == 0 {
		return fault.New(fault.NotFound, "%s %q not found", kind, name).WithReason("not_found").Wrapping(err)
	}
	return fault.New(fault.Conflict, "%s %q was changed since it was read", kind, name).WithReason("changed").
		WithCause("it is at revision %d now", c.Revision).WithFix("tctl get %s/%s", kind, name).Wrapping(err)
}
