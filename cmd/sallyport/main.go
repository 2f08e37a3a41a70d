// Command sallyport is the server: auth, proxy and agents in one binary.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/daemon/command"
	"github.com/sallyport/sallyport/internal/quickstart"
)

func main() {
	s := console.Standard()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := command.Main(ctx, s, os.Args[1:], quickstart.Command(s))
	stop()
	os.Exit(code)
}
