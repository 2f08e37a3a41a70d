//go:build darwin || linux

package framework

import "fmt"

// Serial is the platform's serial number, as `ioreg -c IOPlatformExpertDevice` shows it: the property
// IOPlatformSerialNumber of the one service of that class (IOKit/IOKitKeys.h). Nobody needs a right for it.
func Serial(at Paths) (string, error) {
	core, err := OpenCore(at.CoreFoundation)
	if err != nil {
		return "", err
	}
	l, err := Open(at.IOKit)
	if err != nil {
		return "", err
	}
	var io struct {
		matching func(name *byte) Ref
		service  func(port uint32, matching Ref) uint32
		property func(entry uint32, key Ref, allocator uintptr, options uint32) Ref
		release  func(uint32) int32
	}
	err = l.Bind(map[string]any{"IOServiceMatching": &io.matching, "IOServiceGetMatchingService": &io.service,
		"IORegistryEntryCreateCFProperty": &io.property, "IOObjectRelease": &io.release})
	if err != nil {
		return "", err
	}
	pool := core.Pool()
	defer pool.Release()
	key := pool.Text("IOPlatformSerialNumber")
	if err := pool.Err(); err != nil {
		return "", err
	}
	class := []byte("IOPlatformExpertDevice\x00")
	matching := io.matching(&class[0])
	if matching == 0 {
		return "", core.Fail("IOServiceMatching", 0)
	}
	entry := io.service(0, matching) // takes the reference; port 0 is the default
	if entry == 0 {
		return "", core.Fail("IOServiceGetMatchingService", 0)
	}
	defer io.release(entry)
	serial := core.Text(pool.Own(io.property(entry, key, 0, 0)))
	if serial == "" {
		return "", fmt.Errorf("the platform tells no serial number")
	}
	return serial, nil
}
