//go:build !windows

package elevation

import "github.com/sallyport/sallyport/internal/fault"

// Activate is of Windows alone: other platforms let whoever may open the TPM activate.
func Activate(Request) ([]byte, error) {
	return nil, ErrElevation.WithCause("this platform knows no elevation")
}

// Serve is of Windows alone.
func Serve(string, uint32, func(Request) ([]byte, error)) error {
	return fault.New(fault.Unsupported, "this is for Windows").WithReason("elevation_failed")
}
