package local

import (
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
)

// hardware is the Secure Enclave, which this build cannot use yet; an emulator's socket serves where one is named.
func hardware(o Options) (hwkey.Device, error) {
	if o.TPM != "" {
		return tpm.Open(o.Dir, o.TPM), nil
	}
	return nil, hwkey.ErrNoEnclave
}
