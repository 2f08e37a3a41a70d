// Package db is tsh's commands for databases.
package db

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// kind is under which the choices of databases are kept in TSH_HOME.
const kind = "db"

type commands struct{ *tool.Tool }

// Command is `tsh db`, Proxy what belongs to `tsh proxy`.
func Command(t *tool.Tool) *cobra.Command {
	a := commands{t}
	return console.Group("db", "Reach databases", "tsh db connect orders --db-user=alice --db-name=shop",
		a.lsCommand(), a.loginCommand(), a.connectCommand(), a.envCommand(), a.configCommand(), a.logoutCommand())
}

// choice is what was chosen for a database.
type choice struct {
	Name     string          `json:"name"`
	Protocol target.Protocol `json:"protocol"`
	DBUser   string          `json:"db_user,omitempty"`
	DBName   string          `json:"db_name,omitempty"`
	Port     int             `json:"port,omitempty"` // of a door that is a port; 0: a socket
}

type chosen struct {
	dbUser, dbName string
	port           int
	portGiven      bool
}

func (f *chosen) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.dbUser, "db-user", "", "the database user to be")
	c.Flags().StringVar(&f.dbName, "db-name", "", "the database to use on the server")
}

func (a commands) lsCommand() *cobra.Command {
	var format, query string
	c := &cobra.Command{Use: "ls", Short: "List the databases that you may reach", Args: tool.Exactly(0), Example: "  tsh db ls\n  tsh db ls --query='resource.labels.env == \"prod\"' --format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, list, err := a.Targets(cmd.Context(), "db", query)
			if err != nil {
				return err
			}
			return console.Format(format).Print(a.Out, list, func(w io.Writer) error {
				var rows [][]string
				for _, t := range list {
					var c choice
					user := ""
					if has, err := s.Home.Choice(s.Profile, kind, t.Name, &c); has && err == nil {
						user = strings.Trim(c.DBUser+"/"+c.DBName, "/")
					}
					rows = append(rows, []string{t.Name, t.Protocol, t.Labels.String(), user})
				}
				console.Table(w, []string{"Name", "Protocol", "Labels", "Logged In As"}, rows)
				return nil
			})
		}}
	c.Flags().StringVar(&query, "query", "", `show databases for which this holds, such as: resource.labels.env == "prod"`)
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

// find is the database of a name that the person may reach.
func find(ctx context.Context, s *tool.State, name string) (client.Target, error) {
	calls := s.Call()
	defer calls.Close()
	list, err := calls.Targets(ctx, "db", "")
	if err != nil {
		return client.Target{}, err
	}
	i := slices.IndexFunc(list, func(t client.Target) bool { return t.Name == name })
	if i < 0 {
		return client.Target{}, fault.New(fault.NotFound, "database %q not found", name).WithReason("not_found").WithFix("tsh db ls")
	}
	return list[i], nil
}

// choose settles what a command works with: what was typed, else what was chosen at `tsh db login`, else the only one
// that there is.
func (a commands) choose(ctx context.Context, s *tool.State, name string, f chosen) (choice, error) {
	var c choice
	has, err := s.Home.Choice(s.Profile, kind, name, &c)
	if err != nil {
		return c, fault.New(fault.Invalid, "what was chosen for database %q cannot be read", name).WithFix("tsh db logout %s", name).Wrapping(err)
	}
	if !has {
		t, err := find(ctx, s, name)
		if err != nil {
			return c, err
		}
		c = choice{Name: name, Protocol: target.Protocol(t.Protocol)}
	}
	if f.dbUser != "" {
		c.DBUser = f.dbUser
	}
	if f.dbName != "" {
		c.DBName = f.dbName
	}
	if f.portGiven {
		c.Port = f.port
		if f.port == 0 {
			c.Port = anyPort
		}
	}
	if users := s.Login.Identity.Traits["db_users"]; c.DBUser == "" && len(users) == 1 && !strings.Contains(users[0], "*") {
		c.DBUser = users[0]
	}
	if c.DBUser == "" && c.Protocol != target.Redis {
		return c, console.Usagef("required flag --db-user not provided (a user made on demand has the login's own name: --db-user=%s)", s.Login.Identity.Name)
	}
	return c, nil
}

// anyPort asks for a port of the system's choice.
const anyPort = -1

// sockets are the names that clients of a protocol look for.
var sockets = map[target.Protocol]string{target.PostgreSQL: ".s.PGSQL.5432", target.MySQL: "mysql.sock", target.Redis: "redis.sock", target.MongoDB: "mongodb-27017.sock"}

// spec is the door of a choice: a socket where this system's clients can use one, else a port. The one of `tsh db login` has no
// holder.
func spec(s *tool.State, c choice, holder string) listener.Spec {
	d := listener.Spec{Cluster: s.Profile.Cluster, Role: identity.RoleDB, Resource: c.Name, Protocol: c.Protocol, DBUser: c.DBUser, DBName: c.DBName, Home: s.Home.LocalDir(s.Profile), Holder: holder}
	if c.Port == 0 && runtime.GOOS != "windows" {
		d.Socket = s.Home.Socket(s.Profile, kind, c.Name+"\x00"+holder, sockets[c.Protocol])
	}
	if d.Socket == "" {
		d.Port = max(0, c.Port)
	}
	return d
}

// open has the listener open a door.
func (a commands) open(ctx context.Context, s *tool.State, d listener.Spec) (listener.Spec, error) {
	if sockets[d.Protocol] == "" {
		return listener.Spec{}, fault.New(fault.Unsupported, "protocol %q is not known to this tsh", string(d.Protocol)).WithFix("install a newer tsh")
	}
	return a.Listener(s).Open(ctx, d)
}

// beside is who holds the door of a choice that is not the login's. Names may have anything in them but a NUL.
func (c choice) beside() string { return "as " + c.DBUser + "\x00" + c.DBName }

// settle opens the door that a command without a login of its own works with: that of `tsh db login` where it is for this user and
// name, else one beside it. What goes through a door that is open goes on as whom it was opened for.
func (a commands) settle(ctx context.Context, s *tool.State, name string, f chosen) (listener.Spec, error) {
	c, err := a.choose(ctx, s, name, f)
	if err != nil {
		return listener.Spec{}, err
	}
	var login choice
	if has, err := s.Home.Choice(s.Profile, kind, name, &login); has && err == nil && login == c {
		return a.open(ctx, s, spec(s, c, ""))
	}
	if c.Port != 0 {
		c.Port = anyPort // the login's is its own
	}
	return a.open(ctx, s, spec(s, c, c.beside()))
}

func (a commands) loginCommand() *cobra.Command {
	var f chosen
	c := &cobra.Command{Use: "login NAME", Short: "Open a local door to a database, and remember user and name", Args: tool.Exactly(1),
		Example: "  tsh db login orders --db-user=alice --db-name=shop\n  eval $(tsh db env orders); psql",
		RunE: func(cmd *cobra.Command, args []string) error {
			f.portGiven = cmd.Flags().Changed("port")
			s, err := a.Load(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := find(cmd.Context(), s, args[0]); err != nil {
				return err
			}
			c, err := a.choose(cmd.Context(), s, args[0], f)
			if err != nil {
				return err
			}
			d, err := a.open(cmd.Context(), s, spec(s, c, ""))
			if err != nil {
				return err
			}
			if d.Port != 0 {
				c.Port = d.Port
			}
			if err := s.Home.Choose(s.Profile, kind, c.Name, c); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "Database %q is reached at %s.\nConnect with: tsh db connect %s\n", c.Name, where(d), c.Name)
			if line := describe(d).Command; line != "" {
				fmt.Fprintf(a.Out, "or with your own client: %s\n", line)
			}
			return nil
		}}
	f.flags(c)
	c.Flags().IntVar(&f.port, "port", 0, "open a port of this machine, 0 for any, in place of a socket")
	return c
}

// where is a door in words.
func where(d listener.Spec) string {
	if d.Socket != "" {
		return d.Socket
	}
	return fmt.Sprintf("127.0.0.1:%d", d.Port)
}

func (a commands) logoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout [NAME]", Short: "Close the local door to a database, or to all of them", Example: "  tsh db logout orders", Args: tool.Between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Read()
			if s == nil || s.Profile == nil {
				return err
			}
			names := args
			if len(names) == 0 {
				if names, err = chosenNames(s); err != nil {
					return err
				}
			}
			for _, n := range names {
				if err := a.logout(cmd.Context(), s, n); err != nil {
					return err
				}
			}
			if len(args) == 0 { // those too that a command opened beside a login
				_, err := a.Listener(s).CloseAll(cmd.Context(), listener.Spec{Cluster: s.Profile.Cluster, Role: identity.RoleDB})
				return err
			}
			return nil
		}}
}

// logout closes the doors to a database, whoever opened them, and forgets what was chosen for it.
func (a commands) logout(ctx context.Context, s *tool.State, name string) error {
	closed, err := a.Listener(s).CloseAll(ctx, listener.Spec{Cluster: s.Profile.Cluster, Role: identity.RoleDB, Resource: name})
	if err != nil {
		return err
	}
	var c choice
	has, err := s.Home.Choice(s.Profile, kind, name, &c)
	if !has && closed == 0 {
		if err == nil {
			err = fault.New(fault.NotFound, "not logged in to database %q", name).WithFix("tsh db ls")
		}
		return err
	}
	if err := s.Home.Forget(s.Profile, kind, name); err != nil {
		return err
	}
	fmt.Fprintf(a.Out, "Logged out of database %q.\n", name)
	return nil
}
