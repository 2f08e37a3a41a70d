package session

import (
	"context"
	"io"
	"os"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/term"
)

// prepareOutput has the console act on what a remote terminal's programs send.
func prepareOutput(out io.Writer) func() {
	file, ok := out.(*os.File)
	if !ok {
		return func() {}
	}
	handle := windows.Handle(file.Fd())
	var mode uint32
	if windows.GetConsoleMode(handle, &mode) != nil {
		return func() {}
	}
	_ = windows.SetConsoleMode(handle, mode|windows.ENABLE_PROCESSED_OUTPUT|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING)
	return func() { _ = windows.SetConsoleMode(handle, mode) }
}

// watchSize looks at the console's size: nothing tells of its change without taking its input.
func watchSize(ctx context.Context, out io.Writer, tell func(w, h int)) {
	file, ok := out.(*os.File)
	if !ok {
		return
	}
	lastW, lastH, _ := term.GetSize(int(file.Fd()))
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if w, h, err := term.GetSize(int(file.Fd())); err == nil && (w != lastW || h != lastH) {
				lastW, lastH = w, h
				tell(w, h)
			}
		}
	}
}
