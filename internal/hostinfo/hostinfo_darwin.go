package hostinfo

import (
	"syscall"

	"github.com/sallyport/sallyport/internal/device"
)

// readOS asks sysctl(3).
func readOS(d *device.Data) {
	d.OSID = "macos"
	d.OSVersion, _ = syscall.Sysctl("kern.osproductversion")
	d.OSBuild, _ = syscall.Sysctl("kern.osversion")
}

// readSerials knows the model; the platform serial, which IOKit tells, stays unknown.
func readSerials(d *device.Data) {
	d.ModelIdentifier, _ = syscall.Sysctl("hw.model")
}
