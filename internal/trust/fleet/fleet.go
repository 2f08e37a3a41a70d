// Package fleet is the inventory as its administrators work with it: many devices at once, and what was noticed of one.
package fleet

import (
	"context"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/trust"
)

// Service is the use case.
type Service struct {
	Trust *trust.Service
}

// Listing selects devices: words of the filter's fields, and a CEL predicate over what a device is.
type Listing struct {
	Filter inventory.Filter
	Query  string
	After  string
	Limit  int
}

// List reads a page of the devices that the caller may see and asks for.
func (s *Service) List(ctx context.Context, from identity.Caller, l Listing) ([]*manifest.Resource, string, error) {
	query, err := access.ParseQuery(l.Query)
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "--query: %v", err).WithReason("bad_query")
	}
	l.Filter.Matches = func(d *device.Device) bool {
		if l.Query != "" && !query.MatchesObject(object(d)) {
			return false
		}
		return s.Trust.May(from, "list", d) == nil
	}
	entries, next, err := s.Trust.Inventory.Select(ctx, l.Filter, l.After, l.Limit)
	if err != nil {
		return nil, "", err
	}
	var out []*manifest.Resource
	for _, e := range entries {
		out = append(out, manifest.New(e.Device, e.Revision))
	}
	return out, next, nil
}

// object is a device as queries see it.
func object(d *device.Device) map[string]any {
	o := trust.Object(d)
	o["level"] = ""
	for _, c := range d.Credentials {
		o["level"] = string(c.Attestation)
	}
	return o
}

// change reads a device and writes what edit makes of it, recorded as an update with a message.
func (s *Service) change(ctx context.Context, from identity.Caller, r trust.Ref, edit func(*device.Device) (string, error)) (*manifest.Resource, error) {
	before, revision, err := s.Trust.Find(ctx, r)
	if err != nil {
		return nil, err
	}
	if err := s.Trust.May(from, "update", before); err != nil {
		return nil, err
	}
	after := *before
	after.Health = before.CloneHealth()
	message, err := edit(&after)
	if err != nil {
		return nil, err
	}
	ops, err := s.Trust.Inventory.Update(before, &after, revision, s.Trust.Now())
	if err != nil {
		return nil, err
	}
	ev := trust.DeviceEvent(event.DeviceUpdate, from, &after)
	ev.Success, ev.Message = true, message
	next, err := s.Trust.Audit.Record(ctx, ev, ops...)
	if err != nil {
		return nil, s.Trust.Changed(err)
	}
	return manifest.New(&after, next), nil
}
