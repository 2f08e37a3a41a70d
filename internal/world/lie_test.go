package world_test

import (
	"testing"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/world"
)

// pretender is a key file that calls itself an enclave.
type pretender struct{ hwkey.Attestor }

func (l pretender) Evidence() (device.Evidence, error) {
	e, err := l.Attestor.Evidence()
	e.Kind = device.SecureEnclave
	return e, err
}

// TestA2A5LyingKind enrolls a key file that calls itself a Secure Enclave, on a Linux machine: it would be hardware.
func TestA2A5LyingKind(t *testing.T) {
	w := world.New(t, func(c *config.Config) { c.Auth.Settings.DeviceTrust.AllowSoftwareKeys = false })
	w.User("alice", "access", "editor")
	d := w.Device("LAP", "")
	key := d.Session()
	a, err := d.Device.Enroll(key)
	if err != nil {
		t.Fatal(err)
	}
	w.Refused(d.EnrollWith(w.Login("alice"), "", key, pretender{a}), "device_kind", event.DeviceEnroll)
}

// enrolling gives a cluster where registered devices enroll by themselves.
func enrolling(owners string) func(*config.Config) {
	return func(c *config.Config) {
		c.Auth.Settings.DeviceTrust.AutoEnroll, c.Auth.Settings.DeviceTrust.Owners = true, owners
	}
}

// TestUnenrolledStaysSo unenrolls a device where devices enroll by themselves: its next login does not undo it.
func TestUnenrolledStaysSo(t *testing.T) {
	w := world.New(t, enrolling(cluster.OneEach))
	w.User("alice", "access")
	w.User("boss", "editor")
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "LAP", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	d := w.Device("LAP", "")
	d.Auto = true
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Admin.Unenroll(t.Context(), client.DeviceRef{ID: d.Keep.DeviceID}); err != nil {
		t.Fatal(err)
	}
	w.Refused(d.Enroll(w.Login("alice"), ""), device.Unenrolled, event.DeviceEnroll)
	// A token of an administrator's brings it back, and from then on it is a device like others.
	token, err := fleet.Of(w.Admin).EnrollToken(t.Context(), client.DeviceRef{ID: d.Keep.DeviceID}, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	d.Auto = false
	if err := d.Enroll(w.Login("alice"), token.Secret); err != nil {
		t.Fatal(err)
	}
	if rec := inventoried(t, w, "LAP"); len(rec.CloneHealth().Findings) != 0 {
		t.Fatalf("%+v", rec.Health)
	}
}

// TestOthersMachine joins, where several users may enroll one device, another's from a machine that nothing ties to it.
func TestOthersMachine(t *testing.T) {
	w := world.New(t, enrolling(cluster.Many))
	w.User("alice", "access")
	w.User("mallory", "access")
	if _, err := w.Admin.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "LAP", Owner: "alice"}); err != nil {
		t.Fatal(err)
	}
	hers, his := w.Device("LAP", ""), w.Device("LAP", "")
	hers.Auto, his.Auto = true, true
	if err := hers.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	w.Refused(his.Enroll(w.Login("mallory"), ""), "ek_hash_mismatch", event.DeviceEnroll)
}

// TestDeviceKeyReused enrolls with the device key of the enrollment before, whose counters would begin anew.
func TestDeviceKeyReused(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	d := w.Device("LAP", "")
	key := d.Session()
	a, err := d.Device.Enroll(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.EnrollWith(w.Login("alice"), "", key, a); err != nil {
		t.Fatal(err)
	}
	w.Refused(d.EnrollWith(w.Login("alice"), "", key, a), "device_key_reused", event.DeviceEnroll)
}

// TestA5HashTakesMoreThanCreate registers a device with the hash of an emulator by the right to register alone.
func TestA5HashTakesMoreThanCreate(t *testing.T) {
	w := world.New(t, nil)
	w.Role(creator())
	w.User("mallory", "device-creator")
	c := w.Login("mallory").Call()
	defer c.Close()
	if _, err := c.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "ONE"}); err != nil {
		t.Fatal(err)
	}
	hash := "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
	if _, err := c.RegisterDevice(t.Context(), device.Device{OSType: device.Linux, AssetTag: "TWO", EKHash: hash}); !fault.Is(err, fault.Denied) {
		t.Fatalf("registered with a hash: %v", err)
	}
	if _, err := w.Admin.Get(t.Context(), manifest.Device, "TWO"); !fault.Is(err, fault.NotFound) {
		t.Fatal(err)
	}
}

func creator() role.Role {
	return role.Role{Name: "device-creator", Allow: role.Conditions{Rules: []role.Rule{{Resources: []string{"device"}, Verbs: []string{"create", "enroll"}}}}}
}
