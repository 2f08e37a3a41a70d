// Package tsh is the users' program: one file a command.
package tsh

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/local"
	"github.com/sallyport/sallyport/internal/profile"
)

// app is one run of the program.
type app struct {
	console.Streams
	debug bool
	now   func() time.Time
}

// Main runs a command and returns the exit status.
func Main(ctx context.Context, args []string, s console.Streams) int {
	a := &app{Streams: s, now: time.Now}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(s.In)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	cmd, err := root.ExecuteContextC(ctx)
	err = console.Interrupted(ctx, console.Typed(err))
	console.PrintError(s.Err, err)
	if a.debug && err != nil {
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
		Use: "tsh", Short: "Reach servers on a trusted device",
		Example: "  tsh login --proxy=proxy.example.com:3080 --user=alice\n  tsh ssh root@web\n  tsh device enroll --current-device",
	}
	root.PersistentFlags().BoolVarP(&a.debug, "debug", "d", false, "print the causes of errors")
	root.AddCommand(a.versionCommand(), a.loginCommand(), a.logoutCommand(), a.statusCommand(), a.lsCommand(), a.sshCommand(), a.scpCommand(),
		a.proxyCommand(), a.configCommand(), a.agentCommand(), a.deviceCommand(), a.passwdCommand())
	console.Program(root)
	return root
}

// exactly refuses another number of arguments as bad usage.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return console.Usagef("usage: %s", cmd.UseLine())
		}
		return nil
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{Use: "version", Short: "Print the version", Example: "  tsh version", Args: exactly(0),
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(a.Out, console.Version())
			return err
		}}
}

// state is a login of this person with all that commands need of it.
type state struct {
	home    *profile.Home
	profile *profile.Profile
	login   *profile.Login
	key     hwkey.Key
	address client.Address
}

// load reads the current login. On a terminal, one that is over is asked for again.
func (a *app) load(ctx context.Context) (*state, error) {
	s, err := a.read()
	if err == nil || !a.Interactive() || (!fault.Because(err, "expired") && !fault.Because(err, "logged_out")) {
		return s, err
	}
	fmt.Fprintln(a.Err, fault.Of(err).Text+"; logging in again")
	if err := a.login(ctx, loginFlags{quiet: true}); err != nil {
		return nil, err
	}
	return a.read()
}

// read reads the current login as it is; beside the fault of one that is over comes what there is.
func (a *app) read() (*state, error) {
	home, err := profile.Open(a.Env)
	if err != nil {
		return nil, err
	}
	s := &state{home: home}
	if s.profile, err = home.Current(); err != nil {
		return s, err
	}
	authority, err := s.profile.Certificate()
	if err != nil {
		return s, err
	}
	s.address = client.Address{Addr: s.profile.Proxy, Cluster: s.profile.Cluster, Authority: authority}
	if s.login, err = home.Login(s.profile, a.now()); err != nil {
		return s, err
	}
	s.key, err = local.LoadKey(home.KeyFile(s.profile), a.Env("TSH_TPM"))
	return s, err
}

// call reaches auth with the login's certificate.
func (s *state) call() *client.Cluster {
	return s.address.Call(&tls.Certificate{Certificate: [][]byte{s.login.TLS.Raw}, PrivateKey: s.key, Leaf: s.login.TLS})
}

// device is this machine towards the profile's cluster.
func (a *app) device(s *state, software bool) (hwkey.Device, error) {
	return local.Open(local.Options{Dir: s.home.DeviceDir(s.profile.Cluster), TPM: a.Env("TSH_TPM"), Software: software})
}

// osUser is the name of who runs this program.
func osUser(env func(string) string) string {
	for _, name := range []string{"USER", "LOGNAME", "USERNAME"} {
		if v := env(name); v != "" {
			return v
		}
	}
	if os.Geteuid() == 0 {
		return "root"
	}
	return ""
}

// Login reaches the current login's cluster, for tctl where it has no admin socket.
func Login(st console.Streams) func(context.Context) (*client.Cluster, error) {
	return func(ctx context.Context) (*client.Cluster, error) {
		a := &app{Streams: st, now: time.Now}
		s, err := a.load(ctx)
		if fault.Because(err, "no_profile") {
			return nil, fault.Of(err).WithReason("no_login") // tctl says what else it tried
		}
		if err != nil {
			return nil, err
		}
		return s.call(), nil
	}
}
