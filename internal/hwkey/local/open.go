package local

import (
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/software"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
)

func open(o Options) (hwkey.Device, error) {
	if o.Software {
		return software.Open(o.Dir), nil
	}
	f, err := hwkey.ReadDevice(o.Dir)
	switch {
	case fault.Because(err, hwkey.ErrNotEnrolled.Reason):
		return hardware(o)
	case err != nil:
		return nil, err
	case f.Kind == device.Software:
		return software.Open(o.Dir), nil
	case f.Kind == device.TPM2:
		return tpm.Open(o.Dir, o.TPM), nil
	case f.Kind == device.SecureEnclave:
		return openEnclave(o.Dir)
	}
	return nil, unknown(f.Kind)
}

func unknown(k device.Kind) error {
	return fault.New(fault.Unsupported, "keys of kind %q are not known here", k).WithReason("key_kind")
}

func newKey(path string) (hwkey.Key, error) { return software.NewKey(path) }

func loadKey(path, tpmPath string) (hwkey.Key, error) {
	f, err := hwkey.ReadFile(path)
	if err != nil {
		return nil, err
	}
	switch f.Kind {
	case device.Software:
		return software.Load(f)
	case device.TPM2:
		return tpm.Load(f, tpmPath)
	case device.SecureEnclave:
		return loadEnclave(f)
	}
	return nil, unknown(f.Kind)
}
