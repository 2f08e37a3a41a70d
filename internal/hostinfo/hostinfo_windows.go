package hostinfo

import (
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/device"
)

// readOS asks the kernel for its version, which no manifest falsifies. The build is part of the version: 10.0.22000 and
// later is Windows 11, and only so can a role demand it.
func readOS(d *device.Data) {
	v := windows.RtlGetVersion()
	d.OSID = "windows"
	d.OSBuild = strconv.Itoa(int(v.BuildNumber))
	d.OSVersion = strconv.Itoa(int(v.MajorVersion)) + "." + strconv.Itoa(int(v.MinorVersion)) + "." + d.OSBuild
}

var getSystemFirmwareTable = syscall.NewLazyDLL("kernel32.dll").NewProc("GetSystemFirmwareTable")

// readSerials reads the SMBIOS table, for which nobody needs a right.
func readSerials(d *device.Data) {
	const rsmb = 'R'<<24 | 'S'<<16 | 'M'<<8 | 'B'
	if getSystemFirmwareTable.Find() != nil {
		return
	}
	n, _, _ := getSystemFirmwareTable.Call(rsmb, 0, 0, 0)
	if n == 0 || n > 1<<20 {
		return
	}
	b := make([]byte, n)
	m, _, _ := getSystemFirmwareTable.Call(rsmb, 0, uintptr(unsafe.Pointer(&b[0])), n)
	if m > 0 && m <= n {
		smbios(b[:m], d)
	}
}
