package tool

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"

	"github.com/sallyport/sallyport/internal/console"
)

// runAlone leaves the interrupts of the terminal to the program, which cancels a query by them.
func runAlone(c *exec.Cmd) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)
	defer signal.Stop(signals)
	err := c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return console.Status(exit.ExitCode())
	}
	return err
}
