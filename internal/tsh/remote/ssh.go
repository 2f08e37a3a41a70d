// Package remote is tsh's commands that reach nodes, and that lend the way there to OpenSSH.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/tsh/tool"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// Commands are the package's commands of one run; proxies are what else `tsh proxy` has.
func Commands(run *tool.Tool, proxies ...*cobra.Command) []*cobra.Command {
	a := commands{run}
	return []*cobra.Command{a.lsCommand(), a.sshCommand(), a.scpCommand(), a.proxyCommand(proxies), a.configCommand(), a.agentCommand()}
}

type commands struct{ *tool.Tool }

type sshFlags struct {
	login   string
	port    int
	agent   bool
	local   []string
	remote  []string
	dynamic []string
	none    bool
	tty     bool
	options []string
}

func (a commands) sshCommand() *cobra.Command {
	var f sshFlags
	c := &cobra.Command{Use: "ssh [flags] [user@]host [command…]", Short: "Open a shell or run a command on a node", Annotations: tool.AsSSH,
		Example: "  tsh ssh root@web\n  tsh ssh root@web uptime\n  tsh ssh -N -L 8080:localhost:80 root@web",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return console.Usagef("usage: %s", cmd.UseLine())
			}
			return a.ssh(cmd.Context(), f, args[0], strings.Join(args[1:], " "))
		}}
	fl := c.Flags()
	fl.SetInterspersed(false)
	fl.StringVarP(&f.login, "login", "l", "", "login on the node")
	fl.IntVarP(&f.port, "port", "p", 0, "accepted and ignored: nodes are reached by their tunnel")
	fl.BoolVarP(&f.agent, "forward-agent", "A", false, "forward the agent in SSH_AUTH_SOCK")
	fl.StringArrayVarP(&f.local, "forward", "L", nil, "[bind:]port:host:hostport, forwarded from here")
	fl.StringArrayVarP(&f.remote, "remote-forward", "R", nil, "[bind:]port:host:hostport, forwarded from the node")
	fl.StringArrayVarP(&f.dynamic, "dynamic-forward", "D", nil, "[bind:]port of a SOCKS5 proxy here")
	fl.BoolVarP(&f.none, "no-remote-exec", "N", false, "run no command: forward ports alone")
	fl.BoolVarP(&f.tty, "tty", "t", false, "ask for a terminal")
	fl.StringArrayVarP(&f.options, "option", "o", nil, "OpenSSH option: ForwardAgent=yes|no, RequestTTY=yes|no")
	return c
}

func (f *sshFlags) apply() error {
	for _, o := range f.options {
		name, value, ok := strings.Cut(o, "=")
		yes := strings.EqualFold(value, "yes")
		switch {
		case ok && strings.EqualFold(name, "ForwardAgent"):
			f.agent = yes
		case ok && strings.EqualFold(name, "RequestTTY"):
			f.tty = yes
		default:
			return console.Usagef("-o %s: this program knows ForwardAgent and RequestTTY", o)
		}
	}
	return nil
}

// where reads [user@]host.
func where(s, login, user string) (string, string, error) {
	host := s
	if i := strings.LastIndexByte(s, '@'); i >= 0 {
		if login == "" {
			login = s[:i]
		}
		host = s[i+1:]
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	if login == "" {
		login = user
	}
	if host == "" || login == "" {
		return "", "", console.Usagef("want [user@]host, got %q", s)
	}
	return login, host, nil
}

// dial opens an SSH session with a node: one stream through the proxy, one signature.
func (a commands) dial(ctx context.Context, s *tool.State, login, host string) (*session.Client, error) {
	conn, err := s.Address.Stream(ctx, tunnel.Dial{Target: host, Door: tunnel.DoorSSH, Ticket: s.Login.DialTicket})
	if fault.Because(err, "locked") { // the proxy's word, worded as the node's would be
		return nil, &session.Refused{Lines: fault.Of(err).Lines()}
	}
	if err != nil {
		return nil, err
	}
	signer, err := s.Signer()
	if err != nil {
		conn.Close()
		return nil, err
	}
	return session.Dial(ctx, conn, session.Config{Login: login, Signer: signer, HostAuthorities: s.Login.HostAuthorities, Target: host, Now: a.Now})
}

func (a commands) ssh(ctx context.Context, f sshFlags, target, command string) error {
	if err := f.apply(); err != nil {
		return err
	}
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	login, host, err := where(target, f.login, tool.OSUser(a.Env))
	if err != nil {
		return err
	}
	c, err := a.dial(ctx, s, login, host)
	if err != nil {
		return a.refused(err)
	}
	defer c.Close()
	if err := a.forward(ctx, c, f); err != nil {
		return a.refused(err)
	}
	if f.none {
		defer context.AfterFunc(ctx, func() { c.Close() })()
		return a.refused(c.Wait())
	}
	job := session.Job{Command: command, Agent: f.agent, In: a.In, Out: a.Out, Err: a.Err, Env: locale(a.Env)}
	if f.tty {
		job.Terminal = session.TerminalForce
	}
	return a.refused(c.Run(ctx, job))
}

func locale(env func(string) string) []string {
	var out []string
	for _, name := range []string{"LANG", "LC_ALL", "LC_CTYPE", "LC_MESSAGES"} {
		if v := env(name); v != "" {
			out = append(out, name+"="+v)
		}
	}
	return out
}

func (a commands) forward(ctx context.Context, c *session.Client, f sshFlags) error {
	report := func(err error) { fmt.Fprintln(a.Err, console.Safe(fault.Of(err).Error())) }
	if f.agent {
		if err := c.ForwardAgent(a.Env("SSH_AUTH_SOCK")); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		specs   []string
		dynamic bool
		remote  bool
	}{{f.local, false, false}, {f.dynamic, true, false}, {f.remote, false, true}} {
		for _, spec := range l.specs {
			fw, err := session.ParseForward(spec, l.dynamic)
			if err != nil {
				return &console.Usage{Err: err}
			}
			if l.remote {
				_, err = c.ForwardRemote(fw, report)
			} else {
				_, err = c.ForwardLocal(ctx, fw, report)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// refused ends as ssh does: with the remote command's status, or with 255 after saying what the node answered.
func (a commands) refused(err error) error {
	var exit *session.ExitStatus
	if errors.As(err, &exit) {
		return console.Status(exit.Status)
	}
	return err
}

type scpFlags struct {
	recursive bool
	preserve  bool
	quiet     bool
	port      int
}

func (a commands) scpCommand() *cobra.Command {
	var f scpFlags
	c := &cobra.Command{Use: "scp [-r] [-p] source… destination", Short: "Copy files to or from a node", Annotations: tool.AsSSH,
		Example: "  tsh scp notes.txt root@web:/tmp/\n  tsh scp -r root@web:/var/log/app ./logs",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) < 2 {
				return console.Usagef("usage: %s", cmd.UseLine())
			}
			return a.scp(cmd.Context(), f, args)
		}}
	c.Flags().BoolVarP(&f.recursive, "recursive", "r", false, "copy directories")
	c.Flags().BoolVarP(&f.preserve, "preserve", "p", false, "keep times and modes")
	c.Flags().BoolVarP(&f.quiet, "quiet", "q", false, "accepted: nothing is shown anyway")
	c.Flags().IntVarP(&f.port, "port", "P", 0, "accepted and ignored: nodes are reached by their tunnel")
	return c
}

// scp copies one way, from or to one node.
func (a commands) scp(ctx context.Context, f scpFlags, args []string) error {
	dst := session.ParseLocation(args[len(args)-1])
	job := session.Copy{Recursive: f.recursive, Preserve: f.preserve, Upload: dst.Host != "", Destination: dst.Path}
	remote := dst
	for _, arg := range args[:len(args)-1] {
		src := session.ParseLocation(arg)
		if (src.Host != "") == job.Upload {
			return console.Usagef("copy from here to a node, or from a node to here")
		}
		if !job.Upload && remote.Host == "" {
			remote = src
		}
		if src.Host != "" && (src.Host != remote.Host || src.Login != remote.Login) {
			return console.Usagef("all sources must be on one node")
		}
		job.Sources = append(job.Sources, src.Path)
	}
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	if remote.Login == "" {
		remote.Login = tool.OSUser(a.Env)
	}
	c, err := a.dial(ctx, s, remote.Login, remote.Host)
	if err != nil {
		return a.refused(err)
	}
	defer c.Close()
	said := false
	err = c.Copy(ctx, job, func(err error) {
		said = true
		console.PrintError(a.Err, unnamed(err))
	})
	if said && ctx.Err() == nil {
		return console.Status(255)
	}
	return a.refused(err)
}

// unnamed takes the operation and the second telling of the name out of what the system said of a file.
func unnamed(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return errors.New(strings.TrimSuffix(err.Error(), path.Error()) + path.Err.Error())
	}
	return err
}

func (a commands) proxyCommand(others []*cobra.Command) *cobra.Command {
	return console.Group("proxy", "Lend connections to other programs", "ssh -o ProxyCommand='tsh proxy ssh %r@%h' root@web", append(others, &cobra.Command{Use: "ssh [user@]host[:port]", Short: "Be an OpenSSH ProxyCommand", Annotations: tool.AsSSH, Args: tool.Exactly(1),
		Example: "  ssh -o ProxyCommand='tsh proxy ssh %r@%h' root@web",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Read()
			if err != nil {
				return err
			}
			target := args[0]
			if h, _, err := net.SplitHostPort(target[strings.LastIndexByte(target, '@')+1:]); err == nil {
				target = h
			}
			_, host, err := where(target, "any", "")
			if err != nil {
				return err
			}
			conn, err := s.Address.Stream(cmd.Context(), tunnel.Dial{Target: strings.TrimSuffix(host, "."+s.Profile.Cluster), Door: tunnel.DoorSSH, Ticket: s.Login.DialTicket})
			if err != nil {
				return err
			}
			return a.pipe(cmd.Context(), conn)
		}})...)
}

// pipe copies between the program's own streams and a connection, until the far end is done.
func (a commands) pipe(ctx context.Context, conn net.Conn) error {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(conn, a.In)
		if h, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	}()
	_, err := io.Copy(a.Out, conn)
	if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}
