package tpm

import "time"

// SetPatience is for tests that are not parallel; it gives what there was.
func SetPatience(d time.Duration) time.Duration {
	old := patience
	patience = d
	return old
}
