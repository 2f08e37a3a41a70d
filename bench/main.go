// Command bench measures the programs in bin/ beside their peers, in one run, and prints a table.
//
// Arguments name the groups of figures to measure, all of them without any.
//
// Each figure is the median of repeated runs. Nothing here passes or fails: a figure that is not reached stands in
// the table as it is.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/bench/doors"
	"github.com/sallyport/sallyport/bench/kube"
	"github.com/sallyport/sallyport/bench/path"
	"github.com/sallyport/sallyport/bench/postgres"
	"github.com/sallyport/sallyport/internal/timerslack"
)

func main() {
	for env, serve := range map[string]func() error{postgres.Env: postgres.Serve, doors.Env: doors.Serve, kube.Env: kube.Serve, path.Env: path.Serve} {
		if os.Getenv(env) != "" { // an agent or a relay of the bench's own, which has what the daemon has
			fmt.Fprintln(os.Stderr, "bench:", errors.Join(timerslack.Relax(context.Background()), serve()))
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := errors.Join(quietShell(), run(ctx)); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// row is a line of the table.
type row struct{ What, Value, Beside, Ratio, Goal string }

func run(ctx context.Context) error {
	bin, err := filepath.Abs("bin")
	if err != nil {
		return err
	}
	rows, err := doorRows(ctx, bin)
	if err != nil {
		return err
	}
	if len(os.Args) == 2 && len(rows) > 0 {
		print(rows)
		return nil
	}
	w, err := newWorld(ctx, bin)
	if err != nil {
		return err
	}
	defer w.close()
	for _, g := range []struct {
		name string
		run  func(context.Context) ([]row, error)
	}{{"start", w.start}, {"size", w.size}, {"session", w.session}, {"login", w.login}, {"decide", w.decide}, {"sessions", w.sessions},
		{"memory", w.memory}, {"proofs", w.proofs}, {"fleet", w.fleet}, {"admission", w.admission}, {"cuts", w.cuts}, {"heartbeats", w.heartbeats}} {
		if len(os.Args) > 1 && !slices.Contains(os.Args[1:], g.name) {
			continue
		}
		r, err := g.run(ctx)
		if err != nil {
			return fmt.Errorf("%s: %w", g.name, err)
		}
		rows = append(rows, r...)
	}
	print(rows)
	return nil
}

// doorRows are the figures of databases, each with servers of its own.
func doorRows(ctx context.Context, bin string) ([]row, error) {
	var rows []row
	wanted := func(name string) bool { return len(os.Args) == 1 || slices.Contains(os.Args[1:], name) }
	if wanted("postgres") {
		got, err := postgres.Run(ctx)
		if err != nil {
			return nil, fmt.Errorf("postgres: %w", err)
		}
		for _, r := range got {
			rows = append(rows, row(r))
		}
	}
	if wanted("doors") {
		if os.Getenv("BENCH_SMALL") != "" {
			doors.Rounds = 1
		}
		got, err := doors.Run(ctx)
		if err != nil {
			return nil, fmt.Errorf("doors: %w", err)
		}
		for _, r := range got {
			rows = append(rows, row(r))
		}
	}
	if wanted("kube") {
		size := kube.Full
		if os.Getenv("BENCH_SMALL") != "" { // to see that it runs
			size = kube.Small
		}
		got, err := kubeRows(ctx, bin, size)
		if err != nil {
			return nil, fmt.Errorf("kube: %w", err)
		}
		rows = append(rows, got...)
	}
	if !wanted("path") {
		return rows, nil
	}
	w, err := newWorld(ctx, bin)
	if err != nil {
		return nil, err
	}
	defer w.close()
	out, err := os.ReadFile(filepath.Join(w.dir, "data.out"))
	if err != nil {
		return nil, err
	}
	got, err := path.Run(ctx, path.World{Dir: w.dir, Bin: bin, Env: w.env, Out: string(out), Run: w.run})
	if err != nil {
		return nil, fmt.Errorf("path: %w", err)
	}
	for _, r := range got {
		rows = append(rows, row(r))
	}
	return rows, nil
}

// kubeRows are those at the agent itself, and those of the whole path.
func kubeRows(ctx context.Context, bin string, size kube.Size) ([]row, error) {
	got, err := kube.Run(ctx, size)
	if err != nil {
		return nil, err
	}
	w, err := newWorld(ctx, bin)
	if err != nil {
		return nil, err
	}
	defer w.close()
	out, err := os.ReadFile(filepath.Join(w.dir, "data.out"))
	if err != nil {
		return nil, err
	}
	whole, err := kube.Path(ctx, path.World{Dir: w.dir, Bin: bin, Env: w.env, Out: string(out), Run: w.run}, size)
	var rows []row
	for _, r := range append(got, whole...) {
		rows = append(rows, row(r))
	}
	return rows, err
}

func print(rows []row) {
	fmt.Printf("Machine: %s, %d cores, %s/%s, %s\n\n", cpu(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	fmt.Println("| what | median | beside | ratio | goal |")
	fmt.Println("|---|---|---|---|---|")
	for _, r := range rows {
		fmt.Printf("| %s | %s | %s | %s | %s |\n", r.What, r.Value, r.Beside, r.Ratio, r.Goal)
	}
}

func cpu() string {
	raw, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown processor"
	}
	if m := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(raw); m != nil {
		return string(m[1])
	}
	return "unknown processor"
}

// median of n runs after one warm-up.
func median(n int, f func() error) (time.Duration, error) {
	if err := f(); err != nil {
		return 0, err
	}
	var all []time.Duration
	for range n {
		began := time.Now()
		if err := f(); err != nil {
			return 0, err
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	return all[len(all)/2], nil
}

// pair measures two in turn, so that a machine whose speed drifts drifts for both.
func pair(n int, a, b func() error) (time.Duration, time.Duration, error) {
	var as, bs []time.Duration
	for i := range n + 1 {
		for _, x := range []struct {
			f  func() error
			to *[]time.Duration
		}{{a, &as}, {b, &bs}} {
			began := time.Now()
			if err := x.f(); err != nil {
				return 0, 0, err
			}
			if i > 0 {
				*x.to = append(*x.to, time.Since(began))
			}
		}
	}
	slices.Sort(as)
	slices.Sort(bs)
	return as[n/2], bs[n/2], nil
}

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func ratio(a, b time.Duration) string { return fmt.Sprintf("%.2f", float64(a)/float64(b)) }

func (w *world) start(ctx context.Context) ([]row, error) {
	d, err := median(30, func() error { return w.run(ctx, "", "tsh", "version") })
	if err != nil {
		return nil, err
	}
	empty, err := median(30, func() error { return exec.CommandContext(ctx, "/bin/true").Run() })
	rows := []row{{"`tsh version`, cold", ms(d), "/bin/true " + ms(empty), ratio(d, empty), "≤ 8 ms"}}
	for _, program := range []string{"tsh", "tctl", "sallyport"} {
		name, took, err2 := slowestInit(ctx, filepath.Join(w.bin, program))
		rows = append(rows, row{program + ": the slowest package init, " + name, ms(took), "", "", "≤ 1 ms"})
		err = errors.Join(err, err2)
	}
	return rows, err
}

var initLine = regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, ([0-9.]+) ms clock`)

// slowestInit is the package of a program whose initialization takes longest, by the median of ten starts.
func slowestInit(ctx context.Context, program string) (name string, took time.Duration, err error) {
	all := map[string][]time.Duration{}
	for range 10 {
		c := exec.CommandContext(ctx, program, "version")
		c.Env = append(os.Environ(), "GODEBUG=inittrace=1")
		var said bytes.Buffer
		c.Stderr = &said
		if err := c.Run(); err != nil {
			return "", 0, err
		}
		for _, m := range initLine.FindAllStringSubmatch(said.String(), -1) {
			d, err := time.ParseDuration(m[2] + "ms")
			if err != nil {
				return "", 0, err
			}
			all[m[1]] = append(all[m[1]], d)
		}
	}
	for p, list := range all {
		slices.Sort(list)
		if d := list[len(list)/2]; d >= took {
			name, took = p, d
		}
	}
	if name == "" {
		err = fmt.Errorf("%s says nothing of its packages", program)
	}
	return name, took, err
}

func (w *world) size(context.Context) ([]row, error) {
	st, err := os.Stat(filepath.Join(w.bin, "tsh"))
	if err != nil {
		return nil, err
	}
	return []row{{"tsh, stripped", fmt.Sprintf("%.1f MB", float64(st.Size())/1e6), "", "", "≤ 20 MB"}}, nil
}

// session compares tsh through proxy and tunnel, with the key in the TPM, with ssh straight to sshd with a key file.
func (w *world) session(ctx context.Context) ([]row, error) {
	a, b, err := pair(20,
		func() error { return w.run(ctx, "", "tsh", "ssh", "root@web", "true") },
		func() error { return w.stock(ctx) })
	if err != nil {
		return nil, err
	}
	return []row{{"`tsh ssh web true`, key in swtpm, through the proxy", ms(a), "ssh to sshd, key file: " + ms(b), ratio(a, b), "≤ 0.5 ×"}}, nil
}

// quietShell runs the benchmark anew where root's .bashrc is empty, in a mount namespace of its own: bash reads that
// file for remote shells, and what a machine has in it would drown what is measured, for both sides.
func quietShell() error {
	rc := filepath.Join(os.Getenv("HOME"), ".bashrc")
	if _, err := os.Stat(rc); err != nil || os.Geteuid() != 0 || os.Getenv("BENCH_QUIET") != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	unshare, err := exec.LookPath("unshare")
	if err != nil {
		fmt.Println("unshare is not there: root's .bashrc is part of what is measured")
		return nil
	}
	return syscall.Exec(unshare, append([]string{"unshare", "-m", "sh", "-c", "mount --bind /dev/null \"$1\" && shift && exec \"$0\" \"$@\"", self, rc}, os.Args[1:]...), append(os.Environ(), "BENCH_QUIET=1"))
}

// login compares a login with device proof with one without.
func (w *world) login(ctx context.Context) ([]row, error) {
	a, b, err := pair(15,
		func() error { return w.run(ctx, password, "tsh", "login", "--user=alice") },
		func() error { return w.plain().run(ctx, password, "tsh", "login", "--user=alice") })
	if err != nil {
		return nil, err
	}
	return []row{{"login with device proof, swtpm", ms(a), "without: " + ms(b), "+" + ms(a-b), "≤ 60 ms more"}}, nil
}

func (w *world) decide(ctx context.Context) ([]row, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "./internal/access", "-run", "^$", "-bench", "Decide20Roles", "-count", "5").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var all []float64
	for _, m := range regexp.MustCompile(`([0-9.]+) ns/op`).FindAllSubmatch(out, -1) {
		v, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	if len(all) == 0 {
		return nil, errors.New("no benchmark of access.Decide")
	}
	slices.Sort(all)
	return []row{{"`access.Decide`, 20 roles", fmt.Sprintf("%.2f µs", all[len(all)/2]/1000), "", "", "≤ 2 µs"}}, nil
}

// sessions counts whole sessions (dial, handshake, gate, command, end) with a key in a file.
func (w *world) sessions(ctx context.Context) ([]row, error) {
	p := w.plain()
	one := func() error { return p.run(ctx, "", "tsh", "ssh", "root@web", "true") }
	if err := one(); err != nil {
		return nil, err
	}
	const n = 100
	rate := func(at int) (string, error) {
		began := time.Now()
		work, errs := make(chan int), make(chan error, at)
		var wg sync.WaitGroup
		for range at {
			wg.Go(func() {
				for range work {
					if err := one(); err != nil {
						errs <- err
						return
					}
				}
			})
		}
		for i := range n {
			select {
			case work <- i:
			case err := <-errs:
				close(work)
				wg.Wait()
				return "", err
			}
		}
		close(work)
		wg.Wait()
		return fmt.Sprintf("%.0f/s", n/time.Since(began).Seconds()), nil
	}
	seq, err := rate(1)
	if err != nil {
		return nil, err
	}
	many, err := rate(50)
	return []row{{"sessions started (`tsh ssh` processes), one after another", seq, "", "", ""}, {"the same, 50 at once", many, "", "", ""}}, err
}

func (w *world) memory(context.Context) ([]row, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.idle.Process.Pid))
	if err != nil {
		return nil, err
	}
	m := regexp.MustCompile(`VmRSS:\s*(\d+) kB`).FindSubmatch(raw)
	if m == nil {
		return nil, errors.New("no VmRSS")
	}
	kb, err := strconv.Atoi(string(m[1]))
	return []row{{"server, RSS idle (auth, proxy, node)", fmt.Sprintf("%.0f MB", float64(kb)/1e3), "", "", "≤ 60 MB"}}, err
}

// stock runs ssh against sshd.
func (w *world) stock(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "ssh", "-F", "none", "-i", filepath.Join(w.dir, "id"), "-p", w.sshdPort, "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
		"-o", "UserKnownHostsFile="+filepath.Join(w.dir, "known"), "-o", "LogLevel=ERROR", "root@127.0.0.1", "true")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ssh: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}
