//go:build !linux && !windows

package platform

func eventLog() ([]byte, error) {
	return nil, ErrNoEventLog.WithCause("this system tells no event log")
}
