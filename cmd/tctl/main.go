// Command tctl administers a Sallyport cluster.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tsh"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	s := console.Standard()
	return tctl.Main(ctx, tctl.Program{Streams: s, Login: tsh.Login(s)}, os.Args[1:])
}
