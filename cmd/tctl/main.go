// Command tctl administers a Sallyport cluster.
package main

import (
	"context"
	"os"
	"os/signal"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	return tctl.Main(ctx, tool.Program{Streams: console.Standard()}, os.Args[1:])
}
