// Package tctl is the administrators' program: one command a file, each a set of flags and what it does with a cluster.
package tctl

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/machines"
	"github.com/sallyport/sallyport/internal/tctl/people"
	"github.com/sallyport/sallyport/internal/tctl/resource"
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
	if strings.HasPrefix(err.Error(), "unknown command") {
		err = &console.Usage{Err: errors.New(strings.SplitN(err.Error(), "\n", 2)[0])}
	}
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
		Example:       "  tctl status\n  tctl users add alice --roles=access --logins=root,ubuntu",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	c.PersistentFlags().StringVar(&t.DataDir, "data-dir", t.Env("SALLYPORT_DATA_DIR"), "the server's data directory, which holds admin.sock")
	c.PersistentFlags().BoolVarP(&t.Debug, "debug", "d", false, "print what is behind an error")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &console.Usage{Err: err} })
	c.AddCommand(t.version(), t.status(), t.audit(), t.access(), t.auth(), completion())
	c.AddCommand(people.Commands(t.Tool)...)
	c.AddCommand(resource.Commands(t.Tool)...)
	c.AddCommand(machines.Commands(t.Tool)...)
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

func completion() *cobra.Command {
	c := tool.Command("completion bash|zsh|fish", "Print a completion script", "source <(tctl completion bash)", 1, nil)
	c.ValidArgs = []string{"bash", "zsh", "fish"}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		root, out := cmd.Root(), cmd.OutOrStdout()
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(out, true)
		case "zsh":
			return root.GenZshCompletion(out)
		case "fish":
			return root.GenFishCompletion(out, true)
		}
		return console.Usagef("completion: %q is none of bash, zsh, fish", args[0])
	}
	return c
}
