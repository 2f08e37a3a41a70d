// Package tctl is the administrators' program: one command a file, each a set of flags and what it does with a cluster.
package tctl

import (
	"context"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/machines"
	"github.com/sallyport/sallyport/internal/tctl/people"
	"github.com/sallyport/sallyport/internal/tctl/resource"
	"github.com/sallyport/sallyport/internal/tctl/sessions"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// Main runs one command line (without the program's name), prints its error, and returns the exit status.
func Main(ctx context.Context, p tool.Program, args []string) int {
	t := commands{&tool.Tool{Program: p}}
	defer t.Close()
	root := t.root()
	root.SetArgs(args)
	root.SetIn(p.In)
	root.SetOut(p.Out)
	root.SetErr(p.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	err = console.Interrupted(ctx, console.Typed(err))
	console.PrintError(p.Err, err)
	if t.Debug {
		t.PrintChain(err)
	}
	return console.ExitCode(err)
}

// commands are the commands of one run.
type commands struct{ *tool.Tool }

func (t commands) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "tctl",
		Short: "Administer a Sallyport cluster",
		Long: "Administer a Sallyport cluster: on the server's machine through its admin socket,\n" +
			"elsewhere by the current tsh login and its roles.",
		Example: "  tctl status\n  tctl users add alice --roles=access --logins=root,ubuntu",
	}
	c.PersistentFlags().StringVar(&t.DataDir, "data-dir", t.Env("SALLYPORT_DATA_DIR"), "the server's data directory, which holds admin.sock")
	c.PersistentFlags().BoolVarP(&t.Debug, "debug", "d", false, "print what is behind an error")
	c.AddCommand(t.version(), t.status(), t.audit(), t.access(), t.auth())
	c.AddCommand(people.Commands(t.Tool)...)
	c.AddCommand(resource.Commands(t.Tool)...)
	c.AddCommand(machines.Commands(t.Tool)...)
	c.AddCommand(sessions.Commands(t.Tool)...)
	console.Program(c)
	return c
}

func (t commands) version() *cobra.Command {
	return tool.Command("version", "Print the version", "tctl version", 0, func(context.Context, []string) error {
		fmt.Fprintln(t.Out, versionLine(runtime.Version()))
		return nil
	})
}

// versionLine shortens go1.26.8 to go1.26.
func versionLine(toolchain string) string {
	toolchain, _, _ = strings.Cut(toolchain, " ")
	if parts := strings.SplitN(toolchain, ".", 3); len(parts) == 3 {
		toolchain = parts[0] + "." + parts[1]
	}
	return "Sallyport v" + cluster.Version + " " + toolchain
}
