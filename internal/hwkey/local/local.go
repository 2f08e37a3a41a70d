// Package local opens this platform's device and its keys.
package local

import (
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/elevation"
	"github.com/sallyport/sallyport/internal/hwkey/tpm"
)

// Options say where keys live. The zero TPM means the platform's own.
type Options struct {
	Dir      string // the device's directory for one cluster: TSH_HOME/device/CLUSTER
	TPM      string // TSH_TPM: a TPM device file or an emulator's socket
	Software bool   // a new enrollment uses key files instead of hardware
	// Unattended puts no question to the person: an enrollment that would need an administrator's consent fails.
	Unattended bool
}

// Open gives this machine's device: of the kind that it was enrolled with or, before an enrollment, the platform's
// hardware, or key files where Options say so. No hardware is touched before a method needs it.
func Open(o Options) (hwkey.Device, error) { return open(o) }

// NewKey makes a session key in a file at path (0600), for a login without a device.
func NewKey(path string) (hwkey.Key, error) { return newKey(path) }

// LoadKey gives the session key at path, whatever its kind; tpm is as in Options. No hardware is touched before the
// first signature.
func LoadKey(path, tpm string) (hwkey.Key, error) { return loadKey(path, tpm) }

// ServeActivation is what the copy of this program does that an enrollment started with administrator's rights: it
// activates one credential with the platform's TPM, for the process parent over the pipe of a name, and nothing else.
func ServeActivation(name string, parent uint32) error {
	return elevation.Serve(name, parent, func(q elevation.Request) ([]byte, error) { return tpm.Activate("", q) })
}

// ActivationCommand is the hidden command of `tsh device` by which the copy is started, with name and parent.
const ActivationCommand = elevation.Command
