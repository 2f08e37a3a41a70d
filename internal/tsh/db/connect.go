package db

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/listener/localcert"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

func chosenNames(s *tool.State) ([]string, error) {
	list, err := s.Home.Choices(s.Profile, kind)
	var names []string
	for _, raw := range list {
		var c choice
		if json.Unmarshal(raw, &c) == nil {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names, err
}

// details are all that a client needs to use a door.
type details struct {
	Name     string          `json:"name"`
	Protocol target.Protocol `json:"protocol"`
	Host     string          `json:"host"`
	Port     int             `json:"port,omitempty"`
	Socket   string          `json:"socket,omitempty"`
	User     string          `json:"user,omitempty"`
	Database string          `json:"database,omitempty"`
	files
	URI     string `json:"uri,omitempty"`
	Command string `json:"command"`
	usual
}

// files are what clients of a port need.
type files struct {
	CA   string `json:"ca,omitempty"`
	Cert string `json:"cert,omitempty"`
	Key  string `json:"key,omitempty"`
}

// usual is how the protocol's usual clients are run: their environment (NAME=VALUE), their names, and their arguments.
type usual struct {
	env      []string
	programs []string
	args     []string
}

// describe words a door for the clients of its protocol.
func describe(d listener.Spec) details {
	out := details{Name: d.Resource, Protocol: d.Protocol, Host: "127.0.0.1", Port: d.Port, Socket: d.Socket, User: d.DBUser, Database: d.DBName}
	if d.Socket == "" {
		f := localcert.FilesOf(d.Home)
		out.CA, out.Cert, out.Key = f.CA, f.Cert, f.Key
	}
	switch d.Protocol {
	case target.PostgreSQL:
		out.postgres()
	case target.MySQL:
		out.mysql()
	case target.Redis:
		out.redis()
	case target.MongoDB:
		out.mongo()
	}
	out.Command = out.programs[0]
	for _, a := range out.args {
		out.Command += " " + console.Quoted(a)
	}
	return out
}

func (d *details) postgres() {
	parts := []string{"host=" + conninfo(d.Host), "port=" + strconv.Itoa(d.Port)}
	query := url.Values{}
	if d.Socket != "" {
		d.Host, d.Port = filepath.Dir(d.Socket), 5432
		parts = []string{"host=" + conninfo(d.Host), "port=5432", "sslmode=disable"}
		d.env = []string{"PGHOST=" + d.Host, "PGPORT=5432", "PGSSLMODE=disable"}
		query.Set("host", d.Host)
		query.Set("sslmode", "disable")
		d.URI = "postgresql:///" + url.PathEscape(d.Database) + "?" + withUser(query, d.User).Encode()
	} else {
		parts = append(parts, "sslmode=verify-full", "sslrootcert="+conninfo(d.CA), "sslcert="+conninfo(d.Cert), "sslkey="+conninfo(d.Key))
		d.env = []string{"PGHOST=127.0.0.1", "PGPORT=" + strconv.Itoa(d.Port), "PGSSLMODE=verify-full", "PGSSLROOTCERT=" + d.CA, "PGSSLCERT=" + d.Cert, "PGSSLKEY=" + d.Key}
		for k, v := range map[string]string{"sslmode": "verify-full", "sslrootcert": d.CA, "sslcert": d.Cert, "sslkey": strings.TrimSuffix(d.Key, ".pem") + ".pk8"} {
			query.Set(k, v)
		}
		d.URI = "jdbc:postgresql://127.0.0.1:" + strconv.Itoa(d.Port) + "/" + url.PathEscape(d.Database) + "?" + withUser(query, d.User).Encode()
	}
	if d.User != "" {
		parts, d.env = append(parts, "user="+conninfo(d.User)), append(d.env, "PGUSER="+d.User)
	}
	if d.Database != "" {
		parts, d.env = append(parts, "dbname="+conninfo(d.Database)), append(d.env, "PGDATABASE="+d.Database)
	}
	d.programs, d.args = []string{"psql"}, []string{strings.Join(parts, " ")}
}

func withUser(q url.Values, user string) url.Values {
	if user != "" {
		q.Set("user", user)
	}
	return q
}

// conninfo quotes a value of a libpq connection string.
func conninfo(v string) string {
	if v != "" && !strings.ContainsAny(v, " '\\\t\n") {
		return v
	}
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(v) + "'"
}

func (d *details) mysql() {
	d.programs, d.args = []string{"mariadb", "mysql"}, []string{"--protocol=socket", "--socket=" + d.Socket}
	d.env = []string{"MYSQL_UNIX_PORT=" + d.Socket}
	if d.Socket == "" {
		d.args = []string{"--protocol=tcp", "--host=127.0.0.1", "--port=" + strconv.Itoa(d.Port), "--ssl-ca=" + d.CA, "--ssl-cert=" + d.Cert, "--ssl-key=" + d.Key}
		d.env = []string{"MYSQL_HOST=127.0.0.1", "MYSQL_TCP_PORT=" + strconv.Itoa(d.Port)}
	} else {
		d.Host = "localhost"
	}
	d.args = append(d.args, "--user="+d.User)
	if d.Database != "" {
		d.args = append(d.args, d.Database)
	}
}

func (d *details) redis() {
	d.programs, d.args = []string{"redis-cli"}, []string{"-s", d.Socket}
	if d.Socket == "" {
		d.args = []string{"-h", "127.0.0.1", "-p", strconv.Itoa(d.Port), "--tls", "--cacert", d.CA, "--cert", d.Cert, "--key", d.Key}
		d.URI = "rediss://127.0.0.1:" + strconv.Itoa(d.Port)
	} else {
		d.URI = "unix://" + d.Socket
	}
	if d.Database != "" {
		d.args = append(d.args, "-n", d.Database)
	}
}

func (d *details) mongo() {
	d.programs = []string{"mongosh", "mongo"}
	query := url.Values{"directConnection": {"true"}}
	host := url.PathEscape(d.Socket)
	if d.Socket == "" {
		host = "127.0.0.1:" + strconv.Itoa(d.Port)
		query.Set("tls", "true")
		query.Set("tlsCAFile", d.CA)
		query.Set("tlsCertificateKeyFile", strings.TrimSuffix(d.Key, "-key.pem")+"-client.pem")
	}
	d.URI = "mongodb://" + host + "/" + url.PathEscape(d.Database) + "?" + query.Encode()
	d.args, d.env = []string{d.URI}, []string{"MONGODB_URI=" + d.URI}
}

func (a commands) connectCommand() *cobra.Command {
	var f chosen
	c := &cobra.Command{Use: "connect NAME [-- ARGUMENTS…]", Short: "Run the database's own client", Args: tool.Between(1, -1),
		Example: "  tsh db connect orders --db-user=alice --db-name=shop\n  tsh db connect orders -- -c 'select 1'",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Load(cmd.Context())
			if err != nil {
				return err
			}
			d, err := a.settle(cmd.Context(), s, args[0], f)
			if err != nil {
				return err
			}
			how := describe(d)
			for _, program := range how.programs {
				if path, err := exec.LookPath(program); err == nil {
					return a.Run(path, append(how.args, args[1:]...), nil)
				}
			}
			return fault.New(fault.NotFound, "%s is not installed here", how.programs[0]).WithReason("no_client").
				WithFix("install it, or use another client with what this prints: tsh db config %s", d.Resource)
		}}
	f.flags(c)
	return c
}

// settled is the door of a database that was logged in to or is told by flags, opened.
func (a commands) settled(ctx context.Context, name string, f chosen) (details, error) {
	s, err := a.Load(ctx)
	if err != nil {
		return details{}, err
	}
	d, err := a.settle(ctx, s, name, f)
	if err != nil {
		return details{}, err
	}
	return describe(d), nil
}

func (a commands) envCommand() *cobra.Command {
	var f chosen
	c := &cobra.Command{Use: "env NAME", Short: "Print environment variables for the database's clients", Args: tool.Exactly(1), Example: "  eval $(tsh db env orders)\n  psql",
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.settled(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			for _, e := range d.env {
				name, value, _ := strings.Cut(e, "=")
				fmt.Fprintf(a.Out, "export %s=%s\n", name, console.Quoted(value))
			}
			if len(d.env) == 0 {
				fmt.Fprintf(a.Err, "%s reads no environment; connect with: %s\n", d.programs[0], d.Command)
			}
			return nil
		}}
	f.flags(c)
	return c
}

func (a commands) configCommand() *cobra.Command {
	var f chosen
	var format string
	var straight bool
	c := &cobra.Command{Use: "config NAME", Short: "Print how a client of your own reaches the database", Args: tool.Exactly(1), Example: "  tsh db config orders\n  tsh db config orders --format=json",
		RunE: func(cmd *cobra.Command, args []string) error {
			settle := a.settled
			if straight {
				settle = a.straight
			}
			d, err := settle(cmd.Context(), args[0], f)
			if err != nil {
				return err
			}
			return console.Format(format).Print(a.Out, d, func(w io.Writer) error { d.print(w); return nil })
		}}
	f.flags(c)
	c.Flags().BoolVar(&straight, "direct", false, "the way through the proxy's own port, with the login's files: for keys that are no hardware's")
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

func (d details) print(w io.Writer) {
	port := ""
	if d.Port != 0 {
		port = strconv.Itoa(d.Port)
	}
	for _, row := range [][2]string{{"Name", d.Name}, {"Protocol", string(d.Protocol)}, {"Host", d.Host}, {"Port", port}, {"Socket", d.Socket},
		{"User", d.User}, {"Database", d.Database}, {"CA", d.CA}, {"Cert", d.Cert}, {"Key", d.Key}, {"URI", d.URI}, {"Command", d.Command}} {
		if row[1] != "" {
			fmt.Fprintf(w, "%-10s %s\n", row[0]+":", console.Safe(row[1]))
		}
	}
}
