package world_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/swtpm/firmware"
	"github.com/sallyport/sallyport/internal/world"
)

// boot starts a machine as a firmware does; tell, where it is given, is what its log tells instead.
func boot(t *testing.T, e *swtpm.Emulator, b firmware.Boot, tell ...firmware.Event) {
	t.Helper()
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := e.Raw(func(c *swtpm.Conn) error { return firmware.Extend(c, b.Events()) }); err != nil {
		t.Fatal(err)
	}
	if tell == nil {
		tell = b.Events()
	}
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, firmware.Log(tell), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TSH_EVENTLOG", path)
}

// bootRole demands Secure Boot.
func bootRole(name string) role.Role {
	return role.Role{Name: name, Options: role.Options{DeviceRequirements: &role.Requirements{SecureBoot: true}},
		Allow: role.Conditions{Logins: []string{"root"}, NodeLabels: label.Selector{"*": {"*"}}}}
}

// inventoried reads a device's record.
func inventoried(t *testing.T, w *world.World, tag string) *device.Device {
	t.Helper()
	list, _, err := fleet.Of(w.Admin).List(t.Context(), fleet.Listing{Query: `resource.asset_tag == "` + tag + `"`})
	if err != nil || len(list) != 1 {
		t.Fatalf("%d devices, %v", len(list), err)
	}
	return list[0]
}

// TestSecureBootProven: the claim comes from a quoted log alone, over the real streams, logs of more than one message
// included.
func TestSecureBootProven(t *testing.T) {
	w := world.New(t, nil)
	w.Role(bootRole("booted"))
	w.User("alice", "access", "editor", "booted")
	e := swtpm.Start(t, swtpm.Options{})
	d := w.Device("BOOT1", e.Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	state := func(l *world.Login) string {
		if l.DeviceFault != nil {
			t.Fatalf("no device proof: %v: %s", l.DeviceFault, fault.Of(l.DeviceFault).Cause)
		}
		switch s := l.Identity().Device.Claims.SecureBoot; {
		case s == nil:
			return "unknown"
		case *s:
			return "on"
		}
		return "off"
	}
	for _, b := range []firmware.Boot{{SecureBoot: true, Loader: "shim", DBX: 100 << 10}, {Loader: "shim"}} {
		boot(t, e, b)
		if got := state(d.Login("alice")); (got == "on") != b.SecureBoot {
			t.Errorf("%+v: %s", b, got)
		}
	}
	// A42: a log of another start proves nothing, and the login says so.
	boot(t, e, firmware.Boot{Loader: "shim"}, firmware.Boot{SecureBoot: true, Loader: "shim"}.Events()...)
	l := d.Login("alice")
	if got := state(l); got != "unknown" || !strings.Contains(strings.Join(l.Notices, "\n"), "Secure Boot is not proven: the event log does not replay to PCR 7") {
		t.Errorf("%s, notices %q", got, l.Notices)
	}
	if rec := inventoried(t, w, "BOOT1"); rec.Health.Boot.Problem != "eventlog_replay" || len(rec.Health.Findings) != 1 {
		t.Errorf("%+v", rec.Health)
	}
	t.Setenv("TSH_EVENTLOG", filepath.Join(t.TempDir(), "none"))
	if l := d.Login("alice"); state(l) != "unknown" || !strings.Contains(strings.Join(l.Notices, ""), "there is no ") {
		t.Errorf("%q", l.Notices)
	}
	// Without the role nothing is quoted and nothing claimed.
	boot(t, e, firmware.Boot{SecureBoot: true})
	w.User("bob", "access", "editor")
	d2 := w.Device("BOOT2", swtpm.Start(t, swtpm.Options{}).Socket)
	if err := d2.Enroll(w.Login("bob"), ""); err != nil {
		t.Fatal(err)
	}
	if got := state(d2.Login("bob")); got != "unknown" {
		t.Errorf("claimed without a quote: %s", got)
	}
}

// TestA42_Baseline: what a device boots is pinned; a change refuses the proof with its reason, is kept for an
// administrator, and is accepted by one command.
func TestA42_Baseline(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	e := swtpm.Start(t, swtpm.Options{})
	d := w.Device("PIN1", e.Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	f, ref := fleet.Of(w.Admin), client.DeviceRef{Tag: "PIN1"}
	boot(t, e, firmware.Boot{SecureBoot: true, Loader: "one"})
	if rec, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{}); err != nil || len(rec.Health.Baseline.PCRs) != 0 {
		t.Fatalf("%+v %v", rec, err)
	}
	proven := func() {
		t.Helper()
		if l := d.Login("alice"); l.DeviceFault != nil || l.Identity().Device == nil {
			t.Fatalf("%v: %s", l.DeviceFault, fault.Of(l.DeviceFault).Cause)
		}
	}
	refused := func(reason string) {
		t.Helper()
		l := d.Login("alice")
		w.Refused(l.DeviceFault, reason, event.DeviceAuthenticate)
		if l.Identity().Device != nil {
			t.Fatal("the certificate carries the device")
		}
	}
	proven() // takes the baseline
	if rec := inventoried(t, w, "PIN1"); len(rec.Health.Baseline.PCRs) != 4 {
		t.Fatalf("%+v", rec.Health.Baseline)
	}
	proven()
	boot(t, e, firmware.Boot{SecureBoot: true, Loader: "two"})
	refused(device.BootChanged)
	rec := inventoried(t, w, "PIN1")
	if x, ok := rec.Health.Found(device.BootChanged); !ok || !strings.Contains(x.Text, "PCR 4 (the boot loader)") {
		t.Fatalf("%+v", rec.Health.Findings)
	}
	_, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{})
	if !fault.Because(err, device.BootChanged) {
		t.Fatalf("pinned anew without --accept: %v", err)
	}
	if _, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{Accept: true}); err != nil {
		t.Fatal(err)
	}
	proven()
	if rec := inventoried(t, w, "PIN1"); len(rec.Health.Findings) != 0 {
		t.Errorf("%+v", rec.Health.Findings)
	}
	boot(t, e, firmware.Boot{Loader: "two"}) // Secure Boot off: the policy's PCR
	refused(device.BootChanged)
	boot(t, e, firmware.Boot{Loader: "evil"}, firmware.Boot{SecureBoot: true, Loader: "two"}.Events()...)
	refused("eventlog_replay")
	if _, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{Accept: true}); !fault.Because(err, device.BootUnproven) {
		t.Errorf("what was not proven was accepted: %v", err)
	}
	t.Setenv("TSH_EVENTLOG", filepath.Join(t.TempDir(), "none"))
	refused("eventlog_unreadable")
	boot(t, e, firmware.Boot{SecureBoot: true, Loader: "two"})
	proven()
	if _, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{PCRs: []uint{10}}); !fault.Because(err, "bad_pcr") {
		t.Error(err)
	}
	if rec, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{Clear: true}); err != nil || rec.Health.Baseline != nil {
		t.Errorf("%v", err)
	}
	boot(t, e, firmware.Boot{Loader: "evil"})
	proven()
	// A baseline is not shaken off by enrolling the device anew with a key that quotes nothing.
	if _, err := f.SetBaseline(t.Context(), ref, fleet.Baseline{}); err != nil {
		t.Fatal(err)
	}
	anew := w.Device("PIN1", "")
	if err := anew.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	l := anew.Login("alice")
	w.Refused(l.DeviceFault, device.BootUnproven, event.DeviceAuthenticate)
	if l.Identity().Device != nil {
		t.Error("a software key proves a device that has a baseline")
	}
	soft := w.Device("SOFT1", "")
	if err := soft.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := f.SetBaseline(t.Context(), client.DeviceRef{Tag: "SOFT1"}, fleet.Baseline{}); !fault.Because(err, "no_quotes") {
		t.Error(err)
	}
}

// TestCountersBack: a machine that was restored from a snapshot is noticed, and refused where a role demands a level.
func TestCountersBack(t *testing.T) {
	w := world.New(t, nil)
	r := bootRole("leveled")
	r.Options.DeviceRequirements = &role.Requirements{Attestation: []device.Level{device.LevelTPMPub}}
	w.Role(r)
	w.User("alice", "access", "editor", "leveled")
	e := swtpm.Start(t, swtpm.Options{})
	d := w.Device("SNAP1", e.Socket)
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	back := func() bool {
		t.Helper()
		l := d.Login("alice")
		if l.DeviceFault != nil {
			t.Fatal(l.DeviceFault)
		}
		return l.Identity().Device.Claims.CountersBack
	}
	snapshot, err := e.Snapshot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := e.Restart(); err != nil {
			t.Fatal(err)
		}
		if back() {
			t.Fatal("counters went on, and are taken for gone back")
		}
	}
	if err := e.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if !back() {
		t.Fatal("a restored TPM passes")
	}
	rec := inventoried(t, w, "SNAP1")
	if _, ok := rec.Health.Found(device.CountersBack); !ok {
		t.Fatalf("%+v", rec.Health)
	}
	if evs := w.Events(event.DeviceAuthenticate); !strings.Contains(evs[len(evs)-1].Message, device.CountersBack) {
		t.Errorf("the event says %q", evs[len(evs)-1].Message)
	}
	for range 8 { // it stays noticed, also once the counters have passed the old ones
		if err := e.Restart(); err != nil {
			t.Fatal(err)
		}
		if !back() {
			t.Fatal("forgotten")
		}
	}
	x, err := w.Admin.Explain(t.Context(), client.Question{User: "alice", Device: "SNAP1", Kind: "node", Name: "web", Login: "root"})
	if err != nil || x.Allowed || !strings.Contains(x.Text, "counters that went back") {
		t.Errorf("%+v %v", x, err)
	}
	accepted, _, err := fleet.Of(w.Admin).Accept(t.Context(), client.DeviceRef{Tag: "SNAP1"})
	if err != nil || len(accepted) != 1 || accepted[0] != device.CountersBack {
		t.Fatalf("%v %v", accepted, err)
	}
	if back() {
		t.Error("still there once it was accepted")
	}
	if err := e.Restart(); err != nil {
		t.Fatal(err)
	}
	if back() {
		t.Error("there again")
	}
	// Enrolling anew ends it too: the new key has no history, and the clone's dies.
	if err := e.Restore(snapshot); err != nil {
		t.Fatal(err)
	}
	if !back() {
		t.Fatal("a restored TPM passes")
	}
	old := d.Keep.CredentialID
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	if back() || d.Keep.CredentialID == old {
		t.Error("a new key has a history")
	}
}

// TestTagChange: another tag is noticed, and settled by one command.
func TestTagChange(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	d := w.Device("TAG-OLD", "")
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	d.Claims = device.Data{OSType: device.Linux, ReportedAssetTag: "tag-new"}
	if l := d.Login("alice"); l.Identity().Device == nil || l.Identity().Device.AssetTag != "TAG-OLD" {
		t.Fatal("no device")
	}
	rec := inventoried(t, w, "TAG-OLD")
	if x, ok := rec.Health.Found(device.TagChanged); !ok || !strings.Contains(x.Text, "TAG-NEW") {
		t.Fatalf("%+v", rec.Health)
	}
	if _, _, err := fleet.Of(w.Admin).Accept(t.Context(), client.DeviceRef{Tag: "TAG-OLD"}); err != nil {
		t.Fatal(err)
	}
	if l := d.Login("alice"); l.Identity().Device == nil || l.Identity().Device.AssetTag != "TAG-NEW" {
		t.Error("the record was not renamed")
	}
	if rec := inventoried(t, w, "TAG-NEW"); len(rec.Health.Findings) != 0 {
		t.Errorf("%+v", rec.Health)
	}
}
