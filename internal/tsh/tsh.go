// Package tsh is the users' program: one file a command.
package tsh

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/tsh/db"
	"github.com/sallyport/sallyport/internal/tsh/kube"
	"github.com/sallyport/sallyport/internal/tsh/recordings"
	"github.com/sallyport/sallyport/internal/tsh/remote"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// app is one run of the program.
type app struct{ *tool.Tool }

func newApp(s console.Streams) *app {
	a := &app{&tool.Tool{Streams: s, Now: time.Now}}
	a.Relogin = func(ctx context.Context) error { return a.login(ctx, loginFlags{quiet: true}) }
	return a
}

// Main runs a command and returns the exit status.
func Main(ctx context.Context, args []string, s console.Streams) int {
	a := newApp(s)
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	cmd, err := root.ExecuteContextC(ctx)
	err = console.Interrupted(ctx, console.Typed(err))
	console.PrintError(s.Err, err)
	if a.Debug && err != nil {
		a.chain(err)
	}
	code := console.ExitCode(err)
	if code == 1 && ownFailure(cmd) {
		return 255
	}
	return code
}

// ownFailure reports whether a command ends with 255 for a failure of its own, as ssh does.
func ownFailure(cmd *cobra.Command) bool {
	return cmd != nil && cmd.Annotations["ssh"] != ""
}

// chain prints what an error wraps.
func (a *app) chain(err error) {
	for e := errors.Unwrap(err); e != nil; e = errors.Unwrap(e) {
		fmt.Fprintln(a.Err, "debug:", console.Safe(e.Error()))
	}
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use: "tsh", Short: "Reach servers, databases and Kubernetes clusters on a trusted device",
		Example: "  tsh login --proxy=proxy.example.com:3080 --user=alice\n  tsh ssh root@web\n  tsh device enroll --current-device",
	}
	root.PersistentFlags().BoolVarP(&a.Debug, "debug", "d", false, "print the causes of errors")
	root.AddCommand(a.versionCommand(), a.loginCommand(), a.LogoutCommand(), a.statusCommand(), a.deviceCommand(), a.passwdCommand())
	root.AddCommand(remote.Commands(a.Tool, db.Proxy(a.Tool), kube.Proxy(a.Tool))...)
	root.AddCommand(recordings.Commands(a.Tool)...)
	root.AddCommand(db.Command(a.Tool), kube.Command(a.Tool), a.ListenerCommand())
	console.Program(root)
	return root
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Example: "  tsh version", Args: tool.Exactly(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.Out, console.Version())
			return err
		}}
}

// Login reaches the current login's cluster, for tctl where it has no admin socket.
func Login(st console.Streams) func(context.Context) (*client.Cluster, error) {
	return func(ctx context.Context) (*client.Cluster, error) {
		a := newApp(st)
		s, err := a.Load(ctx)
		if fault.Because(err, "no_profile") {
			return nil, fault.Of(err).WithReason("no_login") // tctl says what else it tried
		}
		if err != nil {
			return nil, err
		}
		return s.Call(), nil
	}
}
