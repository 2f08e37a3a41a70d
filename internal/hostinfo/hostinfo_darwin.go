package hostinfo

import (
	"syscall"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/framework"
)

// readOS asks sysctl(3).
func readOS(d *device.Data) {
	d.OSID = "macos"
	d.OSVersion, _ = syscall.Sysctl("kern.osproductversion")
	d.OSBuild, _ = syscall.Sysctl("kern.osversion")
}

// readSerials asks sysctl(3) for the model and IOKit for the platform's serial; what they do not tell stays unknown.
func readSerials(d *device.Data) {
	d.ModelIdentifier, _ = syscall.Sysctl("hw.model")
	d.SerialNumber, _ = framework.Serial(framework.System())
}
