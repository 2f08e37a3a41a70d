package postgres

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport/sallyport/internal/peer/pgserver"
)

// Row is a line of the table.
type Row struct{ What, Value, Beside, Ratio, Goal string }

// way is one way to the server.
type way struct {
	name, addr string
	pid        int
	direct     bool
}

// bench is a server with what stands before it.
type bench struct {
	pg     *pgserver.Server
	dir    string
	client files
	ways   []*way
	stop   []func()
}

// Seconds is how long one run of pgbench takes, and Rounds how many there are.
var (
	Seconds = 5
	Rounds  = 3
)

// Run measures.
func Run(ctx context.Context) ([]Row, error) {
	b, err := open()
	if err != nil {
		return nil, err
	}
	defer b.close()
	var rows []Row
	for _, f := range []func(context.Context) ([]Row, error){b.selects, b.updates, b.stream, b.latency, b.connects, b.idle} {
		r, err := f(ctx)
		if err != nil {
			return nil, err
		}
		rows = append(rows, r...)
	}
	return rows, nil
}

func open() (b *bench, err error) {
	b = &bench{}
	defer func() {
		if err != nil {
			b.close()
		}
	}()
	if b.dir, err = os.MkdirTemp("", "benchpg"); err != nil {
		return nil, err
	}
	if err := os.Chmod(b.dir, 0o755); err != nil {
		return nil, err
	}
	if b.pg, err = pgserver.Start("fsync = on", "max_connections = 400", "shared_buffers = 256MB"); err != nil {
		return nil, err
	}
	if _, err := b.pg.Admin("postgres", "CREATE ROLE bench LOGIN; CREATE DATABASE bench OWNER bench;"); err != nil {
		return nil, err
	}
	if b.client.Cert, b.client.Key, b.client.CA, err = b.pg.Files("bench"); err != nil {
		return nil, err
	}
	b.ways = []*way{{name: "direct", addr: b.pg.Addr, direct: true}}
	for _, name := range []string{"agent", "pgbouncer", "relay"} {
		w, err := b.process(name)
		if err != nil {
			return nil, err
		}
		b.ways = append(b.ways, w)
	}
	if out, err := b.command(b.ways[0], "pgbench", "-i", "-s", "10", "-q").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return b, nil
}

func (b *bench) close() {
	for _, f := range slices.Backward(b.stop) {
		f()
	}
	if b.pg != nil {
		b.pg.Stop()
	}
	_ = os.RemoveAll(b.dir)
}

func (b *bench) way(name string) *way {
	return b.ways[slices.IndexFunc(b.ways, func(w *way) bool { return w.name == name })]
}

func (b *bench) process(name string) (*way, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	var c *exec.Cmd
	if name == "pgbouncer" {
		c, err = b.bouncer(addr)
	} else {
		c, err = b.self(name, addr)
	}
	if err != nil {
		return nil, err
	}
	var said bytes.Buffer
	c.Stderr = &said
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	b.stop = append(b.stop, func() {
		_ = in.Close()
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait()
	})
	w := &way{name: name, addr: addr, pid: c.Process.Pid}
	for range 100 {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			return w, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%s does not listen: %s", name, said.String())
}

func (b *bench) self(name, addr string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := place{Copy: name == "relay", Listen: addr, Server: b.pg.Addr, Dir: filepath.Join(b.dir, "audit"), Files: b.client,
		Front: files{Cert: filepath.Join(b.pg.Dir, "server.pem"), Key: filepath.Join(b.pg.Dir, "server.key")}}
	c := exec.Command(self)
	c.Env = append(os.Environ(), p.String())
	return c, nil
}

func (b *bench) command(w *way, name string, args ...string) *exec.Cmd {
	host, port, _ := net.SplitHostPort(w.addr)
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), "PGHOST="+host, "PGPORT="+port, "PGUSER=bench", "PGDATABASE=bench", "PGSSLMODE=require", "PGGSSENCMODE=disable")
	if w.direct {
		c.Env = append(c.Env, "PGSSLCERT="+b.client.Cert, "PGSSLKEY="+b.client.Key)
	}
	return c
}

var tps = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// pgbench is transactions a second.
func (b *bench) pgbench(w *way, clients int, args ...string) (float64, error) {
	threads := min(clients, 2)
	out, err := b.command(w, "pgbench", append([]string{"-n", "-T", fmt.Sprint(Seconds), "-c", fmt.Sprint(clients), "-j", fmt.Sprint(threads)}, args...)...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("pgbench through %s: %w: %s", w.name, err, out)
	}
	m := tps.FindSubmatch(out)
	if m == nil || bytes.Contains(out, []byte("number of failed transactions: 0")) == false {
		return 0, fmt.Errorf("pgbench through %s: %s", w.name, out)
	}
	return strconv.ParseFloat(string(m[1]), 64)
}

// turns measures every way in turn, and gives the median of each.
func (b *bench) turns(f func(w *way) (float64, error)) (map[string]float64, error) {
	all := map[string][]float64{}
	for range Rounds {
		for _, w := range b.ways {
			v, err := f(w)
			if err != nil {
				return nil, err
			}
			all[w.name] = append(all[w.name], v)
		}
	}
	out := map[string]float64{}
	for name, v := range all {
		slices.Sort(v)
		out[name] = v[len(v)/2]
	}
	return out, nil
}

func beside(m map[string]float64, format string) string {
	var s []string
	for _, name := range []string{"direct", "pgbouncer", "relay"} {
		s = append(s, fmt.Sprintf("%s "+format, name, m[name]))
	}
	return strings.Join(s, ", ")
}

func ratios(m map[string]float64) string {
	return fmt.Sprintf("%.2f × direct, %.2f × pgbouncer, %.2f × relay", m["agent"]/m["direct"], m["agent"]/m["pgbouncer"], m["agent"]/m["relay"])
}

func (b *bench) selects(context.Context) ([]Row, error) {
	var rows []Row
	for clients, goal := range map[int]string{1: "≥ 0.70 × pgbouncer", 16: "≥ 0.85 × pgbouncer", 64: "≥ 0.85 × pgbouncer"} {
		used := map[string][]float64{}
		m, err := b.turns(func(w *way) (float64, error) {
			before := cpuTime(w.pid)
			v, err := b.pgbench(w, clients, "-S")
			used[w.name] = append(used[w.name], float64((cpuTime(w.pid)-before).Microseconds())/(v*float64(Seconds)))
			return v, err
		})
		if err != nil {
			return nil, err
		}
		cost := func(name string) float64 {
			slices.Sort(used[name])
			return used[name][len(used[name])/2]
		}
		rows = append(rows, Row{fmt.Sprintf("PostgreSQL: pgbench -S, %d clients, statements a second", clients), fmt.Sprintf("%.0f", m["agent"]), beside(m, "%.0f"), ratios(m), goal},
			Row{fmt.Sprintf("PostgreSQL: the agent's processor time a statement, %d clients", clients), fmt.Sprintf("%.1f µs", cost("agent")),
				fmt.Sprintf("pgbouncer %.1f µs, relay %.1f µs", cost("pgbouncer"), cost("relay")), "", "≤ 35 µs"})
	}
	slices.SortFunc(rows, func(a, b Row) int { return len(a.What) - len(b.What) })
	return rows, nil
}

func (b *bench) updates(context.Context) ([]Row, error) {
	m, err := b.turns(func(w *way) (float64, error) { return b.pgbench(w, 16) })
	return []Row{{"PostgreSQL: pgbench TPC-B, 16 clients, transactions a second", fmt.Sprintf("%.0f", m["agent"]), beside(m, "%.0f"), ratios(m), "≥ 0.60 × direct"}}, err
}

// connect is one connection of the bench's own.
func (b *bench) connect(ctx context.Context, w *way) (*pgconn.PgConn, error) {
	c, err := pgconn.ParseConfig("postgres://bench@" + w.addr + "/bench?sslmode=require&connect_timeout=10")
	if err != nil {
		return nil, err
	}
	c.TLSConfig = &tls.Config{ServerName: "db.example.com"}
	if c.TLSConfig.RootCAs, err = pool(b.client.CA); err != nil {
		return nil, err
	}
	if w.direct {
		cert, err := tls.LoadX509KeyPair(b.client.Cert, b.client.Key)
		if err != nil {
			return nil, err
		}
		c.TLSConfig.Certificates = []tls.Certificate{cert}
	}
	c.Fallbacks = nil
	return pgconn.ConnectConfig(ctx, c)
}

// stream reads a long result, in MB a second.
func (b *bench) stream(ctx context.Context) ([]Row, error) {
	const rows = 1_000_000
	m, err := b.turns(func(w *way) (float64, error) {
		c, err := b.connect(ctx, w)
		if err != nil {
			return 0, err
		}
		defer c.Close(ctx)
		began, n, size := time.Now(), 0, 0
		for r := c.Exec(ctx, fmt.Sprintf("SELECT aid, bid, abalance, filler FROM pgbench_accounts LIMIT %d", rows)); r.NextResult(); {
			for reader := r.ResultReader(); reader.NextRow(); n++ {
				for _, v := range reader.Values() {
					size += len(v)
				}
			}
		}
		if n != rows {
			return 0, fmt.Errorf("%d rows through %s", n, w.name)
		}
		return float64(size) / 1e6 / time.Since(began).Seconds(), nil
	})
	return []Row{{"PostgreSQL: a result of 1,000,000 rows (100 bytes), MB a second", fmt.Sprintf("%.0f", m["agent"]), beside(m, "%.0f"), ratios(m), "≥ 0.60 × direct"}}, err
}

// latency compares medians of single statements, one after another, the ways in turn.
func (b *bench) latency(ctx context.Context) ([]Row, error) {
	took := map[string][]float64{}
	conns := map[string]*pgconn.PgConn{}
	for _, w := range b.ways {
		c, err := b.connect(ctx, w)
		if err != nil {
			return nil, err
		}
		defer c.Close(ctx)
		conns[w.name] = c
	}
	for i := range 40 {
		for _, w := range b.ways {
			for range 100 {
				began := time.Now()
				if _, err := conns[w.name].Exec(ctx, "SELECT abalance FROM pgbench_accounts WHERE aid = 4711").ReadAll(); err != nil {
					return nil, err
				}
				if i > 3 {
					took[w.name] = append(took[w.name], float64(time.Since(began).Nanoseconds())/1000)
				}
			}
		}
	}
	m := map[string]float64{}
	for name, v := range took {
		slices.Sort(v)
		m[name] = v[len(v)/2]
	}
	return []Row{{"PostgreSQL: latency of a statement, p50", fmt.Sprintf("%.0f µs", m["agent"]), beside(m, "%.0f µs"), fmt.Sprintf("+%.0f µs (pgbouncer +%.0f, relay +%.0f)",
		m["agent"]-m["direct"], m["pgbouncer"]-m["direct"], m["relay"]-m["direct"]), "≤ 60 µs added"}}, nil
}

func (b *bench) connects(ctx context.Context) ([]Row, error) {
	took := map[string][]float64{}
	for i := range 60 {
		for _, w := range b.ways {
			began := time.Now()
			c, err := b.connect(ctx, w)
			if err != nil {
				return nil, err
			}
			if i > 5 {
				took[w.name] = append(took[w.name], float64(time.Since(began).Microseconds())/1000)
			}
			c.Close(ctx)
		}
	}
	m := map[string]float64{}
	for name, v := range took {
		slices.Sort(v)
		m[name] = v[len(v)/2]
	}
	return []Row{{"PostgreSQL: a new connection", fmt.Sprintf("%.1f ms", m["agent"]), beside(m, "%.1f ms"), fmt.Sprintf("+%.1f ms", m["agent"]-m["direct"]), "≤ 10 ms over direct"}}, nil
}

// idle opens connections that ran one statement, and reads what the processes have grown by.
func (b *bench) idle(ctx context.Context) ([]Row, error) {
	const n = 150
	m := map[string]float64{}
	for _, w := range b.ways[1:] {
		before, err := rss(w.pid)
		if err != nil {
			return nil, err
		}
		var open []*pgconn.PgConn
		for range n {
			c, err := b.connect(ctx, w)
			if err != nil {
				return nil, err
			}
			open = append(open, c)
			if _, err := c.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
				return nil, err
			}
		}
		time.Sleep(2 * time.Second)
		after, err := rss(w.pid)
		if err != nil {
			return nil, err
		}
		m[w.name] = (after - before) / n / 1000
		for _, c := range open {
			c.Close(ctx)
		}
	}
	return []Row{{fmt.Sprintf("PostgreSQL: resident memory an idle connection, of %d", n), fmt.Sprintf("%.0f kB", m["agent"]), fmt.Sprintf("pgbouncer %.0f kB, relay %.0f kB", m["pgbouncer"], m["relay"]), "", "≤ 100 kB"}}, nil
}

func rss(pid int) (float64, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	pages, err := strconv.ParseFloat(strings.Fields(string(raw))[1], 64)
	return pages * float64(os.Getpagesize()), err
}

// cpuTime is what a process has used, in ticks of 10 ms; nothing for none.
func cpuTime(pid int) time.Duration {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[bytes.LastIndexByte(raw, ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

func pool(file string) (*x509.CertPool, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p := x509.NewCertPool()
	if !p.AppendCertsFromPEM(raw) {
		return nil, fmt.Errorf("%s has no certificate in it", file)
	}
	return p, nil
}
