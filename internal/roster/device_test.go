package roster

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
)

// TestDeviceReadOnly edits one field of a device as it was read, and as a file says it that somebody wrote.
func TestDeviceReadOnly(t *testing.T) {
	now := time.Now().UTC()
	stored := device.Device{OSType: device.Linux, AssetTag: "LAP", Owner: "alice", EnrollStatus: device.Enrolled,
		Credentials: []device.Credential{{ID: "c1", Owner: "alice", PublicKey: []byte{1}, AKArea: []byte{2}, Clock: &device.Clock{Time: 3}, CreateTime: now}},
		Collected:   []device.Data{{SerialNumber: "LAP", CollectTime: now}},
		Health:      &device.Health{Findings: []device.Finding{{Reason: device.TagChanged, Time: now}}}}
	for _, c := range []struct {
		name    string
		edit    func(*device.Device)
		read    bool
		refused bool
	}{
		{"nothing", func(*device.Device) {}, true, false},
		{"another tag", func(d *device.Device) { d.AssetTag = "LAP2" }, true, false},
		{"another owner", func(d *device.Device) { d.Owner = "eve" }, true, true},
		{"no owner", func(d *device.Device) { d.Owner = "" }, true, true},
		{"another credential", func(d *device.Device) { d.Credentials = []device.Credential{{ID: "c2"}} }, true, true},
		{"a credential's owner", func(d *device.Device) {
			d.Credentials = []device.Credential{d.Credentials[0]}
			d.Credentials[0].Owner = "eve"
		}, true, true},
		{"no credentials", func(d *device.Device) { d.Credentials = nil }, true, true},
		{"unenrolled", func(d *device.Device) { d.EnrollStatus = device.NotEnrolled }, true, false},
		{"unenrolled, without credentials", func(d *device.Device) { d.EnrollStatus, d.Credentials = device.NotEnrolled, nil }, true, false},
		{"other data", func(d *device.Device) { d.Collected = []device.Data{{SerialNumber: "X"}} }, true, true},
		{"no findings", func(d *device.Device) { d.Health = nil }, true, true},
		{"by hand: the least", func(d *device.Device) { *d = device.Device{OSType: d.OSType, AssetTag: d.AssetTag} }, false, false},
		{"by hand: its owner", func(d *device.Device) { *d = device.Device{OSType: d.OSType, AssetTag: d.AssetTag, Owner: "alice"} }, false, false},
		{"by hand: another owner", func(d *device.Device) { *d = device.Device{OSType: d.OSType, AssetTag: d.AssetTag, Owner: "eve"} }, false, true},
		{"by hand: a credential", func(d *device.Device) {
			*d = device.Device{OSType: d.OSType, AssetTag: d.AssetTag, Credentials: []device.Credential{{ID: "c2"}}}
		}, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			edited := *manifest.Shown(&stored)
			c.edit(&edited)
			err := readOnly(&stored, &edited, c.read)
			if (err != nil) != c.refused || c.refused && (!fault.Because(err, "read_only") || fault.Of(err).Fix == "") {
				t.Fatalf("got %v", err)
			}
		})
	}
}
