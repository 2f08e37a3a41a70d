// Command tctl is the administrators' program.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tctl/tool"
	"github.com/sallyport/sallyport/internal/tsh"
)

func main() {
	s := console.Standard()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := tctl.Main(ctx, tool.Program{Streams: s, Login: tsh.Login(s)}, os.Args[1:])
	stop()
	os.Exit(code)
}
