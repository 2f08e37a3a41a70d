// Package tctl is the administrators' program: one command a file, each a set of flags and what it does with a cluster.
package tctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
)

// ErrNoLogin is what a Login returns where nobody is logged in.
var ErrNoLogin = fault.New(fault.Unauthenticated, "not logged in").WithReason("no_login")

// Login reaches the cluster of the current tsh login, as that user.
type Login func(ctx context.Context) (*client.Cluster, error)

// Program is what tctl runs with. Login may be nil: then there is none.
type Program struct {
	console.Streams
	Login Login
}

// Main runs one command line (without the program's name), prints its error, and returns the exit status.
func Main(ctx context.Context, p Program, args []string) int {
	t := &tool{Program: p}
	defer t.close()
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
	if t.debug {
		t.printChain(err)
	}
	return console.ExitCode(err)
}

// tool is one run.
type tool struct {
	Program
	dataDir string
	debug   bool
	reached *client.Cluster
}

func (t *tool) close() {
	if t.reached != nil {
		t.reached.Close()
	}
}

// printChain prints what an error wraps, one line each.
func (t *tool) printChain(err error) {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		fmt.Fprintf(t.Err, "DEBUG: %T: %s\n", inner, console.Safe(inner.Error()))
	}
}

func (t *tool) root() *cobra.Command {
	c := &cobra.Command{
		Use:   "tctl",
		Short: "Administer a Sallyport cluster",
		Long: "Administer a Sallyport cluster: on the server's machine through its admin socket,\n" +
			"elsewhere by the current tsh login and its roles.",
		Example:       "  tctl status\n  tctl users add alice --roles=access --logins=root,ubuntu",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	c.PersistentFlags().StringVar(&t.dataDir, "data-dir", t.Env("SALLYPORT_DATA_DIR"), "the server's data directory, which holds admin.sock")
	c.PersistentFlags().BoolVarP(&t.debug, "debug", "d", false, "print what is behind an error")
	c.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &console.Usage{Err: err} })
	c.AddCommand(t.version(), t.status(), t.users(), t.bots(), t.tokens(), t.get(), t.create(), t.edit(), t.rm(),
		t.devices(), t.lock(), t.audit(), t.access(), t.auth(), completion())
	return c
}

// group is a command that is nothing but its subcommands.
func group(use, short, example string, sub ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Example: "  " + example}
	c.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return console.Usagef("unknown command %q for %q", args[0], cmd.CommandPath())
		}
		return cmd.Help()
	}
	c.AddCommand(sub...)
	return c
}

// action is what a command does with its arguments.
type action func(ctx context.Context, args []string) error

// command makes a command that takes between low and high arguments; a high below zero means any number.
func command(use, short, example string, low, high int, do action) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: "  " + example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) < low || (high >= 0 && len(args) > high) {
				return console.Usagef("usage: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return do(cmd.Context(), args) },
	}
}

// formatFlag adds --format to a listing.
func formatFlag(c *cobra.Command, f *console.Format) {
	c.Flags().StringVar((*string)(f), "format", "text", "text, json or yaml")
	inner := c.RunE
	c.RunE = func(cmd *cobra.Command, args []string) error {
		switch *f {
		case "text", "json", "yaml":
			return inner(cmd, args)
		}
		return console.Usagef("--format: %q is none of text, json, yaml", string(*f))
	}
}

func (t *tool) version() *cobra.Command {
	return command("version", "Print the version", "tctl version", 0, 0, func(context.Context, []string) error {
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
	c := command("completion bash|zsh|fish", "Print a completion script", "source <(tctl completion bash)", 1, 1, nil)
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

// defaultDataDir is where a server of this machine keeps its data unless told.
func (t *tool) defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/sallyport"
	}
	home := t.Env("HOME")
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".local", "share", "sallyport")
}
