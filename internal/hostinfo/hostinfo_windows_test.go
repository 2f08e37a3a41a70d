package hostinfo

import (
	"strings"
	"testing"
	"time"
)

// TestWindowsCollect asks the real calls.
func TestWindowsCollect(t *testing.T) {
	d, _ := Collect("1", time.Unix(1, 0))
	if d.OSID != "windows" || strings.Count(d.OSVersion, ".") != 2 || d.OSBuild == "" || d.OSUsername == "" {
		t.Errorf("%+v", d)
	}
	if getSystemFirmwareTable.Find() != nil {
		t.Error("there is no firmware table API")
	}
}
