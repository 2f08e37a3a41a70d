//go:build !unix

package sqlite

import "github.com/sallyport/sallyport/internal/fault"

func lock(string) (func(), error) {
	return nil, fault.New(fault.Unsupported, "the embedded store does not run on this system").
		WithReason("state_no_lock")
}
