// Package path measures a database through all that is between a person and its server: listener, proxy, tunnel and agent.
package path

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/peer/pgserver"
)

// Env holds, in a process of the bench's own, which link of the chain it is.
const Env = "SALLYPORT_BENCH_LINK"

// link is one copying relay of a chain: clear in and TLS out, bytes as they are, or TLS in and PostgreSQL's TLS out.
type link struct {
	Kind, Addr, Next    string
	Cert, Key, CA, Name string
	Server, ServerKey   string // what an agent shows to the link before it
}

// Serve copies until the process is killed.
func Serve() error {
	var l link
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &l); err != nil {
		return err
	}
	in, err := net.Listen("tcp", l.Addr)
	if err != nil {
		return err
	}
	conf := &tls.Config{ServerName: l.Name, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13}
	if l.CA != "" {
		ca, err := os.ReadFile(l.CA)
		if err != nil {
			return err
		}
		conf.RootCAs.AppendCertsFromPEM(ca)
	}
	if l.Cert != "" {
		c, err := tls.LoadX509KeyPair(l.Cert, l.Key)
		if err != nil {
			return err
		}
		conf.Certificates = []tls.Certificate{c}
	}
	var shown tls.Certificate
	if l.Kind == "agent" {
		if shown, err = tls.LoadX509KeyPair(l.Server, l.ServerKey); err != nil {
			return err
		}
	}
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); os.Exit(0) }()
	for {
		c, err := in.Accept()
		if err != nil {
			return err
		}
		go l.carry(c, conf, shown)
	}
}

// carry joins one connection with the next link.
func (l link) carry(c net.Conn, conf *tls.Config, shown tls.Certificate) {
	defer c.Close()
	up, err := net.Dial("tcp", l.Next)
	if err != nil {
		return
	}
	defer up.Close()
	switch l.Kind {
	case "listener":
		up = tls.Client(up, conf)
	case "agent":
		c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{shown}})
		if _, err := up.Write([]byte{0, 0, 0, 8, 4, 210, 22, 47}); err != nil {
			return
		}
		if _, err := io.ReadFull(up, make([]byte, 1)); err != nil {
			return
		}
		up = tls.Client(up, conf)
	}
	var both sync.WaitGroup
	for _, x := range [][2]net.Conn{{c, up}, {up, c}} {
		both.Go(func() {
			_, _ = io.CopyBuffer(struct{ io.Writer }{x[0]}, struct{ io.Reader }{x[1]}, make([]byte, 64<<10))
			x[0].Close()
		})
	}
	both.Wait()
}

// Row is a line of the table.
type Row struct{ What, Value, Beside, Ratio, Goal string }

// World is a running cluster with a database agent: its directory, where the programs are, their environment, and how to
// run one of them.
type World struct {
	Dir, Bin string
	Env      []string
	Out      string // what the server printed
	Run      func(ctx context.Context, input, name string, args ...string) error
}

// path is a cluster with a database, and a chain of relays to the same server.
type path struct {
	World
	pg    *pgserver.Server
	chain string
	later []func()
}

const password = "correct horse battery\n"

// Run measures pgbench through listener, proxy, tunnel and agent, beside a chain of as many relays that copy.
func Run(ctx context.Context, w World) ([]Row, error) {
	p := &path{World: w}
	var err error
	if p.pg, err = pgserver.Start("max_connections = 200"); err != nil {
		return nil, err
	}
	defer p.pg.Stop()
	defer func() {
		for _, f := range p.later {
			f()
		}
	}()
	if _, err := p.pg.Admin("postgres", "CREATE ROLE bench LOGIN; CREATE DATABASE bench OWNER bench;"); err != nil {
		return nil, err
	}
	if err := p.open(ctx); err != nil {
		return nil, err
	}
	if err := p.relays(); err != nil {
		return nil, err
	}
	return p.measure(ctx)
}

// open makes the database a resource, with the server's own authority and a password file in place of certificates that
// the server does not know.
func (p *path) open(ctx context.Context) error {
	_, _, ca, err := p.pg.Files("bench")
	if err != nil {
		return err
	}
	if _, err := p.pg.Admin("postgres", "ALTER ROLE bench PASSWORD 'bench'"); err != nil {
		return err
	}
	passwords := filepath.Join(p.Dir, "passwords")
	if err := os.WriteFile(passwords, []byte("bench:bench\n"), 0o600); err != nil {
		return err
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return err
	}
	authority := filepath.Join(p.Dir, "pg-ca.pem")
	if err := os.WriteFile(authority, pem, 0o600); err != nil {
		return err
	}
	if _, err := p.pg.Admin("postgres", "CREATE DATABASE "+pgserver.ScramDatabase+" OWNER bench"); err != nil {
		return err
	}
	files := map[string]string{
		"db.yaml":   fmt.Sprintf("kind: db\nversion: v3\nmetadata: {name: bench}\nspec: {protocol: postgres, uri: %q, password_file: %q, tls: {ca_file: %q, server_name: db.example.com}}\n", p.pg.Addr, passwords, authority),
		"role.yaml": "kind: role\nversion: v7\nmetadata: {name: bench}\nspec: {allow: {db_labels: {\"*\": \"*\"}, db_users: [bench], db_names: [\"*\"]}}\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.Dir, name), []byte(text), 0o600); err != nil {
			return err
		}
		if err := p.Run(ctx, "", "tctl", "create", filepath.Join(p.Dir, name)); err != nil {
			return err
		}
	}
	if err := p.Run(ctx, password, "tctl", "users", "add", "bench", "--roles=bench", "--password-file=-"); err != nil {
		return err
	}
	pin, proxy := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(p.Out), regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(p.Out)
	if err := p.Run(ctx, password, "tsh", "login", "--proxy="+proxy[1], "--ca-pin="+pin[1], "--user=bench"); err != nil {
		return err
	}
	for range 100 {
		if err = p.Run(ctx, "", "tsh", "db", "login", "bench", "--db-user=bench", "--db-name="+pgserver.ScramDatabase); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// relays starts the chain, last link first.
func (p *path) relays() error {
	cert, key, ca, err := p.pg.Files("bench")
	if err != nil {
		return err
	}
	next := p.pg.Addr
	for _, kind := range []string{"agent", "proxy", "listener"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addr := l.Addr().String()
		l.Close()
		raw, err := json.Marshal(link{Kind: kind, Addr: addr, Next: next, Cert: cert, Key: key, CA: ca, Name: "db.example.com",
			Server: filepath.Join(p.pg.Dir, "server.pem"), ServerKey: filepath.Join(p.pg.Dir, "server.key")})
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c := exec.Command(self)
		c.Env = append(os.Environ(), Env+"="+string(raw))
		c.Stderr = os.Stderr
		in, err := c.StdinPipe()
		if err != nil {
			return err
		}
		if err := c.Start(); err != nil {
			return err
		}
		p.later = append(p.later, func() { in.Close(); _ = c.Wait() })
		next = addr
	}
	p.chain = next
	return nil
}

var perSecond = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// pgbench is statements a second, by the environment of a way.
func (p *path) pgbench(ctx context.Context, clients int, env ...string) (float64, error) {
	c := exec.CommandContext(ctx, "pgbench", "-n", "-S", "-T", "3", "-c", strconv.Itoa(clients), "-j", strconv.Itoa(min(clients, 2)))
	c.Env = append(os.Environ(), env...)
	out, err := c.CombinedOutput()
	m := perSecond.FindSubmatch(out)
	if err != nil || m == nil || !bytes.Contains(out, []byte("number of failed transactions: 0")) {
		return 0, fmt.Errorf("pgbench: %v: %s", err, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// measure takes turns between the two ways.
func (p *path) measure(ctx context.Context) ([]Row, error) {
	var out bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(p.Bin, "tsh"), "db", "env", "bench")
	c.Env, c.Stdout = p.Env, &out
	if err := c.Run(); err != nil {
		return nil, err
	}
	var ours []string
	for line := range strings.Lines(out.String()) {
		ours = append(ours, strings.ReplaceAll(strings.TrimPrefix(strings.TrimSpace(line), "export "), "'", ""))
	}
	host, port, _ := net.SplitHostPort(p.chain)
	chain := []string{"PGHOST=" + host, "PGPORT=" + port, "PGUSER=bench", "PGDATABASE=bench", "PGSSLMODE=disable"}
	for _, env := range [][]string{ours, chain} {
		fill := exec.CommandContext(ctx, "pgbench", "-i", "-s", "1", "-q")
		fill.Env = append(os.Environ(), env...)
		if raw, err := fill.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("pgbench -i: %w: %s", err, raw)
		}
	}
	var rows []Row
	for _, clients := range []int{1, 16} {
		var a, b []float64
		for range 3 {
			x, err := p.pgbench(ctx, clients, ours...)
			y, err2 := p.pgbench(ctx, clients, chain...)
			if err := errors.Join(err, err2); err != nil {
				return nil, err
			}
			a, b = append(a, x), append(b, y)
		}
		slices.Sort(a)
		slices.Sort(b)
		rows = append(rows, Row{fmt.Sprintf("PostgreSQL through listener, proxy and tunnel: pgbench -S, %d clients, statements a second", clients), fmt.Sprintf("%.0f", a[1]),
			fmt.Sprintf("a chain of three copying relays %.0f", b[1]), fmt.Sprintf("%.2f ×", a[1]/b[1]), "no floor"})
	}
	return rows, nil
}
