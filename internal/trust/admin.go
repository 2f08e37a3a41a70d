package trust

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
)

// Ref names a device by id, or by tag and, where that is not unique, system.
type Ref struct {
	ID  string
	Tag string
	OS  device.OS
}

// Find reads the device that a Ref names.
func (s *Service) Find(ctx context.Context, r Ref) (*device.Device, uint64, error) {
	switch {
	case r.ID != "":
		return s.Inventory.Get(ctx, r.ID)
	case r.Tag != "":
		return s.Inventory.ByTag(ctx, r.OS, r.Tag)
	}
	return nil, 0, fault.New(fault.Invalid, "either --device-id or --asset-tag must be set").WithReason("no_device_named")
}

// Register puts a device in the inventory.
func (s *Service) Register(ctx context.Context, from identity.Caller, d device.Device) (*manifest.Resource, error) {
	if err := s.Prepare(from, &d); err != nil {
		return nil, err
	}
	revision, err := s.add(ctx, from, &d)
	return manifest.New(&d, revision), err
}

// Prepare judges a device that is to be registered, and takes off what only its enrollment may say.
func (s *Service) Prepare(from identity.Caller, d *device.Device) error {
	if d.AssetTag == "" && device.ValidEKHash(d.EKHash) {
		d.AssetTag = ekTagOf(d.EKHash) // of a machine that tells none
	}
	if err := manifest.New(d, 0).Check(); err != nil {
		return err
	}
	if d.Owner != "" && !identity.ValidName(d.Owner) {
		return fault.New(fault.Invalid, "owner %q is no user name", d.Owner)
	}
	d.ID, d.EnrollStatus, d.Credentials, d.Collected, d.Health = "", device.NotEnrolled, nil, nil, nil
	if d.EKHash != "" { // which approves that TPM, whoever made it
		if err := s.May(from, "update", d); err != nil {
			return err
		}
	}
	return s.May(from, "create", d)
}

// Token makes a device's enrollment token; it replaces an older one.
func (s *Service) Token(ctx context.Context, from identity.Caller, r Ref, owner string, ttl time.Duration) (string, time.Time, *device.Device, error) {
	d, _, err := s.Find(ctx, r)
	if err != nil {
		return "", time.Time{}, nil, err
	}
	if err := s.May(from, "create_enroll_token", d); err != nil {
		return "", time.Time{}, nil, err
	}
	if ttl <= 0 {
		ttl = TokenTTL
	}
	if ttl > 30*24*time.Hour {
		return "", time.Time{}, nil, fault.New(fault.Invalid, "an enrollment token lives 30 days at most")
	}
	if owner == "" {
		owner = d.Owner
	}
	expires := s.Now().UTC().Add(ttl).Truncate(time.Second)
	printed, op, err := inventory.NewToken(d.ID, inventory.Token{Owner: owner, CreatedBy: from.Name(), ByAdmin: true, Expires: expires})
	if err != nil {
		return "", time.Time{}, nil, err
	}
	ev := DeviceEvent(event.DeviceTokenCreate, from, d)
	ev.Success, ev.Resource.Expires = true, &expires
	_, err = s.Audit.Record(ctx, ev, op)
	return printed, expires, d, err
}

// Listed is a token with the device that it is for.
type Listed struct {
	inventory.Token
	Device *device.Device
}

// Tokens lists enrollment tokens, without their secrets.
func (s *Service) Tokens(ctx context.Context, from identity.Caller) ([]Listed, error) {
	tokens, err := s.Inventory.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	var out []Listed
	for _, t := range tokens {
		d, _, err := s.Inventory.Get(ctx, t.DeviceID)
		if err != nil || s.May(from, "list", d) != nil {
			continue
		}
		out = append(out, Listed{t, d})
	}
	return out, nil
}

// RevokeToken takes a device's token back.
func (s *Service) RevokeToken(ctx context.Context, from identity.Caller, r Ref) error {
	d, _, err := s.Find(ctx, r)
	if err != nil {
		return err
	}
	if err := s.May(from, "create_enroll_token", d); err != nil {
		return err
	}
	ev := DeviceEvent(event.DeviceUpdate, from, d)
	ev.Success, ev.Message = true, "enrollment token revoked"
	_, err = s.Audit.Record(ctx, ev, inventory.DeleteToken(d.ID))
	return err
}

// Unenroll takes every credential from a device and ends what was issued on them.
func (s *Service) Unenroll(ctx context.Context, from identity.Caller, r Ref) (*manifest.Resource, error) {
	before, revision, err := s.Find(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.May(from, "update", before); err != nil {
		return nil, err
	}
	after := *before
	after.EnrollStatus, after.Credentials = device.NotEnrolled, nil
	return s.Change(ctx, from, before, &after, revision)
}

// Change replaces a device's record, and ends what was issued on credentials that it no longer has, or under another
// name or owner.
func (s *Service) Change(ctx context.Context, from identity.Caller, before, after *device.Device, revision uint64) (*manifest.Resource, error) {
	if before.Enrolled() && !after.Enrolled() {
		after.Health = after.CloneHealth()
		after.Health.Note(device.Finding{Reason: device.Unenrolled, Text: "by " + from.Name(), Time: s.Now().UTC()})
	}
	ops, err := s.Inventory.Update(before, after, revision, s.Now())
	if err != nil {
		return nil, err
	}
	moved := before.AssetTag != after.AssetTag || before.OSType != after.OSType || before.Owner != after.Owner
	locks := 0
	for _, c := range before.Credentials {
		_, kept := after.Credential(c.ID)
		if kept && !moved {
			continue
		}
		var until time.Time
		if kept { // the device logs in again under its new name
			until = s.Now().UTC()
		}
		op, err := s.credentialLock(c.ID, fmt.Sprintf("device %s was unenrolled or moved", before.AssetTag), until)
		if err != nil {
			return nil, err
		}
		ops, locks = append(ops, op), locks+1
	}
	ev := DeviceEvent(event.DeviceUpdate, from, after)
	ev.Success = true
	next, err := s.Audit.Record(ctx, ev, ops...)
	if err != nil {
		return nil, s.Changed(err)
	}
	s.Pictures.Reached(ctx, revisionOfLocks(next, locks))
	return manifest.New(after, next), nil
}

// Remove takes a device away and locks it, so that certificates that carry it die.
func (s *Service) Remove(ctx context.Context, from identity.Caller, r Ref) (*device.Device, error) {
	d, revision, err := s.Find(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.May(from, "delete", d); err != nil {
		return nil, err
	}
	ops := s.Inventory.Remove(d, revision)
	op, err := records.Put(manifest.New(&lock.Lock{Name: uuid.NewString(), Target: lock.Target{Device: d.ID},
		Message: fmt.Sprintf("device %s was removed", d.AssetTag), Expires: s.Now().UTC().Add(identity.MaxLifetime), CreatedBy: from.Name()}, 0))
	if err != nil {
		return nil, err
	}
	ev := DeviceEvent(event.DeviceDelete, from, d)
	ev.Success = true
	next, err := s.Audit.Record(ctx, ev, append(ops, op)...)
	if err != nil {
		return nil, s.Changed(err)
	}
	s.Pictures.Reached(ctx, next)
	return d, nil
}

// Mine says what a device is to this cluster, to its owner and to who may read devices.
func (s *Service) Mine(ctx context.Context, from identity.Caller, r Ref) (*device.Device, error) {
	d, _, err := s.Find(ctx, r)
	if err != nil {
		return nil, err
	}
	if from.User != nil {
		mine := slices.ContainsFunc(d.Credentials, func(c device.Credential) bool { return c.Owner == from.User.Name })
		open := d.Owner == "" && !d.Enrolled() && s.Settings().DeviceTrust.AutoEnroll
		if d.Owner == from.User.Name || mine || open {
			return d, nil
		}
	}
	if err := s.May(from, "read", d); err != nil {
		return nil, inventory.NotFound(r.Tag + r.ID)
	}
	return d, nil
}
