//go:build linux

package shell

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/timerslack"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sftp-server" {
		if ServeSFTP(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// me is the login that runs the test.
func me(t *testing.T) *Login {
	t.Helper()
	name, err := exec.Command("id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	l, err := Lookup(strings.TrimSpace(string(name)))
	if err != nil {
		t.Fatal(err)
	}
	l.Shell = "/bin/sh"
	return l
}

// stranger is a login without rights, where this test may become one.
func stranger(t *testing.T) *Login {
	t.Helper()
	peer.Root(t)
	return &Login{Name: "nobody", UID: 65534, GID: 65534, Groups: []uint32{12345}, Home: "/", Shell: "/bin/sh"}
}

func run(t *testing.T, s Spec) (string, Exit) {
	t.Helper()
	p, err := Start(s)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.Stdin.Close()
	out, err := io.ReadAll(p.Stdout)
	if err != nil {
		t.Error(err)
	}
	return string(out), p.Wait()
}

func TestEnvironmentIsMadeFromNothing(t *testing.T) {
	t.Setenv("SALLYPORT_SECRET", "of the server")
	t.Setenv("LD_PRELOAD", "")
	out, exit := run(t, Spec{Login: me(t), Command: "env", Env: []string{"LANG=C"}})
	if exit.Status != 0 {
		t.Fatal(exit)
	}
	for line := range strings.Lines(out) {
		name, _, _ := strings.Cut(line, "=")
		if !slices.Contains([]string{"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"}, name) {
			t.Errorf("the process has %q", line)
		}
	}
	if !strings.Contains(out, "LANG=C\n") {
		t.Error("an accepted variable is missing")
	}
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"LANG", "en_US.UTF-8", true}, {"LC_ALL", "C", true},
		{"LD_PRELOAD", "/tmp/x.so", false}, {"PATH", "/tmp", false}, {"BASH_ENV", "/tmp/x", false}, {"lang", "C", false},
		{"LC_A=B", "x", false}, {"LC_\x00", "x", false}, {"LANG", "a\x00LD_PRELOAD=x", false}, {"LANG", "a\nb", false},
		{"LC_X", strings.Repeat("x", maxVariable+1), false}, {"LC_" + strings.Repeat("X", 100), "x", false},
	} {
		if got := Accepts(c.name, c.value); got != c.want {
			t.Errorf("Accepts(%q, %.20q) = %v", c.name, c.value, got)
		}
	}
}

func TestRunsAsTheLogin(t *testing.T) {
	out, _ := run(t, Spec{Login: stranger(t), Command: "id -u; id -g; id -G; cat /etc/shadow; pwd"})
	if want := "65534\n65534\n65534 12345\n/\n"; out != want {
		t.Errorf("got %q, want %q", out, want)
	}
}

func TestNoFileOfTheServerIsInherited(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// As a supervisor leaves one open: without close-on-exec.
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETFD, 0); err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, Spec{Login: me(t), Command: "for f in /proc/$$/fd/*; do readlink $f; done"})
	if strings.Contains(out, f.Name()) {
		t.Error("the process holds", f.Name())
	}
}

// TestTimersAreKept: the server's own slack is not what a login's programs have.
func TestTimersAreKept(t *testing.T) {
	err := timerslack.With(timerslack.Relaxed, func() error {
		out, _ := run(t, Spec{Login: me(t), Command: "cat /proc/self/timerslack_ns"})
		if out != "50000\n" {
			t.Errorf("the process's timers are kept to %q ns", out)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestExitAndSignal(t *testing.T) {
	l := me(t)
	for _, c := range []struct {
		command string
		want    Exit
	}{
		{"exit 0", Exit{}}, {"exit 7", Exit{Status: 7}}, {"kill -TERM $$", Exit{Status: 143, Signal: "TERM"}},
		{"kill -KILL $$", Exit{Status: 137, Signal: "KILL"}},
	} {
		if _, got := run(t, Spec{Login: l, Command: c.command}); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.command, got, c.want)
		}
	}
}

func TestLoginShell(t *testing.T) {
	p, err := Start(Spec{Login: me(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	_, _ = io.WriteString(p.Stdin, "echo $0; exit 3\n")
	out, _ := io.ReadAll(p.Stdout)
	if exit := p.Wait(); string(out) != "-sh\n" || exit.Status != 3 {
		t.Errorf("%q, %+v", out, exit)
	}
}

func TestTerminal(t *testing.T) {
	l := me(t)
	if os.Geteuid() == 0 {
		l = stranger(t)
	}
	modes := []byte{53, 0, 0, 0, 0, 72, 0, 0, 0, 0, 0} // no ECHO, no ONLCR
	p, err := Start(Spec{Login: l, Command: `stty size; stty -a | grep -o -e "-echo " -e "-onlcr"; test -O "$(tty)" && echo mine; tty >/dev/tty; read x; stty size`,
		Terminal: &Terminal{Type: "xterm", Size: Size{Columns: 101, Rows: 33}, Modes: modes}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	var got bytes.Buffer
	buf := make([]byte, 1024)
	for !strings.Contains(got.String(), "/dev/pts/") {
		n, err := p.Stdout.Read(buf)
		if err != nil {
			t.Fatalf("%v after %q", err, got.String())
		}
		got.Write(buf[:n])
	}
	if err := p.Resize(Size{Columns: 70, Rows: 20}); err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(p.Stdin, "x\n")
	rest, _ := io.ReadAll(p.Stdout)
	p.Wait()
	all := got.String() + string(rest)
	for _, want := range []string{"33 101\n", "-echo", "-onlcr", "mine\n", "20 70\n"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q has no %q", all, want)
		}
	}
}

func TestKillEndsTheGroup(t *testing.T) {
	for _, terminal := range []*Terminal{nil, {Type: "dumb", Size: Size{Columns: 80, Rows: 24}}} {
		p, err := Start(Spec{Login: me(t), Terminal: terminal, Command: "trap '' HUP; sh -c 'trap \"\" HUP; echo pid $$; exec sleep 1000' & wait"})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, _ := p.Stdout.Read(buf)
		pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "pid ")))
		if err != nil {
			t.Fatal(err)
		}
		p.Kill()
		if exit := p.Wait(); exit.Signal != "KILL" {
			t.Errorf("ended with %+v", exit)
		}
		p.Close()
		if alive(pid) {
			t.Error("a child of the process lives on")
		}
	}
}

// TestKillDoesNotWaitForStrangers ends a terminal that a process outside of the group holds open.
func TestKillDoesNotWaitForStrangers(t *testing.T) {
	for _, terminal := range []*Terminal{nil, {Type: "dumb"}} {
		p, err := Start(Spec{Login: me(t), Terminal: terminal, Command: "setsid sh -c 'trap \"\" HUP; echo up $$; exec sleep 60' & wait; sleep 60"})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 100)
		n, _ := p.Stdout.Read(buf)
		pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(buf[:n]), "up ")))
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		p.Kill()
		_, _ = io.ReadAll(p.Stdout)
		p.Wait()
		p.Close()
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("took %s", d)
		}
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

func alive(pid int) bool {
	for range 50 {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return false
		}
		time.Sleep(10 * time.Millisecond) // another process's death has no event to wait for
	}
	return true
}

func TestSignalReachesTheGroup(t *testing.T) {
	p, err := Start(Spec{Login: me(t), Command: "trap 'echo got; exit 4' USR1; echo ready; while :; do sleep 0.05; done"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	buf := make([]byte, 100)
	_, _ = p.Stdout.Read(buf)
	if err := p.Signal("USR1"); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal("STOP"); err == nil {
		t.Error("a signal that RFC 4254 does not name was sent")
	}
	_, _ = io.ReadAll(p.Stdout)
	if exit := p.Wait(); exit.Status != 4 && exit.Signal != "USR1" {
		t.Errorf("%+v", exit)
	}
}

func TestLookup(t *testing.T) {
	if _, err := Lookup("no-such-login"); !fault.Because(err, "no_such_login") {
		t.Error(err)
	}
	l, err := Lookup("root")
	if os.Geteuid() != 0 {
		if !fault.Because(err, "node_not_root") {
			t.Error(err)
		}
		return
	}
	if err != nil || l.UID != 0 || l.Home != "/root" || !strings.HasPrefix(l.Shell, "/") {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestNotRoot starts this test again as somebody else: root is not theirs to become, and their own login is.
func TestNotRoot(t *testing.T) {
	l := stranger(t)
	if os.Getenv("AS_STRANGER") == "1" {
		return
	}
	program := filepath.Join(publicDir(t), "shell.test")
	copyFile(t, program)
	out, exit := run(t, Spec{Login: l, Command: Quote([]string{program, "-test.run", "^TestLookup$", "-test.v"})})
	if exit.Status != 0 || !strings.Contains(out, "--- PASS: TestLookup") {
		t.Errorf("%+v %s", exit, out)
	}
}

// publicDir is a directory that every login can enter.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "shell-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyFile(t *testing.T, to string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestA29Kernel shows that SFTP has the login's rights and no more, behind a symbolic link too.
func TestA29Kernel(t *testing.T) {
	l := stranger(t)
	dir := publicDir(t)
	program := filepath.Join(dir, "it's a server")
	copyFile(t, program)
	secret := filepath.Join(dir, "secret")
	theirs := filepath.Join(dir, "theirs")
	if err := errors.Join(os.WriteFile(secret, []byte("s"), 0o600), os.Mkdir(theirs, 0o755), os.Chown(theirs, int(l.UID), int(l.GID))); err != nil {
		t.Fatal(err)
	}
	p, err := Start(Spec{Login: l, Command: Quote([]string{program, "sftp-server"})})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := sftp.NewClientPipe(p.Stdout, p.Stdin)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(theirs, "link")
	if err := c.Symlink(secret, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{secret, link, theirs + "/../secret"} { // never a file of the machine: a mistake here would write it
		if f, err := c.Open(path); err == nil {
			f.Close()
			t.Errorf("%s was read", path)
		}
		if f, err := c.OpenFile(path, os.O_WRONLY|os.O_TRUNC); err == nil {
			f.Close()
			t.Errorf("%s was written", path)
		}
	}
	f, err := c.Create(filepath.Join(theirs, "own"))
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if st, err := os.Stat(filepath.Join(theirs, "own")); err != nil || st.Sys().(*syscall.Stat_t).Uid != l.UID {
		t.Errorf("%v %v", st, err)
	}
	if err := c.Chown(filepath.Join(theirs, "own"), 0, 0); err == nil {
		t.Error("a file was given to root")
	}
	p.Stdin.Close()
	p.Wait()
}
