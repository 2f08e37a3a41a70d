// Package roster reads and edits the cluster's resources.
package roster

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// Pictures gives the current picture, and waits until it holds what was written.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Reached(ctx context.Context, revision uint64)
}

// Audit records events together with what they tell of, all or nothing.
type Audit interface {
	RecordAll(ctx context.Context, evs []event.Event, ops ...store.Op) (uint64, error)
}

// Hasher makes password hashes.
type Hasher interface {
	Hash(ctx context.Context, password string) (string, error)
}

// Devices changes device records.
type Devices interface {
	Change(ctx context.Context, from identity.Caller, before, after *device.Device, revision uint64) (*manifest.Resource, error)
	Register(ctx context.Context, from identity.Caller, d device.Device) (*manifest.Resource, error)
}

// Service is the use case.
type Service struct {
	Records   *records.Records
	Inventory *inventory.Inventory
	CA        *ca.CA
	Audit     Audit
	Pictures  Pictures
	Hasher    Hasher
	Devices   Devices
	Now       func() time.Time
}

// may asks access whether the caller may do something to a resource; res may be nil for a kind as a whole.
func (s *Service) may(from identity.Caller, kind manifest.Kind, verb string, res *manifest.Resource) error {
	if from.Local {
		return nil
	}
	picture, _ := s.Pictures.Current()
	t := target.Target{Kind: target.Administration, Name: string(kind)}
	if res != nil {
		t.ID, t.Object = res.Metadata.Name, object(res)
	}
	d, in := picture.Decide(from.User, t, target.Action{Verb: verb, From: from.Addr}, s.Now())
	if !d.Allowed {
		return access.Refusal(d, in)
	}
	return nil
}

// object is a resource as `where` predicates see it.
func object(res *manifest.Resource) map[string]any {
	o := map[string]any{"kind": string(res.Kind), "name": res.Metadata.Name}
	switch s := res.Spec.(type) {
	case *device.Device:
		o["owner"], o["asset_tag"], o["os_type"], o["enroll_status"] = s.Owner, s.AssetTag, string(s.OSType), string(s.EnrollStatus)
	case *identity.Account:
		o["roles"] = s.Roles
	case *identity.Server:
		o["labels"], o["hostname"] = plain(s.Labels), s.Hostname
	case *target.DatabaseServer:
		o["labels"], o["protocol"] = plain(s.Labels), string(s.Protocol)
	case *target.KubeCluster:
		o["labels"] = plain(s.Labels)
	}
	return o
}

// plain are labels as predicates see them.
func plain(set label.Set) map[string]any {
	out := map[string]any{}
	for k, v := range set {
		out[k] = v
	}
	return out
}

// Get reads one resource.
func (s *Service) Get(ctx context.Context, from identity.Caller, kind manifest.Kind, name string) (*manifest.Resource, error) {
	res, err := s.read(ctx, kind, name)
	if err != nil {
		if denied := s.may(from, kind, "read", nil); denied != nil {
			return nil, denied
		}
		return nil, err
	}
	return res, s.may(from, kind, "read", res)
}

// read finds a resource by its name; a node and a device also by what people call them.
func (s *Service) read(ctx context.Context, kind manifest.Kind, name string) (*manifest.Resource, error) {
	if kind == manifest.Device {
		d, revision, err := s.Inventory.Get(ctx, name)
		if fault.Is(err, fault.NotFound) {
			d, revision, err = s.Inventory.ByTag(ctx, "", name)
		}
		if err != nil {
			return nil, err
		}
		return manifest.New(d, revision), nil
	}
	res, err := s.Records.Get(ctx, kind, name)
	if kind == manifest.Node && fault.Is(err, fault.NotFound) {
		picture, _ := s.Pictures.Current()
		var ids, others []string // a host that runs agents of several roles is its node, by its name
		for id, srv := range picture.Servers {
			if srv.Hostname == name && srv.Role == identity.RoleNode {
				ids = append(ids, id)
			} else if srv.Hostname == name && srv.Role != identity.RoleProxy {
				others = append(others, id)
			}
		}
		if len(ids) == 0 {
			ids = others
		}
		if len(ids) > 1 {
			return nil, Ambiguous(name, ids)
		}
		if len(ids) == 1 {
			return s.Records.Get(ctx, kind, ids[0])
		}
	}
	return res, err
}

// List reads a page of a kind: what the caller may see of it.
func (s *Service) List(ctx context.Context, from identity.Caller, kind manifest.Kind, after string, limit int) ([]*manifest.Resource, string, error) {
	if limit <= 0 || limit > 1000 {
		limit = 1000
	}
	list, next, err := s.page(ctx, kind, after, limit)
	if err != nil {
		return nil, "", err
	}
	var out []*manifest.Resource
	for _, res := range list {
		if s.may(from, kind, "list", res) == nil {
			out = append(out, res)
		}
	}
	return out, next, nil
}

func (s *Service) page(ctx context.Context, kind manifest.Kind, after string, limit int) ([]*manifest.Resource, string, error) {
	if kind != manifest.Device {
		return s.Records.List(ctx, kind, after, limit)
	}
	entries, next, err := s.Inventory.List(ctx, after, limit)
	var list []*manifest.Resource
	for _, e := range entries {
		list = append(list, manifest.New(e.Device, e.Revision))
	}
	return list, next, err
}

// Written is what became of one resource.
type Written struct {
	Kind     manifest.Kind
	Name     string
	Created  bool
	Revision uint64
}

// batch gathers what a write is made of: all of it happens, or none.
type batch struct {
	events []event.Event
	ops    []store.Op
	bots   bool // bots are made
}

func (b *batch) add(ev event.Event, ops ...store.Op) {
	b.events = append(b.events, ev)
	b.ops = append(b.ops, ops...)
}

// Write takes all resources or none. Without replace, what exists is an error.
func (s *Service) Write(ctx context.Context, from identity.Caller, list []*manifest.Resource, replace bool) ([]Written, error) {
	var b batch
	var out []Written
	seen := map[string]bool{}
	for _, res := range list {
		if err := res.Check(); err != nil {
			return nil, err
		}
		key := records.Key(res.Kind, res.Metadata.Name)
		if seen[key] && res.Metadata.Name != "" {
			return nil, fault.New(fault.Invalid, "%s %q is in the file twice", res.Kind, res.Metadata.Name).WithReason("twice")
		}
		seen[key] = true
		if res.Kind == manifest.Device {
			if len(list) > 1 {
				return nil, fault.New(fault.Unsupported, "a file with several documents cannot hold a device").
					WithReason("device_in_batch").WithFix("tctl devices add, or one file a device")
			}
			w, err := s.writeDevice(ctx, from, res, replace)
			return []Written{w}, err
		}
		w, err := s.write(ctx, from, res, replace, &b)
		if err != nil {
			return nil, err
		}
		out = append(out, w)
	}
	revision, err := s.commit(ctx, &b)
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Revision = revision
	}
	return out, nil
}

// commit writes a batch and waits, where it moves the picture, until the picture holds it.
func (s *Service) commit(ctx context.Context, b *batch) (uint64, error) {
	write, done := context.WithTimeout(ctx, lock.Margin-500*time.Millisecond) // what is issued later than that is not before it
	defer done()
	revision, err := s.Audit.RecordAll(write, b.events, b.ops...)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return 0, fault.New(fault.Unavailable, "the store is too slow to end what was issued in time").WithReason("store_slow").WithFix("try again").Wrapping(err)
	}
	if errors.Is(err, store.ErrTooLarge) {
		return 0, fault.New(fault.Invalid, "too much for one change").WithReason("too_large").WithFix("write fewer documents at once").Wrapping(err)
	}
	if err != nil {
		return 0, records.Conflict(err)
	}
	if slices.ContainsFunc(b.ops, func(o store.Op) bool { return o.Writes() && strings.HasPrefix(o.Key, records.LivePrefix) }) {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		s.Pictures.Reached(ctx, revision)
	}
	return revision, nil
}

func (s *Service) write(ctx context.Context, from identity.Caller, res *manifest.Resource, replace bool, b *batch) (Written, error) {
	if res.Kind == manifest.Lock && res.Metadata.Name == "" {
		res.Metadata.Name = uuid.NewString()
		res.Spec.(*lock.Lock).Name = res.Metadata.Name
	}
	w := Written{Kind: res.Kind, Name: res.Metadata.Name}
	old, err := s.Records.Get(ctx, res.Kind, res.Metadata.Name)
	w.Created = fault.Is(err, fault.NotFound)
	unreadable := fault.Is(err, fault.Invalid) || fault.Is(err, fault.Unsupported)
	if err != nil && !w.Created && !unreadable {
		return w, err
	}
	verb := "update"
	if w.Created {
		verb = "create"
	}
	if err := s.may(from, res.Kind, verb, res); err != nil {
		return w, err
	}
	if !w.Created && !replace {
		return w, fault.New(fault.Exists, "%s %q already exists", res.Kind, w.Name).WithReason("exists").WithFix("tctl create -f FILE")
	}
	var revision uint64
	if unreadable {
		old = &manifest.Resource{Kind: res.Kind, Metadata: manifest.Metadata{Name: w.Name}}
	} else if old != nil {
		if err := s.may(from, res.Kind, verb, old); err != nil {
			return w, err
		}
		revision = old.Metadata.Revision
		if r := res.Metadata.Revision; r != 0 && r != revision {
			return w, fault.New(fault.Conflict, "%s %q was changed since it was read", res.Kind, w.Name).WithReason("changed").
				WithCause("the file is of revision %d, the cluster has %d", r, revision).WithFix("tctl get %s/%s", res.Kind, w.Name)
		}
	} else if res.Metadata.Revision != 0 && replace {
		return w, fault.New(fault.Conflict, "%s %q was removed since it was read", res.Kind, w.Name).WithReason("changed").
			WithFix("take metadata.revision out of the file to create it anew")
	}
	if w.Created && res.Kind == manifest.User {
		if err := s.disinherit(ctx, from, w.Name); err != nil {
			return w, err
		}
	}
	extra, err := s.prepare(from, res, old, b.bots)
	if err != nil {
		return w, err
	}
	put, err := records.Put(res)
	if err != nil {
		return w, err
	}
	ops := append([]store.Op{records.Unchanged(res.Kind, w.Name, revision), put}, extra...)
	if unreadable {
		ops = ops[1:] // it is replaced, whatever it is
	}
	b.add(s.event(from, res, w.Created), ops...)
	return w, nil
}

// prepare holds the rules of a kind for what is to be written, and returns what must happen with it.
func (s *Service) prepare(from identity.Caller, res, old *manifest.Resource, bots bool) ([]store.Op, error) {
	switch spec := res.Spec.(type) {
	case *identity.Account:
		return s.prepareUser(from, spec, old, bots)
	case *lock.Lock:
		spec.CreatedBy = from.Name()
		return nil, nil
	case *identity.JoinToken:
		return nil, fault.New(fault.Unsupported, "tokens are made by tctl tokens add").WithReason("token_by_hand").WithFix("tctl tokens add --type=node")
	case *identity.Server:
		return nil, fault.New(fault.Unsupported, "nodes come by joining").WithReason("node_by_hand").WithFix("tctl tokens add --type=node")
	}
	return nil, s.judge(res)
}

var kindEvents = map[manifest.Kind][3]event.Kind{
	manifest.User: {event.UserCreate, event.UserUpdate, event.UserDelete},
	manifest.Role: {event.RoleCreated, event.RoleUpdated, event.RoleDeleted},
	manifest.Lock: {event.LockCreated, event.LockCreated, event.LockDeleted},
}

func (s *Service) event(from identity.Caller, res *manifest.Resource, created bool) event.Event {
	kinds, ok := kindEvents[res.Kind]
	if !ok {
		kinds = [3]event.Kind{event.ResourceCreate, event.ResourceUpdate, event.ResourceDelete}
	}
	kind := kinds[1]
	if created {
		kind = kinds[0]
	}
	return s.eventOf(from, kind, res)
}

func (s *Service) eventOf(from identity.Caller, kind event.Kind, res *manifest.Resource) event.Event {
	ev := event.Event{Kind: kind, User: from.Name(), Success: true, Session: &event.Session{Addr: from.Addr.String()},
		Resource: &event.Resource{ResourceKind: string(res.Kind), ResourceName: res.Metadata.Name}}
	if a, ok := res.Spec.(*identity.Account); ok {
		ev.Resource.Roles = a.Roles
	}
	if from.User != nil {
		ev.Device = event.DeviceOf(from.User.Device)
	}
	return ev
}
