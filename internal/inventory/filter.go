package inventory

import (
	"context"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/store"
)

// scanLimit bounds how many devices one Select looks at: a filter that hardly matches gets a short page, or an empty
// one, and a place to go on from rather than a long wait.
const scanLimit = 5 * store.MaxPage

// firstPage is how many devices are read to find the first matches; later reads are whole pages.
const firstPage = 200

// Filter selects devices; empty fields select all. Matches, where it is set, is asked last.
type Filter struct {
	OS      device.OS
	Status  device.EnrollStatus
	Owner   string // of the device or of one of its credentials
	Level   device.Level
	Finding string // a reason's word, or any
	Matches func(*device.Device) bool
}

// selects reports whether the filter takes a device.
func (f Filter) selects(d *device.Device) bool {
	if f.OS != "" && f.OS != d.OSType || f.Status != "" && f.Status != d.EnrollStatus {
		return false
	}
	owned, leveled := f.Owner == "" || f.Owner == d.Owner, f.Level == ""
	for _, c := range d.Credentials {
		owned, leveled = owned || c.Owner == f.Owner, leveled || c.Attestation == f.Level
	}
	if !owned || !leveled || f.Finding != "" && !found(d, f.Finding) {
		return false
	}
	return f.Matches == nil || f.Matches(d)
}

func found(d *device.Device, reason string) bool {
	if d.Health == nil {
		return false
	}
	_, has := d.Health.Found(reason)
	return has || reason == "any" && len(d.Health.Findings) > 0
}

// Select reads a page of the devices behind an id that a filter takes. A page may be short, or empty, and still have a
// next one.
func (v *Inventory) Select(ctx context.Context, f Filter, after string, limit int) (list []Entry, next string, err error) {
	if limit <= 0 || limit > store.MaxPage {
		limit = store.MaxPage
	}
	read := min(limit, firstPage)
	for scanned := 0; scanned < scanLimit; scanned += read {
		page, more, err := v.List(ctx, after, read)
		if err != nil {
			return nil, "", err
		}
		for i, e := range page {
			after = e.Device.ID
			if !f.selects(e.Device) {
				continue
			}
			if list = append(list, e); len(list) == limit {
				if more == "" && i == len(page)-1 {
					after = ""
				}
				return list, after, nil
			}
		}
		if more == "" {
			return list, "", nil
		}
		read = store.MaxPage
	}
	return list, after, nil
}
