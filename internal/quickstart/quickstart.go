// Package quickstart plays the guide on this machine: a throw-away cluster, and the real programs.
package quickstart

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
)

const (
	person   = "myuser"
	nodeName = "ip-172-31-35-170"
	cluster  = "teleport.example.com"
)

// Command is `sallyport quickstart`.
func Command(s console.Streams) *cobra.Command {
	var keep bool
	c := &cobra.Command{Use: "quickstart", Short: "Play the guide on this machine, in a throw-away cluster", Args: cobra.NoArgs,
		Example: "  sallyport quickstart",
		RunE:    func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), s, keep) }}
	c.Flags().BoolVar(&keep, "keep", false, "stay up at the end, also where there is no terminal")
	return c
}

// play is one run of the guide.
type play struct {
	console.Streams
	dir      string
	bin      string
	env      []string
	login    string
	proxy    string
	pin      string
	password string
	tpm      tpm
	step     int
}

func run(ctx context.Context, s console.Streams, keep bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "sallyport-quickstart-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &play{Streams: s, dir: dir, bin: filepath.Dir(self), login: "root", password: rand.Text()}
	for _, name := range []string{"tctl", "tsh"} {
		if _, err := os.Stat(filepath.Join(p.bin, name)); err != nil {
			return fault.New(fault.NotFound, "%s is not beside %s", name, self).WithFix("make build")
		}
	}
	u, err := user.Current()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		p.login = u.Username
	}
	if p.tpm, err = findTPM(ctx, dir); err != nil {
		return err
	}
	defer p.tpm.stop()
	stop, err := p.start(ctx)
	if err != nil {
		return err
	}
	defer stop()
	p.introduce()
	if err := p.guide(ctx); err != nil {
		return err
	}
	return p.end(ctx, keep)
}

// introduce says how this cluster differs from the guide's.
func (p *play) introduce() {
	fmt.Fprintf(p.Out, "A throw-away cluster is up on %s, in %s. It differs from the guide's in this:\n", p.proxy, p.dir)
	fmt.Fprintln(p.Out, "  - second factors are off, and the password comes from standard input")
	fmt.Fprintf(p.Out, "  - the node is this machine, and the login there is %s\n", p.login)
	fmt.Fprintf(p.Out, "  - the trusted device's key: %s\n\n", p.tpm.about)
}

// start writes a config, runs the server and waits until it is up.
func (p *play) start(ctx context.Context) (stop func(), err error) {
	public, err := freePort()
	if err != nil {
		return nil, err
	}
	p.proxy = public
	data := filepath.Join(p.dir, "data")
	file := filepath.Join(p.dir, "sallyport.yaml")
	text := fmt.Sprintf("version: v1\ncluster_name: %s\nnode_name: %s\ndata_dir: %s\nauth:\n  enabled: true\n  listen: 127.0.0.1:0\n  authentication:\n    second_factors: []\n    device_trust: {mode: optional}\nproxy: {enabled: true, listen: \"%s\"}\nssh: {enabled: true}\n",
		cluster, nodeName, data, public)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p.env = append(os.Environ(), "SALLYPORT_DATA_DIR="+data, "TSH_HOME="+filepath.Join(p.dir, "tsh"), "TSH_TPM="+p.tpm.path,
		"PATH="+p.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	logFile, err := os.Create(filepath.Join(p.dir, "sallyport.log"))
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, "sallyport"), "start", "-c", file)
	cmd.Stderr, cmd.Env, cmd.Dir = logFile, p.env, p.dir
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		logFile.Close()
	}
	if err := p.ready(out); err != nil {
		stop()
		logged, _ := os.ReadFile(logFile.Name())
		return nil, fault.New(fault.Unavailable, "the server did not come up").WithCause("%s", lastLines(logged)).Wrapping(err)
	}
	return stop, nil
}

// ready reads what the server prints until it says what comes next, and its CA pin on the way.
func (p *play) ready(out io.Reader) error {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if pin, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "CA pin"); ok {
			p.pin = strings.TrimSpace(pin)
		}
		if strings.HasPrefix(lines.Text(), "Next:") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return nil
		}
	}
	return errors.Join(errors.New("it ended"), lines.Err())
}

func lastLines(raw []byte) string {
	lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
	return strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// freePort finds a loopback port that nothing holds.
func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// expected is what a command of the guide must come to.
type expected struct {
	code  int
	holds string // in what it prints
	input string // its standard input
	shown string // how it is shown, where that differs
}

// do shows a command as a shell line, runs it and shows what it printed.
func (p *play) do(ctx context.Context, want expected, name string, args ...string) ([]byte, error) {
	line := strings.Join(append([]string{name}, args...), " ")
	if want.shown != "" {
		line = want.shown
	}
	fmt.Fprintln(p.Out, "$ "+line)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(p.bin, name), args...)
	var both transcript
	var out bytes.Buffer
	cmd.Env, cmd.Dir, cmd.Stdin = p.env, p.dir, strings.NewReader(want.input)
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&both, &out), &both
	err := cmd.Run()
	printed := strings.TrimRight(strings.ReplaceAll(both.String(), "Password: \n", ""), "\n")
	if printed != "" {
		fmt.Fprintln(p.Out, printed)
	}
	fmt.Fprintln(p.Out)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	if code != want.code || !strings.Contains(both.String(), want.holds) {
		return nil, fault.New(fault.Unavailable, "the guide went another way at: %s", line).
			WithCause("exit status %d where %d was expected, printing %q where %q was expected", code, want.code, printed, want.holds)
	}
	return out.Bytes(), nil
}

// transcript takes what a program prints on both streams, in the order in which it comes.
type transcript struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write is of io.Writer.
func (t *transcript) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.Write(b)
}

// String is what came so far.
func (t *transcript) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.text.String()
}

func (p *play) title(format string, args ...any) {
	p.step++
	fmt.Fprintf(p.Out, "--- %d. %s ---\n", p.step, fmt.Sprintf(format, args...))
}

// end stays up for a person, and says how to go on.
func (p *play) end(ctx context.Context, keep bool) error {
	fmt.Fprintln(p.Out, "The guide came to its end: access without a device, the refusal, access from the enrolled device.")
	if !keep && !p.Interactive() {
		return nil
	}
	fmt.Fprintf(p.Out, "The cluster stays up until Ctrl-C. In another terminal:\n  export PATH=%s:$PATH SALLYPORT_DATA_DIR=%s TSH_HOME=%s TSH_TPM=%s\n  tsh ssh %s@%s\n  tctl devices ls\n  tctl audit ls\n",
		p.bin, filepath.Join(p.dir, "data"), filepath.Join(p.dir, "tsh"), p.tpm.path, p.login, nodeName)
	<-ctx.Done()
	return nil
}
