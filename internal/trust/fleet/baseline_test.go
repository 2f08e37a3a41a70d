package fleet

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// TestOtherPCRsUnpinNothing names another PCR for a device whose last boot does not prove it: what is pinned stays.
func TestOtherPCRsUnpinNothing(t *testing.T) {
	pinned := map[int]string{0: "a", 2: "b", 4: "c", 7: "d"}
	fresh := func() *device.Device {
		return &device.Device{AssetTag: "T", Credentials: []device.Credential{{Kind: device.TPM2}}, Health: &device.Health{
			Baseline: &device.Baseline{Watch: []int{0, 2, 4, 7}, PCRs: pinned},
			Boot:     &device.Boot{PCRs: pinned, Time: time.Now()}}}
	}
	d := fresh()
	_, err := Baseline{Watch: []int{0, 2, 4, 7, 9}}.set(d, "admin", time.Now())
	if !fault.Because(err, device.BootUnproven) {
		t.Fatal(err)
	}
	if b := d.Health.Baseline; len(b.PCRs) != 4 || len(b.Watch) != 4 {
		t.Fatalf("the baseline is %+v", b)
	}
	d = fresh()
	if _, err = (Baseline{Watch: []int{0, 7}}).set(d, "admin", time.Now()); err != nil || len(d.Health.Baseline.PCRs) != 2 {
		t.Fatalf("fewer of what is proven: %+v %v", d.Health.Baseline, err)
	}
}
