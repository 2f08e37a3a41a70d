// Command sallyport is the server: auth, proxy and agents in one binary.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/quickstart"
)

func main() {
	s := console.Standard()
	root := &cobra.Command{Use: "sallyport", Short: "Access to servers on trusted devices", SilenceErrors: true, SilenceUsage: true,
		Example: "  sallyport quickstart\n  sallyport start"}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &console.Usage{Err: err} })
	root.AddCommand(daemon.Commands(s)...)
	root.AddCommand(quickstart.Command(s), &cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Run: func(*cobra.Command, []string) { fmt.Fprintln(s.Out, console.Version()) }})
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := console.Typed(root.ExecuteContext(ctx))
	stop()
	console.PrintError(s.Err, err)
	os.Exit(console.ExitCode(err))
}
