package fleet

import (
	"context"
	"errors"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/trust"
)

// Import is what Import does with devices. Origin says where they come from.
type Import struct {
	Origin string
	DryRun bool
}

// Outcome is what became of one device.
type Outcome string

// The outcomes.
const (
	Created Outcome = "created"
	Exists  Outcome = "exists"
	Refused Outcome = "refused"
)

// Imported is what became of one device, and why.
type Imported struct {
	Outcome  Outcome
	Reason   string
	DeviceID string
}

// MaxImport is how many devices one Import takes; perTxn how many of them share a transaction: each takes an operation
// for itself, one for its tag and one for its event, of 100 that a transaction has.
const (
	MaxImport = 500
	perTxn    = 30
)

// Import registers devices. Each is created, there already, or refused by itself: what became of it is at its place.
// The error is for what keeps all further ones from being tried.
func (s *Service) Import(ctx context.Context, from identity.Caller, how Import, list []device.Device) ([]Imported, error) {
	if len(list) > MaxImport {
		return nil, fault.New(fault.Invalid, "%d devices in one call, at most %d", len(list), MaxImport).WithReason("too_large")
	}
	out := make([]Imported, len(list))
	inFile := map[string]int{}
	var batch []pending
	flush := func() error {
		err := s.write(ctx, from, batch)
		batch = batch[:0]
		return err
	}
	for i := range list {
		d, slot := &list[i], &out[i]
		d.Source = &device.Source{Name: "import", Origin: how.Origin}
		err := s.Trust.Prepare(from, d)
		name := string(d.OSType) + "/" + d.AssetTag
		if first, twice := inFile[name]; err == nil && twice {
			*slot = Imported{Outcome: Exists, Reason: "it is in the list before", DeviceID: out[first].DeviceID}
			continue
		}
		if err == nil {
			inFile[name] = i
			err = s.there(ctx, from, d, slot)
		}
		switch {
		case err != nil && fault.Of(err).Kind == fault.Internal:
			return out, err
		case err != nil:
			*slot = refused(err)
		case slot.Outcome == "" && how.DryRun:
			*slot = Imported{Outcome: Created, Reason: "dry run: nothing was written"}
		case slot.Outcome == "":
			batch = append(batch, pending{d, slot})
		}
		if len(batch) == perTxn {
			if err := flush(); err != nil {
				return out, err
			}
		}
	}
	return out, flush()
}

type pending struct {
	device *device.Device
	slot   *Imported
}

func refused(err error) Imported {
	f := fault.Of(err)
	text := f.Text
	if f.Cause != "" {
		text += ": " + f.Cause
	}
	return Imported{Outcome: Refused, Reason: text}
}

// there finds a device that is registered already, and says how it differs to who may read it; others learn that its tag
// is taken.
func (s *Service) there(ctx context.Context, from identity.Caller, d *device.Device, slot *Imported) error {
	have, _, err := s.Trust.Inventory.ByTag(ctx, d.OSType, d.AssetTag)
	if fault.Because(err, "device_not_found") {
		return nil
	}
	if err != nil {
		return err
	}
	if s.Trust.May(from, "read", have) != nil {
		*slot = Imported{Outcome: Exists, Reason: "its tag is taken"}
		return nil
	}
	*slot = Imported{Outcome: Exists, DeviceID: have.ID}
	if d.Owner != "" && d.Owner != have.Owner {
		slot.Reason = "its owner is " + named(have.Owner) + ", and is not changed by an import"
	} else if d.EKHash != "" && d.EKHash != have.EKHash {
		slot.Reason = "its ek_hash is " + named(have.EKHash) + ", and is not changed by an import"
	}
	return nil
}

func named(s string) string {
	if s == "" {
		return "nobody's"
	}
	return s
}

// write registers a batch in one transaction. Where somebody else was faster with one of them, each is written by
// itself.
func (s *Service) write(ctx context.Context, from identity.Caller, batch []pending) error {
	if len(batch) == 0 {
		return nil
	}
	var evs []event.Event
	var ops []store.Op
	for _, p := range batch {
		add, err := s.Trust.Inventory.Add(p.device, s.Trust.Now())
		if err != nil {
			return err
		}
		ev := trust.DeviceEvent(event.DeviceCreate, from, p.device)
		ev.Success = true
		evs, ops = append(evs, ev), append(ops, add...)
	}
	_, err := s.Trust.Audit.RecordAll(ctx, evs, ops...)
	switch {
	case err == nil:
		for _, p := range batch {
			*p.slot = Imported{Outcome: Created, DeviceID: p.device.ID}
		}
		return nil
	case !errors.Is(err, store.ErrConflict):
		for _, p := range batch {
			*p.slot = refused(err)
		}
		return err
	case len(batch) == 1:
		*batch[0].slot = Imported{Outcome: Exists, Reason: fault.Of(inventory.Exists(batch[0].device, err)).Text}
		return nil
	}
	for i := range batch {
		batch[i].device.ID = ""
		if err := s.write(ctx, from, batch[i:i+1]); err != nil {
			return err
		}
	}
	return nil
}
