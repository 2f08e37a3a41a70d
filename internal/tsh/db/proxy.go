package db

import (
	"context"
	"encoding/pem"
	"fmt"
	"net"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/profile"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/timerslack"
	"github.com/sallyport/sallyport/internal/tsh/tool"
	"github.com/sallyport/sallyport/internal/tunnel"
)

type proxyFlags struct {
	chosen
	tunnel bool
}

// Proxy is `tsh proxy db`.
func Proxy(t *tool.Tool) *cobra.Command {
	a := commands{t}
	var f proxyFlags
	c := &cobra.Command{Use: "db NAME", Short: "Hold a port of this machine open for a database, until interrupted", Args: tool.Exactly(1),
		Long: "With --tunnel the port takes clients that show the certificate that tsh made for it, and the login's key is used behind it: the way for keys in hardware.\n" +
			"Without it, the client's own TLS goes on to the database's agent, with the login's certificate and key as files.",
		Example: "  tsh proxy db orders --tunnel --port=5433 --db-user=alice --db-name=shop\n  tsh proxy db orders --port=5433",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.portGiven = true
			if f.tunnel {
				return a.tunnelled(cmd.Context(), args[0], f.chosen)
			}
			_ = timerslack.Relax(cmd.Context()) // it carries all the same without
			return a.passed(cmd.Context(), args[0], f.chosen)
		}}
	f.flags(c)
	c.Flags().BoolVar(&f.tunnel, "tunnel", false, "sign with the login's key for clients that cannot")
	c.Flags().IntVar(&f.port, "port", 0, "the port, any that is free unless told")
	return c
}

// tunnelled has the listener hold the port.
func (a commands) tunnelled(ctx context.Context, name string, f chosen) error {
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	c, err := a.choose(ctx, s, name, f)
	if err != nil {
		return err
	}
	d, err := a.open(ctx, s, spec(s, c, listener.ProxyHolder()))
	if err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "Database %q is reached at %s until this is interrupted.\n\n", name, where(d))
	describe(d).print(a.Out)
	return a.Listener(s).Hold(ctx, d)
}

// passed carries the client's own TLS to the agent.
func (a commands) passed(ctx context.Context, name string, f chosen) error {
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	c, key, err := a.passable(ctx, s, name, f)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(f.port)))
	if err != nil {
		return fault.New(fault.Unavailable, "port %d of this machine is held by another program", f.port).WithReason("port_held").Wrapping(err).WithFix("tsh proxy db %s --port=0", name)
	}
	port := l.Addr().(*net.TCPAddr).Port
	fmt.Fprintf(a.Out, "Database %q is reached at 127.0.0.1:%d until this is interrupted.\n\n", c.Name, port)
	direct(s, c, "127.0.0.1", port, key).print(a.Out)
	return listener.Pass(ctx, l, c.Protocol, func(ctx context.Context) (net.Conn, error) {
		return s.Address.Stream(ctx, tunnel.Dial{Target: name, Door: tunnel.DoorDB, Ticket: s.Login.DialTicket})
	})
}

// exportKey writes the login's key, which is a file anyway, as clients read it; a logout removes it.
func exportKey(s *tool.State) (string, error) {
	f, err := hwkey.ReadFile(s.Home.KeyFile(s.Profile))
	if err != nil {
		return "", err
	}
	path := s.Home.PEMKeyFile(s.Profile)
	return path, profile.Write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: f.Private}))
}

// passable is what a client needs that speaks TLS to the agent itself.
func (a commands) passable(ctx context.Context, s *tool.State, name string, f chosen) (choice, string, error) {
	if s.Key.Kind() != device.Software {
		return choice{}, "", fault.New(fault.Unsupported, "this login's key is in hardware, and no client can take it from a file").WithReason("hardware_key").
			WithFix("tsh proxy db %s --tunnel", name)
	}
	c, err := a.choose(ctx, s, name, f)
	if err != nil {
		return c, "", err
	}
	if c.Protocol == target.MySQL {
		return c, "", fault.New(fault.Unsupported, "MySQL's own TLS cannot be passed on: the server speaks first").WithReason("protocol").WithFix("tsh proxy db %s --tunnel", name)
	}
	key, err := exportKey(s)
	return c, key, err
}

// straight is the way through the proxy's own port.
func (a commands) straight(ctx context.Context, name string, f chosen) (details, error) {
	s, err := a.Load(ctx)
	if err != nil {
		return details{}, err
	}
	c, key, err := a.passable(ctx, s, name, f)
	if err != nil {
		return details{}, err
	}
	host, port, err := net.SplitHostPort(s.Profile.Proxy)
	if err != nil {
		return details{}, err
	}
	n, err := strconv.Atoi(port)
	return direct(s, c, host, n, key), err
}

// direct words a way to an agent on which the client speaks TLS itself, by the name that routes it.
func direct(s *tool.State, c choice, at string, port int, key string) details {
	name := identity.Host{Role: identity.RoleDB, Cluster: s.Profile.Cluster}.ServedDNSName(c.Name)
	d := details{Name: c.Name, Protocol: c.Protocol, Host: name, Port: port, User: c.DBUser, Database: c.DBName,
		files: files{CA: s.Home.AuthorityFile(s.Profile), Cert: s.Home.CertificateFile(s.Profile), Key: key}}
	switch c.Protocol {
	case target.PostgreSQL:
		line := "host=" + name + " port=" + strconv.Itoa(port) + " sslmode=verify-full sslrootcert=" + conninfo(d.CA) + " sslcert=" + conninfo(d.Cert) + " sslkey=" + conninfo(d.Key)
		if net.ParseIP(at) != nil {
			line += " hostaddr=" + at
		}
		if d.User != "" {
			line += " user=" + conninfo(d.User)
		}
		if d.Database != "" {
			line += " dbname=" + conninfo(d.Database)
		}
		d.Command = "psql " + console.Quoted(line)
	case target.Redis:
		d.Command = "redis-cli -h " + at + " -p " + strconv.Itoa(port) + " --tls --sni " + name + " --cacert " + console.Quoted(d.CA) + " --cert " + console.Quoted(d.Cert) + " --key " + console.Quoted(d.Key)
	}
	return d
}
