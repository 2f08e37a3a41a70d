package local

import (
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/enclave"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
)

// hardware is the Secure Enclave; an emulator's socket serves where one is named.
func hardware(o Options) (hwkey.Device, error) {
	if o.TPM != "" {
		return tpm.Open(o.Dir, o.TPM), nil
	}
	return openEnclave(o.Dir)
}

func openEnclave(dir string) (hwkey.Device, error) { return enclave.Open(dir), nil }

func loadEnclave(f hwkey.File) (hwkey.Key, error) { return enclave.Load(f) }
