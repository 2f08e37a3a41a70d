// Command tsh is the users' program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tsh"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := tsh.Main(ctx, os.Args[1:], console.Standard())
	stop()
	os.Exit(code)
}
