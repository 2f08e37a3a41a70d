// Package command is the daemon's command lines.
package command

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/shell"
	"github.com/sallyport/sallyport/internal/timerslack"
)

// startFlags are what `sallyport start` takes.
type startFlags struct {
	config      string
	dataDir     string
	roles       []string
	token       string
	proxy       string
	auth        string
	pins        []string
	name        string
	applyConfig bool
}

// Commands are the daemon's commands.
func Commands(s console.Streams, debug *bool) []*cobra.Command {
	var f startFlags
	start := &cobra.Command{Use: "start", Short: "Run the server", Args: cobra.NoArgs,
		Example: "  sallyport start\n  sallyport start -c /etc/sallyport.yaml\n  sallyport start --roles=node --token=@/etc/sallyport/token --proxy=proxy.example.com:3080 --ca-pin=sha256:…",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_ = timerslack.Relax(cmd.Context()) // without it the same is done, for more of the processor's time
			return runStart(cmd.Context(), s, f, *debug)
		}}
	fl := start.Flags()
	fl.StringVarP(&f.config, "config", "c", "", "config file; without one: auth, proxy and SSH node on this machine")
	fl.StringVar(&f.dataDir, "data-dir", "", "data directory")
	fl.StringSliceVar(&f.roles, "roles", nil, "what to run of proxy, node, db and kube, joined to a cluster elsewhere")
	fl.StringVar(&f.token, "token", "", "join token: TOKEN or @FILE")
	fl.StringVar(&f.proxy, "proxy", "", "HOST:PORT of the proxy that an agent dials")
	fl.StringVar(&f.auth, "auth", "", "HOST:PORT of auth's own listener, that a proxy dials")
	fl.StringSliceVar(&f.pins, "ca-pin", nil, "CA pin of the cluster, as tctl status shows it")
	fl.StringVar(&f.name, "node-name", "", "name of this node; the host's unless told")
	fl.BoolVar(&f.applyConfig, "apply-config", false, "write the file's authentication section over the cluster's settings")
	configure := &cobra.Command{Use: "configure", Short: "Print a commented config file", Example: "  sallyport configure > /etc/sallyport.yaml", Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			host, err := os.Hostname()
			if err != nil {
				return err
			}
			name := strings.ToLower(host)
			_, err = fmt.Fprintf(s.Out, config.Sample, name, name, DataDir(s.Env))
			return err
		}}
	sftp := &cobra.Command{Use: "sftp-server", Hidden: true, Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return shell.ServeSFTP(os.Stdin, os.Stdout) }}
	return []*cobra.Command{start, configure, sftp}
}

// DataDir is where data lies unless told: SALLYPORT_DATA_DIR, /var/lib/sallyport for root, ~/.local/share/sallyport.
func DataDir(env func(string) string) string {
	if dir := env("SALLYPORT_DATA_DIR"); dir != "" {
		return dir
	}
	if os.Geteuid() == 0 {
		return "/var/lib/sallyport"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "sallyport-data"
	}
	return filepath.Join(home, ".local", "share", "sallyport")
}

// settle makes the config of file and flags.
func (f startFlags) settle(env func(string) string) (config.Config, error) {
	host, err := os.Hostname()
	if err != nil {
		return config.Config{}, err
	}
	c := config.Default(host)
	if f.config != "" {
		raw, err := os.ReadFile(f.config)
		if err != nil {
			return c, fault.New(fault.Invalid, "%v", err).WithFix("sallyport configure > %s", f.config)
		}
		if c, err = config.Parse(bytes.NewReader(raw), host); err != nil {
			return c, prefixed(f.config, err)
		}
	}
	if len(f.roles) > 0 {
		if err := f.join(&c); err != nil {
			return c, err
		}
	}
	if f.name != "" {
		c.NodeName = f.name
	}
	switch {
	case f.dataDir != "":
		c.DataDir = f.dataDir
	case c.DataDir == "":
		c.DataDir = DataDir(env)
	}
	abs, err := filepath.Abs(c.DataDir)
	c.DataDir = abs
	return c, err
}

func prefixed(file string, err error) error {
	g := *fault.Of(err)
	g.Text = file + ": " + g.Text
	return &g
}

// join turns --roles into a config of parts that join a cluster elsewhere.
func (f startFlags) join(c *config.Config) error {
	c.Auth, c.Proxy, c.SSH, c.DB, c.Kube = nil, nil, nil, nil, nil
	c.Join = &config.Join{Proxy: f.proxy, Auth: f.auth, Token: f.token, CAPins: f.pins}
	for _, r := range f.roles {
		switch r {
		case "proxy":
			c.Proxy = &config.Proxy{Listen: config.DefaultProxyListen}
		case "node":
			c.SSH = &config.SSH{}
		case "db":
			c.DB = &config.DB{}
		case "kube":
			c.Kube = &config.Kube{}
		case "app":
			return fault.New(fault.Unsupported, "--roles: %s is not enforced by this build", r).WithReason("config")
		default:
			return console.Usagef("--roles: unknown role %q, want proxy, node, db or kube", r)
		}
	}
	if c.Proxy != nil && len(f.roles) > 1 {
		return console.Usagef("--roles: a proxy joins at auth.listen and agents at a proxy: start one process each")
	}
	if err := c.CheckJoin(); err != nil {
		return &console.Usage{Err: err}
	}
	return nil
}

func runStart(ctx context.Context, s console.Streams, f startFlags, debug bool) error {
	c, err := f.settle(s.Env)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(s.Err, &slog.HandlerOptions{Level: level}))
	return daemon.Run(ctx, daemon.Options{Config: c, ApplyConfig: f.applyConfig, Executable: self, Out: s.Out, Log: log,
		Ready: func(st daemon.State) { announce(s, c, st) }})
}

// announce prints where the server listens, the CA pin, and the next command.
func announce(s console.Streams, c config.Config, st daemon.State) {
	fmt.Fprintf(s.Out, "Sallyport is up: cluster %s\n", st.Cluster)
	if c.Proxy != nil {
		fmt.Fprintf(s.Out, "  public port  %s (people type %s)\n", st.Listen, st.Proxy)
	}
	if c.Auth != nil {
		fmt.Fprintf(s.Out, "  auth         %s, admin socket %s\n", st.Auth, st.Socket)
	}
	if st.Node != "" {
		fmt.Fprintf(s.Out, "  SSH node     %s\n", st.Node)
	}
	for _, what := range slices.Sorted(maps.Keys(st.Serves)) {
		fmt.Fprintf(s.Out, "  %-12s %s\n", what, strings.Join(st.Serves[what], ", "))
	}
	fmt.Fprintf(s.Out, "  CA pin       %s\n", st.CAPin)
	if c.Auth == nil {
		return
	}
	at := ""
	if c.DataDir != DataDir(s.Env) {
		at = " --data-dir=" + c.DataDir
	}
	next := fmt.Sprintf("tctl users add alice --roles=access,editor --logins=root%s", at)
	if st.Users > 0 {
		next = "tctl status" + at
	}
	fmt.Fprintf(s.Out, "Next: %s\n", next)
}

// Main runs `sallyport` with the daemon's commands and more, and returns the exit status.
func Main(ctx context.Context, s console.Streams, args []string, more ...*cobra.Command) int {
	root := &cobra.Command{Use: "sallyport", Short: "Access to servers on trusted devices",
		Example: "  sallyport quickstart\n  sallyport start"}
	var debug bool
	root.PersistentFlags().BoolVarP(&debug, "debug", "d", false, "log more")
	root.AddCommand(Commands(s, &debug)...)
	root.AddCommand(more...)
	root.AddCommand(&cobra.Command{Use: "version", Short: "Print the version", Args: cobra.NoArgs, Example: "  sallyport version",
		Run: func(*cobra.Command, []string) { fmt.Fprintln(s.Out, console.Version()) }})
	console.Program(root)
	root.SetArgs(args)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	err := console.Typed(root.ExecuteContext(ctx))
	console.PrintError(s.Err, err)
	return console.ExitCode(err)
}
