//go:build !linux && !windows

package tpm

func eventLog() ([]byte, error) {
	return nil, errNoEventLog.WithCause("this system tells no event log")
}
