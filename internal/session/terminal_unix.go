//go:build unix

package session

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// prepareOutput has nothing to do: a terminal here understands what is sent.
func prepareOutput(io.Writer) func() { return func() {} }

// watchSize tells of the terminal's size whenever it changes.
func watchSize(ctx context.Context, out io.Writer, tell func(w, h int)) {
	file, ok := out.(*os.File)
	if !ok {
		return
	}
	changes := make(chan os.Signal, 1)
	signal.Notify(changes, syscall.SIGWINCH)
	defer signal.Stop(changes)
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			if w, h, err := term.GetSize(int(file.Fd())); err == nil {
				tell(w, h)
			}
		}
	}
}
