package profile

import (
	"testing"
)

// TestWindowsDeviceRoot keeps device keys where they do not roam, unless TSH_HOME is named.
func TestWindowsDeviceRoot(t *testing.T) {
	t.Setenv("LOCALAPPDATA", `C:\Users\Jörg Müller\AppData\Local`)
	t.Setenv("TSH_HOME", "")
	h := &Home{`C:\Users\Jörg Müller\.tsh`}
	if got := h.DeviceDir("example.com"); got != `C:\Users\Jörg Müller\AppData\Local\tsh\device\example.com` {
		t.Error(got)
	}
	t.Setenv("TSH_HOME", `D:\tsh`)
	h = &Home{`D:\tsh`}
	if got := h.DeviceDir("a:b"); got != `D:\tsh\device\a%3Ab` {
		t.Error(got)
	}
	t.Setenv("TSH_HOME", "")
	t.Setenv("LOCALAPPDATA", "")
	if got := h.DeviceDir("c"); got != `D:\tsh\device\c` {
		t.Error(got)
	}
}
