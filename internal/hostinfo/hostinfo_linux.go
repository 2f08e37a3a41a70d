package hostinfo

import (
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/sallyport/sallyport/internal/device"
)

// readOS reads os-release(5) and the kernel's release.
func readOS(d *device.Data) {
	for _, path := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		if text := readSmall(path); text != "" {
			d.OSID, d.OSVersion = osRelease(text)
			break
		}
	}
	d.OSBuild = readSmall("/proc/sys/kernel/osrelease")
}

// readSerials reads the DMI strings of sysfs; the serials of system and
// baseboard are for root, others find them unknown. TSH_DMI_DIR names another directory.
func readSerials(d *device.Data) {
	dir := os.Getenv("TSH_DMI_DIR")
	if dir == "" {
		dir = "/sys/class/dmi/id"
	}
	d.ReportedAssetTag = readSmall(filepath.Join(dir, "chassis_asset_tag"))
	d.SystemSerialNumber = readSmall(filepath.Join(dir, "product_serial"))
	d.BaseBoardSerial = readSmall(filepath.Join(dir, "board_serial"))
	d.ModelIdentifier = readSmall(filepath.Join(dir, "product_name"))
}

// readSmall is a file's first 4 KiB, trimmed; "" where it cannot be read.
func readSmall(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
