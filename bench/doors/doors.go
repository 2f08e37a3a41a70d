// Package doors measures the database doors to Redis and MySQL at the agent itself, the audit log on, beside a relay that
// only copies and the server without either.
package doors

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/bench/rig"
	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/mysql"
	"github.com/sallyport/sallyport/internal/database/redis"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	mariadbserver "github.com/sallyport/sallyport/internal/peer/mariadb"
	redisserver "github.com/sallyport/sallyport/internal/peer/redis"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
)

// Env tells a process of the bench's to be an agent or a relay: the place is in it, as JSON.
const Env = "BENCH_DOORS"

// Rounds is how often each way is measured.
var Rounds = 5

// place is where an agent or a relay stands: the files ca.pem, cert.pem and key.pem of both are in its directories.
type place struct {
	Copy          bool // only copies
	Clear         bool // clients speak no TLS
	Protocol      target.Protocol
	Server        string
	Dir           string // of its audit log
	Client, Front string
}

// Serve is the process that Env asks for: it says where it listens, and ends with its standard input.
func Serve() error {
	var p place
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &p); err != nil {
		return err
	}
	front, err := rig.Load(p.Front)
	if err != nil {
		return err
	}
	up, err := rig.Load(p.Client)
	if err != nil {
		return err
	}
	handle := func(c net.Conn) { copies(c, p.Server, up) }
	if !p.Copy {
		if handle, err = p.agent(up); err != nil {
			return err
		}
	}
	return rig.Listen(func(c net.Conn) {
		if !p.Clear {
			c = tls.Server(c, front)
		}
		handle(c)
	})
}

// copies carries bytes both ways and looks at none.
func copies(client net.Conn, addr string, up *tls.Config) {
	defer client.Close()
	server, err := tls.Dial("tcp", addr, up)
	if err != nil {
		return
	}
	rig.Join(client, server)
}

// servers reaches the one server, as the one user.
type servers struct {
	addr   string
	config *tls.Config
}

func (s servers) Dial(ctx context.Context, _ *target.DatabaseServer) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", s.addr)
}
func (s servers) TLS(context.Context, *target.DatabaseServer, string) (*tls.Config, error) {
	return s.config, nil
}
func (s servers) Password(*target.DatabaseServer, string) (string, bool, error) {
	return "", false, nil
}

// agent is a door with gate, picture and audit log, as an agent has them.
func (p *place) agent(up *tls.Config) (func(net.Conn), error) {
	ctx, all := context.Background(), []string{"*"}
	self, err := rig.NewAgent(ctx, p.Dir, identity.RoleDB, role.Role{Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: all, DBNames: all}})
	if err != nil {
		return nil, err
	}
	door := database.New(database.Config{Gate: self.Gate, Servers: servers{p.Server, up},
		Engines: map[target.Protocol]database.Engine{target.MySQL: mysql.Engine{}, target.Redis: redis.Engine{}}})
	db := &target.DatabaseServer{Name: "bench", Protocol: p.Protocol, URI: p.Server}
	return func(c net.Conn) {
		door.Serve(ctx, c, database.Visit{User: self.User, From: netip.MustParseAddr("192.0.2.1"), Database: db})
	}, nil
}

// Run measures.
func Run(ctx context.Context) ([]rig.Row, error) {
	return rig.Measure(func(r *rig.Rig) []rig.Row {
		m := measure{r}
		return append(m.redis(ctx), m.mysql(ctx)...)
	})
}

// measure is what a run stands on.
type measure struct{ *rig.Rig }

var perSecond = regexp.MustCompile(`([0-9.]+) requests per second`)

func (r measure) redis(ctx context.Context) []rig.Row {
	s := redisserver.Start(r.Rig, "--maxmemory", "500mb")
	client, front := r.Files(s.Authority, s.Authority.Client("default")), r.Files(s.Authority, s.Authority.Server())
	p := place{Protocol: target.Redis, Server: s.Addr, Client: client, Front: front, Dir: r.Dir()}
	copying := p
	copying.Copy = true
	agent, agentPID := r.Begin(Env, p)
	relay, relayPID := r.Begin(Env, copying)
	addrs, pids := map[string]string{"direct": s.Addr, "agent": agent, "relay": relay}, map[string]int{"agent": agentPID, "relay": relayPID}
	const commands = 500000
	spent := map[string]time.Duration{}
	var rows []rig.Row
	for _, test := range []string{"set", "get"} {
		m := rig.Turns(Rounds, []string{"agent", "relay", "direct"}, func(way string) float64 {
			host, port, _ := net.SplitHostPort(addrs[way])
			before := rig.CPU(pids[way])
			defer func() { spent[way] += rig.CPU(pids[way]) - before }()
			out, err := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "--tls", "--cacert", filepath.Join(client, "ca.pem"),
				"--cert", filepath.Join(client, "cert.pem"), "--key", filepath.Join(client, "key.pem"), "-t", test, "-n", strconv.Itoa(commands), "-r", "100000", "-P", "16", "-q").CombinedOutput()
			found := perSecond.FindAllSubmatch(out, -1)
			if err != nil || len(found) == 0 || strings.Contains(strings.ToLower(string(out)), "error") {
				r.Fatalf("redis-benchmark: %v: %s", err, out)
			}
			n, _ := strconv.ParseFloat(string(found[len(found)-1][1]), 64)
			return n
		})
		rows = append(rows, rig.Line("redis-benchmark -P 16, 50 clients, "+test, fmt.Sprintf("%.0f/s", m["agent"]),
			fmt.Sprintf("relay %.0f, direct %.0f", m["relay"], m["direct"]), fmt.Sprintf("%.2f of relay", m["agent"]/m["relay"]), "≥ 0.8 of relay"))
	}
	each := func(way string) float64 {
		return float64(spent[way].Nanoseconds()) / 1000 / float64(2*Rounds*commands)
	}
	return append(rows, rig.Line("redis-benchmark -P 16, CPU of the process a command", fmt.Sprintf("%.2f µs", each("agent")), fmt.Sprintf("relay %.2f µs", each("relay")),
		fmt.Sprintf("%.2f of relay", each("agent")/each("relay")), ""))
}

var seconds = regexp.MustCompile(`Average number of seconds to run all queries: ([0-9.]+) seconds`)

// mysql is mysqlslap: to the agent in clear, because a mysql client begins TLS inside its protocol, which the listener does
// not; from there and without the agent over TLS.
func (r measure) mysql(ctx context.Context) []rig.Row {
	s := mariadbserver.Start(r.Rig)
	s.Exec(r.Rig, "create user bench@'%' require x509; grant all on *.* to bench@'%'")
	client := r.Files(s.Authority, s.Authority.Client("bench"))
	agent, _ := r.Begin(Env, place{Protocol: target.MySQL, Clear: true, Server: s.Addr, Client: client, Front: client, Dir: r.Dir()})
	addrs := map[string]string{"direct": s.Addr, "agent": agent}
	var rows []rig.Row
	const queries = 20000
	for _, clients := range []int{1, 16} {
		m := rig.Turns(Rounds, []string{"agent", "direct"}, func(way string) float64 {
			host, port, _ := net.SplitHostPort(addrs[way])
			args := []string{"--no-defaults", "-h", host, "-P", port, "-u", "bench", "--auto-generate-sql", "--auto-generate-sql-load-type=key", "--auto-generate-sql-guid-primary",
				"--concurrency=" + strconv.Itoa(clients), "--number-of-queries=" + strconv.Itoa(queries)}
			if way == "agent" {
				args = append(args, "--skip-ssl")
			} else {
				args = append(args, "--ssl", "--ssl-ca="+filepath.Join(client, "ca.pem"), "--ssl-cert="+filepath.Join(client, "cert.pem"), "--ssl-key="+filepath.Join(client, "key.pem"))
			}
			out, err := exec.CommandContext(ctx, "mysqlslap", args...).CombinedOutput()
			found := seconds.FindSubmatch(out)
			if err != nil || found == nil {
				r.Fatalf("mysqlslap: %v: %s", err, out)
			}
			n, _ := strconv.ParseFloat(string(found[1]), 64)
			return queries / n
		})
		rows = append(rows, rig.Line(fmt.Sprintf("mysqlslap by key, %d clients", clients), fmt.Sprintf("%.0f/s", m["agent"]),
			fmt.Sprintf("direct %.0f", m["direct"]), fmt.Sprintf("%.2f of direct", m["agent"]/m["direct"]), ""))
	}
	return rows
}
