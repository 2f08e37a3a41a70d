// Command tctl administers a Sallyport cluster.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return tctl.Main(ctx, tctl.Program{Streams: console.Standard()}, os.Args[1:])
}
