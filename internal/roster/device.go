package roster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
)

// writeDevice creates or edits a device: credentials, owner and what was collected are read-only.
func (s *Service) writeDevice(ctx context.Context, from identity.Caller, res *manifest.Resource, replace bool) (Written, error) {
	d, ok := res.Spec.(*device.Device)
	if !ok {
		return Written{}, errors.New("device resource without a device")
	}
	w := Written{Kind: manifest.Device, Name: d.AssetTag}
	var old *device.Device
	var revision uint64
	var err error
	if d.ID != "" {
		old, revision, err = s.Inventory.Get(ctx, d.ID)
	} else {
		old, revision, err = s.Inventory.ByTag(ctx, d.OSType, d.AssetTag)
	}
	if fault.Is(err, fault.NotFound) {
		w.Created = true
		out, err := s.Devices.Register(ctx, from, *d)
		if err == nil {
			w.Revision = out.Metadata.Revision
		}
		return w, err
	}
	if err != nil {
		return w, err
	}
	if !replace {
		return w, fault.New(fault.Exists, "device %q already exists", d.AssetTag).WithReason("exists").WithFix("tctl create -f FILE")
	}
	if r := res.Metadata.Revision; r != 0 && r != revision {
		return w, fault.New(fault.Conflict, "device %q was changed since it was read", d.AssetTag).WithReason("changed").WithFix("tctl get device/%s", d.AssetTag)
	}
	if err := s.may(from, manifest.Device, "update", manifest.New(old, revision)); err != nil {
		return w, err
	}
	if err := readOnly(old, d, res.Metadata.Revision != 0); err != nil {
		return w, err
	}
	after := *old
	after.OSType, after.AssetTag, after.EKHash = d.OSType, d.AssetTag, d.EKHash
	if d.Source != nil {
		after.Source = d.Source
	}
	if d.EnrollStatus == device.NotEnrolled {
		after.EnrollStatus, after.Credentials = device.NotEnrolled, nil
	} else if d.EnrollStatus == device.Enrolled && old.EnrollStatus != device.Enrolled {
		return w, fault.New(fault.Invalid, "enroll_status: a device is enrolled by itself alone").WithFix("tctl devices enroll --asset-tag=%s", d.AssetTag)
	}
	out, err := s.Devices.Change(ctx, from, old, &after, revision)
	if err == nil {
		w.Revision = out.Metadata.Revision
	}
	return w, err
}

// readOnly refuses an edit of what only a device's enrollments and logins say. What a file that was not read from the
// cluster leaves out is no edit.
func readOnly(old, edited *device.Device, read bool) error {
	if (edited.Owner != "" || read) && edited.Owner != old.Owner {
		owner := edited.Owner
		if owner == "" {
			owner = "NAME"
		}
		return fault.New(fault.Invalid, "device %q: owner: is read-only", old.AssetTag).WithReason("read_only").
			WithCause("a device is its owner's by enrollment").WithFix("tctl devices enroll --asset-tag=%s --owner=%s", old.AssetTag, owner)
	}
	shown := manifest.Shown(old)
	unenrolls := edited.EnrollStatus == device.NotEnrolled && len(edited.Credentials) == 0
	for _, f := range []struct {
		name       string
		there      bool
		had, wants any
	}{
		{"credentials", len(edited.Credentials) > 0 || read && !unenrolls, shown.Credentials, edited.Credentials},
		{"collected_data", len(edited.Collected) > 0 || read, old.Collected, edited.Collected},
		{"health", edited.Health != nil || read, old.Health, edited.Health},
	} {
		had, err := json.Marshal(f.had)
		if err != nil {
			return err
		}
		wants, err := json.Marshal(f.wants)
		if err != nil {
			return err
		}
		if f.there && !bytes.Equal(had, wants) {
			return fault.New(fault.Invalid, "device %q: %s: is read-only", old.AssetTag, f.name).WithReason("read_only").
				WithCause("the device's enrollments and logins say it").WithFix("tctl get device/%s   (and leave it as it is there)", old.AssetTag)
		}
	}
	return nil
}
