// Package inventory is the devices in store, unique by operating system and asset tag, and their enrollment tokens.
//
//	device/ID            the device
//	devicetag/OS/TAG     its id
//	devicecred/ID        the id of the device that has this credential
//	deviceek/HASH        the id of the device that this endorsement key is enrolled for
//	devicetoken/ID       the one enrollment token of a device, as a hash
//
// Reads give devices with their revision; writes are operations, for the caller to commit with their audit event.
package inventory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// Inventory reads devices. It holds nothing to close.
type Inventory struct {
	store store.Store
}

// New reads from s, which stays the caller's.
func New(s store.Store) *Inventory { return &Inventory{store: s} }

func key(id string) string { return "device/" + url.PathEscape(id) }

func tagKey(os device.OS, tag string) string {
	return "devicetag/" + string(os) + "/" + url.PathEscape(device.NormalTag(tag))
}

func credKey(id string) string  { return "devicecred/" + url.PathEscape(id) }
func ekKey(hash string) string  { return "deviceek/" + url.PathEscape(hash) }
func tokenKey(id string) string { return "devicetoken/" + url.PathEscape(id) }

// NotFound is the fault of a device that is not there, as people named it.
func NotFound(named string) error {
	return fault.New(fault.NotFound, "device %q not found", named).WithReason("device_not_found")
}

// Get reads a device by id.
func (v *Inventory) Get(ctx context.Context, id string) (*device.Device, uint64, error) {
	rec, err := v.store.Get(ctx, key(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, NotFound(id)
	}
	if err != nil {
		return nil, 0, err
	}
	return decode(rec)
}

func decode(rec store.Record) (*device.Device, uint64, error) {
	var d device.Device
	if err := json.Unmarshal(rec.Value, &d); err != nil {
		return nil, 0, fmt.Errorf("stored %s: %w", rec.Key, err)
	}
	id, err := url.PathUnescape(rec.Key[len("device/"):])
	d.ID = id
	return &d, rec.Revision, err
}

// ByTag finds a device by its tag; os may be empty where only one system has that tag.
func (v *Inventory) ByTag(ctx context.Context, os device.OS, tag string) (*device.Device, uint64, error) {
	systems := []device.OS{os}
	if os == "" {
		systems = []device.OS{device.Linux, device.MacOS, device.Windows}
	}
	var ids []string
	for _, s := range systems {
		rec, err := v.store.Get(ctx, tagKey(s, tag))
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		ids = append(ids, string(rec.Value))
	}
	switch len(ids) {
	case 0:
		return nil, 0, NotFound(tag)
	case 1:
		return v.Get(ctx, ids[0])
	}
	return nil, 0, fault.New(fault.Invalid, "found multiple devices for asset tag %q, please retry using the device ID instead", tag).
		WithReason("device_ambiguous")
}

// ByCredential finds the device that has a credential, or nil.
func (v *Inventory) ByCredential(ctx context.Context, id string) (*device.Device, uint64, error) {
	if id == "" {
		return nil, 0, nil
	}
	rec, err := v.store.Get(ctx, credKey(id))
	if errors.Is(err, store.ErrNotFound) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	d, revision, err := v.Get(ctx, string(rec.Value))
	if fault.Because(err, "device_not_found") {
		return nil, 0, nil
	}
	return d, revision, err
}

// ByEK finds the device that an endorsement key is enrolled for, or "".
func (v *Inventory) ByEK(ctx context.Context, hash string) (string, error) {
	rec, err := v.store.Get(ctx, ekKey(hash))
	if errors.Is(err, store.ErrNotFound) {
		return "", nil
	}
	return string(rec.Value), err
}

// List reads a page of devices behind an id.
func (v *Inventory) List(ctx context.Context, after string, limit int) (list []Entry, next string, err error) {
	r := store.Range{Prefix: "device/", Limit: limit}
	if after != "" {
		r.After = key(after)
	}
	page, err := v.store.List(ctx, r)
	if err != nil {
		return nil, "", err
	}
	for _, rec := range page.Records {
		d, rev, err := decode(rec)
		if err != nil {
			return nil, "", err
		}
		list = append(list, Entry{d, rev})
	}
	if page.More && len(list) > 0 {
		next = list[len(list)-1].Device.ID
	}
	return list, next, nil
}

// Entry is a device with its revision.
type Entry struct {
	Device   *device.Device
	Revision uint64
}

// Add gives a device an id and its times and returns the operations that add it; a tag that is taken is a conflict on
// its index, which Exists words.
func (v *Inventory) Add(d *device.Device, now time.Time) ([]store.Op, error) {
	if d.ID == "" {
		d.ID = uuid.NewString()
	}
	d.AssetTag = device.NormalTag(d.AssetTag)
	if d.EnrollStatus == "" {
		d.EnrollStatus = device.NotEnrolled
	}
	d.CreateTime, d.UpdateTime = now.UTC(), now.UTC()
	raw, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return []store.Op{store.Create(tagKey(d.OSType, d.AssetTag), []byte(d.ID)), store.Create(key(d.ID), raw)}, nil
}

// Exists words a conflict of Add for a person.
func Exists(d *device.Device, err error) error {
	if errors.Is(err, store.ErrConflict) {
		return fault.New(fault.Exists, "device %q/%s already registered", d.AssetTag, d.OSType.Title()).
			WithReason("device_exists").WithFix("tctl devices ls").Wrapping(err)
	}
	return err
}

// Update are the operations that replace a device that was read as before, at a revision.
func (v *Inventory) Update(before, after *device.Device, revision uint64, now time.Time) ([]store.Op, error) {
	after.AssetTag = device.NormalTag(after.AssetTag)
	after.UpdateTime = now.UTC()
	raw, err := json.Marshal(after)
	if err != nil {
		return nil, err
	}
	ops := []store.Op{store.CheckRevision(key(after.ID), revision), store.Put(key(after.ID), raw)}
	if from, to := tagKey(before.OSType, before.AssetTag), tagKey(after.OSType, after.AssetTag); from != to {
		ops = append(ops, store.Delete(from), store.CheckRevision(to, 0), store.Put(to, []byte(after.ID)))
	}
	old, fresh := indexes(before), indexes(after)
	for k := range old {
		if !fresh[k] {
			ops = append(ops, store.Delete(k))
		}
	}
	for k := range fresh {
		if !old[k] {
			ops = append(ops, store.CheckRevision(k, 0), store.Put(k, []byte(after.ID)))
		}
	}
	return ops, nil
}

// indexes are the keys under which a device's credentials are found.
func indexes(d *device.Device) map[string]bool {
	out := map[string]bool{}
	for _, c := range d.Credentials {
		out[credKey(c.ID)] = true
		if c.EKHash != "" {
			out[ekKey(c.EKHash)] = true
		}
	}
	return out
}

// Remove are the operations that take a device, its indexes and its token away.
func (v *Inventory) Remove(d *device.Device, revision uint64) []store.Op {
	ops := []store.Op{store.CheckRevision(key(d.ID), revision), store.Delete(key(d.ID)),
		store.Delete(tagKey(d.OSType, d.AssetTag)), store.Delete(tokenKey(d.ID))}
	for k := range indexes(d) {
		ops = append(ops, store.Delete(k))
	}
	return ops
}
