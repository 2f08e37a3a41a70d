//go:build !unix

package spool

import "github.com/sallyport/sallyport/internal/fault"

func lock(string) (func(), error) {
	return nil, fault.New(fault.Unsupported, "agents do not run on this system").WithReason("audit_no_lock")
}
