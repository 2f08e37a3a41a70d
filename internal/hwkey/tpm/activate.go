package tpm

import (
	"fmt"

	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/elevation"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
)

// Activate implements hwkey.Attestor. Where the platform lets an administrator alone activate, a program of theirs is
// asked.
func (a *attestor) Activate(blob, encrypted []byte) ([]byte, error) {
	if a.ek.name == "" {
		return nil, fmt.Errorf("activate before evidence")
	}
	q := elevation.Request{EK: a.ek.name, Key: a.ak, Blob: blob, Encrypted: encrypted}
	secret, err := Activate(a.device.path, q)
	switch {
	case err == nil || !platform.ForAdministrators(err):
	case a.device.unattended:
		return nil, elevation.ErrUnasked.Wrapping(err)
	default:
		return elevation.Activate(q)
	}
	return secret, err
}

// Activate opens a credential with the TPM at path. It reads no file.
func Activate(path string, q elevation.Request) (secret []byte, err error) {
	for _, s := range ekSpecs() {
		if s.name != q.EK {
			continue
		}
		err = use(path, func(c *chip) error {
			ak, err := c.load(q.Key)
			if err == nil {
				secret, err = c.activate(s, ak[0], q.Blob, q.Encrypted)
			}
			return err
		})
		return secret, err
	}
	return nil, hwkey.ErrBadKey.WithCause("endorsement key %q is not known", q.EK)
}
