// Package doors measures the database doors to Redis and MySQL at the agent itself, the audit log on, beside a relay that
// only copies and the server without either.
package doors

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/mysql"
	"github.com/sallyport/sallyport/internal/database/redis"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/peer/authority"
	mariadbserver "github.com/sallyport/sallyport/internal/peer/mariadb"
	redisserver "github.com/sallyport/sallyport/internal/peer/redis"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// Env tells a process of the bench's to be an agent or a relay: the place is in it, as JSON.
const Env = "BENCH_DOORS"

const host = "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11"

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

func (p *place) load(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	pool, err := authority.Load(filepath.Join(dir, "ca.pem"))
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "localhost", SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}, err
}

// Serve is the process that Env asks for: it says where it listens, and ends with its standard input.
func Serve() error {
	var p place
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &p); err != nil {
		return err
	}
	front, err := p.load(p.Front)
	if err != nil {
		return err
	}
	up, err := p.load(p.Client)
	if err != nil {
		return err
	}
	handle := func(c net.Conn) { copies(c, p.Server, up) }
	if !p.Copy {
		if handle, err = p.agent(up); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		if !p.Clear {
			c = tls.Server(c, front)
		}
		go handle(c)
	}
}

// copies carries bytes both ways and looks at none.
func copies(client net.Conn, addr string, up *tls.Config) {
	defer client.Close()
	server, err := tls.Dial("tcp", addr, up)
	if err != nil {
		return
	}
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
		to.Close()
		from.Close()
	}
	both.Go(func() { one(server, client) })
	both.Go(func() { one(client, server) })
	both.Wait()
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
	began := time.Now()
	mirror := snapshot.NewMirror(func() time.Duration { return time.Since(began) })
	all := []string{"*"}
	mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: []*manifest.Resource{
		manifest.New(&cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOff}}, 0),
		manifest.New(&role.Role{Name: "access", Allow: role.Conditions{DBLabels: label.Selector{"*": {"*"}}, DBUsers: all, DBNames: all}}, 0)}})
	mirror.Confirm(mirror.Now())
	log, err := spool.Open(spool.Config{Dir: p.Dir, Writer: host, Cluster: "example.com", Now: time.Now, Max: 1 << 40})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	go func() { // auth takes what is durable, as a cluster's would
		_ = log.Run(ctx, func(_ context.Context, entries []event.Entry) (uint64, error) {
			return entries[len(entries)-1].Seq, nil
		})
	}()
	go func() {
		for ; ; time.Sleep(time.Second) {
			mirror.Confirm(mirror.Now())
		}
	}()
	g := gate.New(mirror, log, identity.Host{ID: host, Role: identity.RoleDB, Name: "db", Cluster: "example.com"}, time.Now)
	go g.Run(ctx)
	door := database.New(database.Config{Gate: g, Servers: servers{p.Server, up},
		Engines: map[target.Protocol]database.Engine{target.MySQL: mysql.Engine{}, target.Redis: redis.Engine{}}})
	who := &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, Roles: []string{"access"}, KeyPolicy: identity.KeyAnywhere,
		Validity: identity.Validity{IssuedAt: began, Expires: began.Add(24 * time.Hour)}}
	db := &target.DatabaseServer{Name: "bench", Protocol: p.Protocol, URI: p.Server}
	return func(c net.Conn) {
		door.Serve(ctx, c, database.Visit{User: who, From: netip.MustParseAddr("192.0.2.1"), Database: db})
	}, nil
}

// Row is a line of the table.
type Row struct{ What, Value, Beside, Ratio, Goal string }

// run stands for a test towards what runs for tests.
type run struct{ after []func() }

type failure struct{ error }

func (*run) Helper()                   {}
func (*run) Fatal(args ...any)         { panic(failure{errors.New(fmt.Sprint(args...))}) }
func (*run) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }
func (*run) Skip(args ...any)          { panic(failure{errors.New(fmt.Sprint(args...))}) }
func (r *run) Cleanup(f func())        { r.after = append(r.after, f) }
func (r *run) close() {
	for _, f := range slices.Backward(r.after) {
		f()
	}
}

// Run measures.
func Run(ctx context.Context) (rows []Row, err error) {
	r := &run{}
	defer r.close()
	defer func() {
		if f, is := recover().(failure); is {
			err = f.error
		}
	}()
	rows = r.redis(ctx)
	return append(rows, r.mysql(ctx)...), nil
}

// begin starts an agent or a relay in a process of its own, and gives its address and process.
func (r *run) begin(p place) (string, int) {
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	b, err := json.Marshal(p)
	if err != nil {
		r.Fatal(err)
	}
	c := exec.Command(self)
	c.Env = append(os.Environ(), Env+"="+string(b))
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		r.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		r.Fatal(err)
	}
	if err := c.Start(); err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() {
		in.Close()
		_ = c.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		r.Fatal("an agent or relay did not start: ", err)
	}
	return strings.TrimSpace(addr), c.Process.Pid
}

// files writes a certificate's files into a directory of its own.
func (r *run) files(a *authority.Authority, c tls.Certificate) string {
	dir := r.dir()
	if err := a.Files(dir, c); err != nil {
		r.Fatal(err)
	}
	return dir
}

func (r *run) dir() string {
	dir, err := os.MkdirTemp("", "benchdoors")
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// turns measures every way in turn, Rounds times, and gives the medians.
func turns(ways []string, f func(way string) float64) map[string]float64 {
	all := map[string][]float64{}
	for range Rounds {
		for _, w := range ways {
			all[w] = append(all[w], f(w))
		}
	}
	out := map[string]float64{}
	for w, v := range all {
		slices.Sort(v)
		out[w] = v[len(v)/2]
	}
	return out
}

var perSecond = regexp.MustCompile(`([0-9.]+) requests per second`)

func (r *run) redis(ctx context.Context) []Row {
	s := redisserver.Start(r, "--maxmemory", "500mb")
	client, front := r.files(s.Authority, s.Authority.Client("default")), r.files(s.Authority, s.Authority.Server())
	p := place{Protocol: target.Redis, Server: s.Addr, Client: client, Front: front, Dir: r.dir()}
	copying := p
	copying.Copy = true
	agent, agentPID := r.begin(p)
	relay, relayPID := r.begin(copying)
	addrs, pids := map[string]string{"direct": s.Addr, "agent": agent, "relay": relay}, map[string]int{"agent": agentPID, "relay": relayPID}
	const commands = 500000
	spent := map[string]time.Duration{}
	var rows []Row
	for _, test := range []string{"set", "get"} {
		m := turns([]string{"agent", "relay", "direct"}, func(way string) float64 {
			host, port, _ := net.SplitHostPort(addrs[way])
			before := cpu(pids[way])
			defer func() { spent[way] += cpu(pids[way]) - before }()
			out, err := exec.CommandContext(ctx, "redis-benchmark", "-h", host, "-p", port, "--tls", "--cacert", filepath.Join(client, "ca.pem"),
				"--cert", filepath.Join(client, "cert.pem"), "--key", filepath.Join(client, "key.pem"), "-t", test, "-n", strconv.Itoa(commands), "-r", "100000", "-P", "16", "-q").CombinedOutput()
			found := perSecond.FindAllSubmatch(out, -1)
			if err != nil || len(found) == 0 || strings.Contains(strings.ToLower(string(out)), "error") {
				r.Fatalf("redis-benchmark: %v: %s", err, out)
			}
			n, _ := strconv.ParseFloat(string(found[len(found)-1][1]), 64)
			return n
		})
		rows = append(rows, Row{"redis-benchmark -P 16, 50 clients, " + test, fmt.Sprintf("%.0f/s", m["agent"]),
			fmt.Sprintf("relay %.0f, direct %.0f", m["relay"], m["direct"]), fmt.Sprintf("%.2f of relay", m["agent"]/m["relay"]), "≥ 0.8 of relay"})
	}
	each := func(way string) float64 {
		return float64(spent[way].Nanoseconds()) / 1000 / float64(2*Rounds*commands)
	}
	return append(rows, Row{"redis-benchmark -P 16, CPU of the process a command", fmt.Sprintf("%.2f µs", each("agent")), fmt.Sprintf("relay %.2f µs", each("relay")),
		fmt.Sprintf("%.2f of relay", each("agent")/each("relay")), ""})
}

// cpu is the time that a process has had; 0 of none.
func cpu(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

var seconds = regexp.MustCompile(`Average number of seconds to run all queries: ([0-9.]+) seconds`)

// mysql is mysqlslap: to the agent in clear, because a mysql client begins TLS inside its protocol, which the listener does
// not; from there and without the agent over TLS.
func (r *run) mysql(ctx context.Context) []Row {
	s := mariadbserver.Start(r)
	s.Exec(r, "create user bench@'%' require x509; grant all on *.* to bench@'%'")
	client := r.files(s.Authority, s.Authority.Client("bench"))
	agent, _ := r.begin(place{Protocol: target.MySQL, Clear: true, Server: s.Addr, Client: client, Front: client, Dir: r.dir()})
	addrs := map[string]string{"direct": s.Addr, "agent": agent}
	var rows []Row
	const queries = 20000
	for _, clients := range []int{1, 16} {
		m := turns([]string{"agent", "direct"}, func(way string) float64 {
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
		rows = append(rows, Row{fmt.Sprintf("mysqlslap by key, %d clients", clients), fmt.Sprintf("%.0f/s", m["agent"]),
			fmt.Sprintf("direct %.0f", m["direct"]), fmt.Sprintf("%.2f of direct", m["agent"]/m["direct"]), ""})
	}
	return rows
}
