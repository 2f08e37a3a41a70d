package platform

import (
	"errors"
	"io/fs"

	"github.com/sallyport/sallyport/internal/fault"
)

// eventLogPath is where the kernel shows what the firmware handed over (drivers/char/tpm/eventlog), to root alone.
const eventLogPath = "/sys/kernel/security/tpm0/binary_bios_measurements"

func eventLog() ([]byte, error) {
	b, err := readLog(eventLogPath)
	if err != nil && errors.Is(fault.Of(err).Err, fs.ErrPermission) {
		return nil, fault.Of(err).WithFix("echo 'z %s 0440 root tss' | sudo tee /etc/tmpfiles.d/tsh.conf && sudo systemd-tmpfiles --create tsh.conf", eventLogPath)
	}
	return b, err
}
