//go:build linux

package enclave

import (
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/world"
)

// TestCluster enrolls a Mac in a real cluster: its certificates carry the level, and the session key is in hardware.
func TestCluster(t *testing.T) {
	m := newMac(t)
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	d := &world.Device{Device: m.Device, World: w, Dir: m.home, Tag: "C02STANDIN1", OS: device.MacOS}
	if err := d.Enroll(w.Login("alice"), ""); err != nil {
		t.Fatal(err)
	}
	l := d.Login("alice")
	if l.DeviceFault != nil {
		t.Fatal(l.DeviceFault)
	}
	u := l.Identity()
	if u.Device == nil || u.Device.Level != device.LevelEnclave || u.Device.AssetTag != "C02STANDIN1" || u.KeyPolicy != identity.KeyHardware {
		t.Errorf("%+v", u)
	}
	c := l.Call() // mutual TLS, signed in the enclave
	defer c.Close()
	if list, err := c.Targets(t.Context(), "node", ""); err != nil {
		t.Error(list, err)
	}
	events := w.Events(event.DeviceAuthenticate)
	if len(events) == 0 || !events[len(events)-1].Success {
		t.Errorf("%+v", events)
	}
}
