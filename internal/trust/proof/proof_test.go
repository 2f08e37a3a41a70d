package proof

import (
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/trust"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// seen judges what a proof shows beside the proof of a device with these last figures.
func seen(t *testing.T, last, next *device.Clock, claims device.Data) (*proving, []string) {
	t.Helper()
	l := &proving{Service: &trust.Service{Now: func() time.Time { return noon }}, before: &device.Device{AssetTag: "T1"},
		cred: &device.Credential{Kind: device.TPM2, Clock: last}, health: &device.Health{}}
	if err := l.judge(claims, ceremony.Result{Credential: device.Credential{Clock: next}}); err != nil {
		t.Fatal(err)
	}
	var reasons []string
	for _, f := range l.health.Findings {
		reasons = append(reasons, f.Reason)
	}
	return l, reasons
}

// TestFigures: what is noted of a TPM's figures, and what the next ones are compared with.
func TestFigures(t *testing.T) {
	last := &device.Clock{Time: 1000, ResetCount: 5, RestartCount: 1, Firmware: 77}
	for _, r := range []struct {
		name string
		last *device.Clock
		next device.Clock
		want string
		kept uint32 // resets that the next proof is compared with
	}{
		{"the first", nil, device.Clock{ResetCount: 9, Firmware: 1}, "", 9},
		{"going on", last, device.Clock{Time: 5, ResetCount: 6, Firmware: 77}, "", 6},
		{"another firmware", last, device.Clock{Time: 5, ResetCount: 6, Firmware: 78}, device.FirmwareChanged, 6},
		{"back", last, device.Clock{Time: 2000, ResetCount: 4, Firmware: 77}, device.CountersBack, 5},
	} {
		l, got := seen(t, r.last, &r.next, device.Data{})
		if len(got) > 1 || (len(got) == 1) != (r.want != "") || len(got) == 1 && got[0] != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
		if kept := l.clock(&r.next); kept.ResetCount != r.kept || kept.Firmware != r.next.Firmware {
			t.Errorf("%s: %+v is kept", r.name, kept)
		}
	}
	if _, got := seen(t, last, nil, device.Data{}); len(got) != 0 { // of other kinds there are none
		t.Errorf("%q", got)
	}
}

// TestTags: a claim that could not be read is compared with nothing.
func TestTags(t *testing.T) {
	for _, r := range []struct {
		claims device.Data
		noted  bool
	}{
		{device.Data{}, false}, {device.Data{OSType: device.Linux}, false}, {device.Data{OSType: device.Linux, ReportedAssetTag: " t1 "}, false},
		{device.Data{OSType: device.Linux, ReportedAssetTag: "None", SystemSerialNumber: "T1"}, false},
		{device.Data{OSType: device.Linux, ReportedAssetTag: "T2"}, true},
	} {
		if _, got := seen(t, nil, nil, r.claims); (len(got) == 1) != r.noted {
			t.Errorf("%+v: %q", r.claims, got)
		}
	}
}

// TestUnproven: what is said where a log proves nothing, with a baseline and without.
func TestUnproven(t *testing.T) {
	for _, based := range []bool{false, true} {
		for name, q := range map[string]device.Quote{"none": {}, "a reason": {NoLog: "for root alone"}, "nonsense": {Log: []byte("x"), PCRs: make([]byte, 352)}} {
			l, _ := seen(t, nil, nil, device.Data{})
			if based {
				l.health.Baseline = &device.Baseline{Watch: []int{0}}
			}
			err := l.judgeBoot(q, noon)
			if (err != nil) != based || l.health.Boot.Problem == "" || l.health.Boot.SecureBoot != nil {
				t.Errorf("%s, baseline %t: %v %+v", name, based, err, l.health.Boot)
			}
			if based && fault.Of(err).Fix == "" {
				t.Errorf("%s: nothing to type", name)
			}
			if !based && len(l.notices) != 1 {
				t.Errorf("%s: told %q", name, l.notices)
			}
			if _, noted := l.health.Found(device.BootUnproven); !noted {
				t.Errorf("%s: not noted", name)
			}
		}
	}
}

// TestBaselineOfWhatIsNotProven: a baseline on a PCR that the log does not replay to is not taken, and says which.
func TestBaselineOfWhatIsNotProven(t *testing.T) {
	boot := &device.Boot{Time: noon, PCRs: map[int]string{0: "a", 4: "b"}}
	for _, r := range []struct {
		base   device.Baseline
		reason string
	}{
		{device.Baseline{Watch: []int{0, 4}}, ""},
		{device.Baseline{Watch: []int{0, 9}}, device.BootUnproven},
		{device.Baseline{Watch: []int{0}, PCRs: map[int]string{0: "a"}}, ""},
		{device.Baseline{Watch: []int{0}, PCRs: map[int]string{0: "x"}}, device.BootChanged},
		{device.Baseline{Watch: []int{9}, PCRs: map[int]string{9: "x"}}, device.BootChanged},
	} {
		l, _ := seen(t, nil, nil, device.Data{})
		base := r.base
		l.health.Baseline = &base
		err := l.compare(boot, noon)
		if (err == nil) != (r.reason == "") || err != nil && !fault.Because(err, r.reason) {
			t.Errorf("%+v: %v, want %q", r.base, err, r.reason)
		}
		if err == nil && len(l.health.Baseline.PCRs) != len(r.base.Watch) {
			t.Errorf("%+v: pinned %+v", r.base, l.health.Baseline)
		}
		if len(base.PCRs) != len(r.base.PCRs) {
			t.Errorf("%+v: the record that was read is changed", r.base)
		}
	}
}
