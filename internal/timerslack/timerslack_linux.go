package timerslack

import (
	"errors"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

func get() (time.Duration, error) {
	n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	return time.Duration(n), err
}

func set(slack time.Duration) error {
	return unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0)
}

// With calls f on a thread with this slack, which a process that f starts inherits (prctl(2), PR_SET_TIMERSLACK). Where the
// kernel has none, f is called all the same.
func With(slack time.Duration, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if was, err := get(); err == nil && was != slack && set(slack) == nil {
		defer func() { _ = set(was) }() // as it could be set just now
	}
	return f()
}

// Relax runs this program anew in its own place, as the threads that Go begins with have their slack from the process's
// beginning. It is a program's first act, and returns where the process has that slack already; or an error where it cannot
// have it, and nothing is changed.
func Relax() error {
	if now, err := get(); err != nil || now >= Relaxed {
		return err
	}
	return With(Relaxed, func() error {
		if now, err := get(); err != nil || now < Relaxed { // it would be run anew for ever
			return errors.Join(errors.New("timer slack cannot be set"), err)
		}
		return unix.Exec("/proc/self/exe", os.Args, os.Environ())
	})
}
