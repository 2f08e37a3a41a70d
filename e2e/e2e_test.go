// Package e2e runs the programs as scripts: one file a story, in testdata.
package e2e

import (
	"bufio"
	"context"
	"encoding/base32"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/daemon/command"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/kubeserver"
	"github.com/sallyport/sallyport/internal/quickstart"
	"github.com/sallyport/sallyport/internal/swtpm"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tctl/tool"
	"github.com/sallyport/sallyport/internal/tsh"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"tsh": program(func(ctx context.Context, s console.Streams) int { return tsh.Main(ctx, os.Args[1:], s) }),
		"tctl": program(func(ctx context.Context, s console.Streams) int {
			return tctl.Main(ctx, tool.Program{Streams: s, Login: tsh.Login(s)}, os.Args[1:])
		}),
		// otpcode prints the current code of the otpauth:// URL that it reads.
		"otpcode": func() {
			raw, err := io.ReadAll(os.Stdin)
			if err != nil {
				panic(err)
			}
			fmt.Println(login.OTP(otpSecret(string(raw)), time.Now()))
		},
		"sallyport": program(func(ctx context.Context, s console.Streams) int {
			return command.Main(ctx, s, os.Args[1:], quickstart.Command(s))
		}),
	})
}

func program(run func(context.Context, console.Streams) int) func() {
	return func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(run(ctx, console.Standard()))
	}
}

func TestScripts(t *testing.T) {
	for _, name := range []string{"swtpm", "swtpm_setup", "ssh", "scp", "ssh-keygen", "ssh-add", "psql", "mysql", "mariadb-install-db", "redis-server", "pgcli", "java", "node", "etcd", "tar", kubeserver.Bin("apiserver"), kubeserver.Bin("kubectl"), kubeserver.Bin("kubelet"), kubeserver.Bin("helm")} {
		peer.Need(t, name)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TSH_HOME", filepath.Join(e.WorkDir, "tsh"))
			e.Setenv("SALLYPORT_DATA_DIR", filepath.Join(e.WorkDir, "data"))
			e.Setenv("LANG", "C.UTF-8")
			e.Setenv("USER", "root")
			e.Setenv("TSH_TPM", filepath.Join(e.WorkDir, "no-tpm"))
			e.Setenv("TSH_DMI_DIR", filepath.Join(e.WorkDir, "dmi"))
			e.Setenv("PATH", e.Getenv("PATH")+":/usr/sbin")
			clients, err := filepath.Abs("../test/clients")
			if err != nil {
				return err
			}
			e.Setenv("CLIENTS", clients)
			deploy, err := filepath.Abs("../deploy")
			if err != nil {
				return err
			}
			e.Setenv("DEPLOY", deploy)
			e.Setenv("JARS", "/usr/share/java")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"start": cmdStart, "halt": cmdHalt, "tpm": cmdTPM, "boot": cmdBoot, "otp": cmdOTP, "eventually": cmdEventually, "status": cmdStatus, "setenvfrom": cmdSetenvFrom,
			"replace": cmdReplace, "dmi": cmdDMI, "signatures": cmdSignatures, "background": cmdBackground, "chip": cmdChip,
			"kube": cmdKube, "echoes": cmdEchoes, "through": cmdThrough, "gone": cmdGone, "ended": cmdEnded, "aggregate": cmdAggregate, "database": cmdDatabase, "sql": cmdSQL, "open": cmdOpen, "say": cmdSay, "interrupt": cmdInterrupt, "printed": cmdPrinted,
			"network": cmdNetwork, "cable": cmdCable, "signal": cmdSignal, "within": cmdWithin, "disk": cmdDisk,
		},
		Condition: func(c string) (bool, error) {
			if c == "root" { // network namespaces and small disks are root's to make
				return os.Geteuid() == 0 || os.Getenv("REQUIRE_PEERS") != "", nil // then the script itself fails
			}
			if c == "kubectl-old" { // Debian's, where apt could fetch it
				_, err := os.Stat(kubeserver.Bin(c))
				return err == nil || os.Getenv("REQUIRE_PEERS") != "", nil
			}
			return false, fmt.Errorf("unknown condition %q", c)
		},
	})
}

// running is a server that a script started.
type running struct {
	cmd  *exec.Cmd
	done chan error
}

// servers are the running ones by script and name.
var (
	serversMu sync.Mutex
	servers   = map[*testscript.TestScript]map[string]*running{} // guarded by serversMu
)

// keep remembers a server, and with a script's first one to end them all with the script.
func keep(ts *testscript.TestScript, name string, r *running) {
	serversMu.Lock()
	defer serversMu.Unlock()
	if servers[ts] == nil {
		servers[ts] = map[string]*running{}
		ts.Defer(func() {
			for _, r := range forget(ts, "") {
				r.stop()
			}
		})
	}
	servers[ts][name] = r
}

// forget takes a script's server off the list, or all of them for an empty name.
func forget(ts *testscript.TestScript, name string) []*running {
	serversMu.Lock()
	defer serversMu.Unlock()
	var out []*running
	for n, r := range servers[ts] {
		if name == "" || n == name {
			out = append(out, r)
			delete(servers[ts], n)
		}
	}
	return out
}

// cmdStart starts `sallyport start ARGS` as NAME and waits until it is up; PROXY, PIN and AUTH are set from what it
// prints.
func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 || neg {
		ts.Fatalf("usage: start NAME args...")
	}
	name := args[0]
	line := append([]string{programPath(ts, "sallyport"), "start"}, args[1:]...)
	if ns := ts.Getenv("NETNS"); ns != "" {
		line = append([]string{"ip", "netns", "exec", ns}, line...)
	}
	if pod := ts.Getenv("POD"); pod != "" { // a script that makes a mount namespace of its own into what a pod sees
		line = append([]string{"unshare", "-m", "sh", pod}, line...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Dir = ts.Getenv("WORK")
	for _, k := range []string{"HOME", "SALLYPORT_DATA_DIR", "PATH", "LANG", "TMPDIR", "USER"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	log, err := os.Create(filepath.Join(ts.Getenv("WORK"), name+".log"))
	ts.Check(err)
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	r := &running{cmd: cmd, done: make(chan error, 1)}
	ready := make(chan bool, 1)
	go func() {
		var seen strings.Builder
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			seen.WriteString(lines.Text() + "\n")
			if strings.Contains(lines.Text(), "CA pin") {
				_ = os.WriteFile(filepath.Join(ts.Getenv("WORK"), name+".out"), []byte(seen.String()), 0o600)
				ready <- true
				_, _ = io.Copy(io.Discard, out)
			}
		}
		close(ready)
		r.done <- cmd.Wait()
	}()
	select {
	case ok := <-ready:
		if !ok {
			raw, _ := os.ReadFile(log.Name())
			ts.Fatalf("%s did not come up:\n%s", name, raw)
		}
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		ts.Fatalf("%s did not come up in time", name)
	}
	keep(ts, name, r)
	raw, err := os.ReadFile(filepath.Join(ts.Getenv("WORK"), name+".out"))
	ts.Check(err)
	for env, re := range map[string]string{"PIN": `CA pin +(sha256:\S+)`, "PROXY": `people type ([^)]+)\)`, "AUTH": `auth +([^,]+), admin`} {
		if m := regexp.MustCompile(re).FindSubmatch(raw); m != nil {
			ts.Setenv(env, string(m[1]))
		}
	}
}

func (r *running) stop() {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-r.done:
	case <-time.After(15 * time.Second):
		_ = r.cmd.Process.Kill()
	}
}

// cmdHalt stops a server: in order, or with kill as -9.
func cmdHalt(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: halt NAME [kill]")
	}
	found := forget(ts, args[0])
	if len(found) == 0 {
		ts.Fatalf("no server %s", args[0])
	}
	r := found[0]
	if len(args) > 1 {
		_ = r.cmd.Process.Kill()
		<-r.done
		return
	}
	r.stop()
}

// cmdTPM makes an emulated TPM and puts its socket in the variable NAME: a machine of its own. With `cert` its EK has
// a certificate, whose authorities are written to NAME.pem.
func cmdTPM(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 1 {
		ts.Fatalf("usage: tpm NAME [cert]")
	}
	dir, err := os.MkdirTemp("", "tpm")
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	o := swtpm.Options{}
	if len(args) > 1 {
		o.EKCert, o.CA = true, swtpm.NewCA(asTB{ts})
	}
	s, err := swtpm.Launch(dir, o)
	ts.Check(err)
	ts.Defer(func() { s.Close() })
	ts.Setenv(args[0], s.Socket)
	emulators.Store(s.Socket, s)
	if o.EKCert {
		pem, err := s.CA.PEM()
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(ts.Getenv("WORK"), args[0]+".pem"), pem, 0o600))
	}
}

// emulators are the TPMs by their sockets, and signed how often each had signed when it was last asked.
var emulators, signed sync.Map

// cmdSignatures compares how often the TPM in a variable has signed (TPM2_Sign) since it was last asked: signatures
// NAME N; without N it only begins to count.
func cmdSignatures(ts *testscript.TestScript, _ bool, args []string) {
	v, ok := emulators.Load(ts.Getenv(args[0]))
	if !ok {
		ts.Fatalf("no TPM %s", args[0])
	}
	n := v.(*swtpm.Emulator).Count(tpm2.TPMCCSign)
	before, _ := signed.Swap(args[0], n)
	if len(args) == 1 {
		return
	}
	if got := fmt.Sprint(n - before.(int)); got != args[1] {
		ts.Fatalf("the TPM signed %s times, want %s", got, args[1])
	}
}

// cmdBackground starts a program that is ended with the script, and waits until FILE exists: background FILE cmd...
func cmdBackground(ts *testscript.TestScript, _ bool, args []string) {
	exe := programPath(ts, args[1])
	cmd := exec.Command(exe, args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	for _, k := range []string{"HOME", "TSH_HOME", "TSH_TPM", "PATH", "LANG", "USER"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	for range 100 {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s did not appear", args[0])
}

// cmdDMI writes what the machine says of itself: dmi SERIAL.
func cmdDMI(ts *testscript.TestScript, _ bool, args []string) {
	dir := filepath.Join(ts.Getenv("WORK"), "dmi")
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.WriteFile(filepath.Join(dir, "product_serial"), []byte(args[0]+"\n"), 0o644))
	ts.Setenv("TSH_DMI_DIR", dir)
}

// asTB lets a script be what the emulator asks of a test.
type asTB struct{ ts *testscript.TestScript }

func (a asTB) Helper()           {}
func (a asTB) Fatal(args ...any) { a.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (a asTB) Skip(args ...any)  { a.ts.Fatalf("%s", fmt.Sprint(args...)) }
func (a asTB) Cleanup(f func())  { a.ts.Defer(f) }

// cmdOTP puts the current code of the otpauth:// URL in a file into the variable OTP; next waits for the step after.
func cmdOTP(ts *testscript.TestScript, _ bool, args []string) {
	secret := otpSecret(ts.ReadFile(args[0]))
	at := time.Now()
	if len(args) > 1 {
		at = at.Add(30 * time.Second) // the next step's code is taken too, and was not used
	}
	ts.Setenv("OTP", login.OTP(secret, at))
}

// cmdEventually runs a command until it succeeds, for ten seconds; `eventually ! cmd` until it fails.
func cmdEventually(ts *testscript.TestScript, _ bool, args []string) {
	eventually(ts, 10*time.Second, args)
}

func eventually(ts *testscript.TestScript, limit time.Duration, args []string) {
	want := true
	if args[0] == "!" {
		want, args = false, args[1:]
	}
	deadline := time.Now().Add(limit)
	for {
		err := ts.Exec(args[0], args[1:]...)
		if (err == nil) == want {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v: it never came to be: %v", args, err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// cmdStatus runs a command and compares its exit status: status 255 tsh ssh ...
func cmdStatus(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if e, ok := err.(*exec.ExitError); ok {
		code = e.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("%v: exit status %d, want %s", args[1:], code, args[0])
	}
}

// cmdSetenvFrom sets a variable from the first group of a pattern in a file (or stdout): setenvfrom VAR FILE PATTERN.
func cmdSetenvFrom(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[2]).FindStringSubmatch(ts.ReadFile(args[1]))
	if m == nil {
		ts.Fatalf("%q does not match", args[2])
	}
	ts.Setenv(args[0], m[1])
}

// cmdReplace replaces a text in a file: replace FILE OLD NEW, with \n for new lines.
func cmdReplace(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	from, to := strings.ReplaceAll(args[1], `\n`, "\n"), strings.ReplaceAll(args[2], `\n`, "\n")
	if !strings.Contains(text, from) {
		ts.Fatalf("%s does not hold %q", args[0], from)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Replace(text, from, to, 1)), 0o600))
}

// otpSecret finds the secret of the otpauth:// URL in a text.
func otpSecret(text string) []byte {
	u, err := url.Parse(regexp.MustCompile(`otpauth://\S+`).FindString(text))
	if err != nil {
		panic(err)
	}
	secret, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		panic(err)
	}
	return secret
}
