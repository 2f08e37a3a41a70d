//go:build !darwin

package local

import (
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
)

// hardware is the TPM.
func hardware(o Options) (hwkey.Device, error) {
	d := tpm.Open(o.Dir, o.TPM)
	if o.Unattended {
		d = d.Unattended()
	}
	return d, nil
}

func openEnclave(string) (hwkey.Device, error) { return nil, hwkey.ErrNoEnclave }

func loadEnclave(hwkey.File) (hwkey.Key, error) { return nil, hwkey.ErrNoEnclave }
