package timerslack

import (
	"context"
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
// have it, and nothing is changed. ctx ends where a signal asks the program to end, which the program that is run would not
// hear of: then it is not run.
func Relax(ctx context.Context) error {
	if now, err := get(); err != nil || now >= Relaxed {
		return err
	}
	return With(Relaxed, func() error {
		if now, err := get(); err != nil || now < Relaxed { // it would be run anew for ever
			return errors.Join(errors.New("timer slack cannot be set"), err)
		}
		var failed error
		for _, path := range own() {
			if err := ctx.Err(); err != nil {
				return err
			}
			failed = errors.Join(failed, unix.Exec(path, os.Args, os.Environ()))
		}
		return failed
	})
}

// own are the paths at which this program lies: by its name, which the kernel shows as the process's (ps, pgrep, the journal), where
// nobody has put another file there; and by the kernel's own link, whose name would be "exe".
func own() []string {
	const link = "/proc/self/exe"
	path, err := os.Executable()
	named, failed := os.Stat(path)
	if running, err2 := os.Stat(link); err != nil || failed != nil || err2 != nil || !os.SameFile(named, running) {
		return []string{link}
	}
	return []string{path, link}
}
