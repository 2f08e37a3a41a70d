package platform

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Each platform has in one file
//
//	eventLog() ([]byte, error)  the event log of this start, or a fault that says why there is none and what to do

// ErrNoEventLog is the fault of a log that cannot be had.
var ErrNoEventLog = fault.New(fault.Unavailable, "the event log of this start cannot be read").WithReason("eventlog_unreadable")

// BootLog reads the event log, from the file that TSH_EVENTLOG names where it is set. A log that cannot be had is no
// failure of the proof: why is told in one line.
func BootLog() (log []byte, problem string) {
	read := eventLog
	if path := os.Getenv("TSH_EVENTLOG"); path != "" {
		read = func() ([]byte, error) { return readLog(path) }
	}
	log, err := read()
	if err == nil {
		return log, ""
	}
	f := fault.Of(err)
	problem = f.Text
	if f.Cause != "" {
		problem = f.Cause
	}
	if f.Fix != "" {
		problem += "; to fix: " + f.Fix
	}
	return nil, problem
}

// readLog reads a log of at most device.MaxEventLog bytes from a file.
func readLog(path string) ([]byte, error) {
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoEventLog.Wrapping(err).WithCause("there is no %s", path)
	case errors.Is(err, fs.ErrPermission):
		return nil, ErrNoEventLog.Wrapping(err).WithCause("%s is for root alone", path)
	case err != nil:
		return nil, ErrNoEventLog.Wrapping(err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, device.MaxEventLog+1))
	if err != nil {
		return nil, ErrNoEventLog.Wrapping(fmt.Errorf("read event log: %w", err))
	}
	if len(b) > device.MaxEventLog {
		return nil, ErrNoEventLog.WithCause("%s has more than %d bytes", path, device.MaxEventLog)
	}
	return b, nil
}
