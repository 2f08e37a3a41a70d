// Package wine runs tsh.exe under wine on a Linux machine: against a real server, with a TPM emulator behind a tbs.dll
// of the tests' own. Nothing shipped links what is in dll.
package wine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/swtpm"
)

const compiler = "x86_64-w64-mingw32-gcc"

// dlls are the libraries that wine 8 lacks, or that stand in for hardware, with what each is linked to.
var dlls = map[string][]string{
	"bcryptprimitives": {"-ladvapi32"},
	"tbs":              {"-lws2_32"},
}

// run runs a program of this machine to its end.
func run(t *testing.T, env []string, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// wineEnv is the environment of everything that runs in a prefix: no menus, no HTML, no .NET.
func wineEnv(prefix string) []string {
	return []string{"WINEPREFIX=" + prefix, "WINEARCH=win64", "WINEDEBUG=-all", "LANG=C.UTF-8", "DISPLAY=", "HOME=" + filepath.Dir(prefix),
		"WINEDLLOVERRIDES=mscoree,mshtml=;winemenubuilder.exe=d;tbs,bcryptprimitives=n,b"}
}

var prefixOnce sync.Once

// prefix is a Windows with the tests' libraries in its system directory. Making one takes ten seconds and 700 MB, so it
// is kept in the user's cache by wine's version and the libraries' sources.
func prefix(t *testing.T) string {
	t.Helper()
	peer.Need(t, "wine", "wineserver", compiler)
	sum := sha256.New()
	fmt.Fprintln(sum, run(t, nil, "", "wine", "--version"))
	for _, name := range slices.Sorted(maps.Keys(dlls)) {
		raw, err := os.ReadFile(filepath.Join("dll", name+".c"))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(raw), raw)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(cache, "sallyport-test", "wine-"+hex.EncodeToString(sum.Sum(nil)[:8]))
	prefixOnce.Do(func() { makePrefix(t, dir) })
	return filepath.Join(dir, "prefix")
}

// makePrefix makes what prefix keeps, unless it is there; one process at a time.
func makePrefix(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	done := filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return
	}
	p := filepath.Join(dir, "prefix")
	if err := os.RemoveAll(p); err != nil {
		t.Fatal(err)
	}
	run(t, wineEnv(p), "", "wine", "wineboot", "--init")
	run(t, wineEnv(p), "", "wineserver", "-w")
	for name, libs := range dlls {
		out := filepath.Join(p, "drive_c", "windows", "system32", name+".dll")
		run(t, nil, "", compiler, append([]string{"-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-o", out, filepath.Join("dll", name+".c")}, libs...)...)
	}
	if err := os.WriteFile(done, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// boot has a Windows up for as long as the test: a first program starts its services, which takes a second and a half,
// and the last one ends them.
func boot(t *testing.T) string {
	t.Helper()
	p := prefix(t)
	cmd := exec.Command("wine", "cmd.exe")
	cmd.Env = append(os.Environ(), wineEnv(p)...)
	in, err := cmd.StdinPipe() // it reads commands until this is closed
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	return p
}

// winPath is a path of this machine as Windows programs name it.
func winPath(path string) string { return `Z:` + strings.ReplaceAll(path, "/", `\`) }

// machine is a Windows machine: a home and a TPM.
type machine struct {
	t    *testing.T
	exe  string // tsh.exe
	home string // TSH_HOME, here
	tpm  *swtpm.Emulator
	env  []string
}

// newMachine gives a machine whose paths have spaces and letters beyond ASCII.
func newMachine(t *testing.T, exe string, o swtpm.Options) *machine {
	t.Helper()
	m := &machine{t: t, tpm: swtpm.Start(t, o)}
	profile := filepath.Join(t.TempDir(), "Jörg Müller & Søn (Ελλάδα)")
	m.home = filepath.Join(profile, ".tsh")
	m.exe = filepath.Join(profile, "Program Files ü", "tsh.exe")
	if err := os.MkdirAll(filepath.Dir(m.exe), 0o700); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(exe)
	if err == nil {
		err = os.WriteFile(m.exe, raw, 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	m.env = append(wineEnv(prefix(t)), "TSH_HOME="+winPath(m.home), "SALLYPORT_TEST_TPM_PORT="+strconv.Itoa(relay(t, m.tpm.Socket)))
	return m
}

// relay carries loopback connections to an emulator's socket.
func relay(t *testing.T, socket string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("unix", socket)
			if err != nil {
				_ = c.Close()
				continue
			}
			wg.Go(func() { _, _ = io.Copy(up, c); _ = up.Close() })
			wg.Go(func() { _, _ = io.Copy(c, up); _ = c.Close() })
		}
	})
	return l.Addr().(*net.TCPAddr).Port
}

// result is what a command said.
type result struct {
	out, err string
	code     int
}

// tsh runs tsh.exe with what is typed.
func (m *machine) tsh(stdin string, args ...string) result {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "wine", append([]string{m.exe}, args...)...)
	cmd.Env = append(os.Environ(), m.env...)
	dir := m.t.TempDir() // files, not pipes: programs of Windows itself, which outlive tsh.exe, hold on to pipes
	in, out, errs := filepath.Join(dir, "in"), filepath.Join(dir, "out"), filepath.Join(dir, "err")
	if err := os.WriteFile(in, []byte(stdin), 0o600); err != nil {
		m.t.Fatal(err)
	}
	var files [3]*os.File
	for i, path := range []string{in, out, errs} {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			m.t.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = files[0], files[1], files[2]
	err := cmd.Run()
	said := func(path string) string {
		raw, err := os.ReadFile(path)
		if err != nil {
			m.t.Fatal(err)
		}
		return string(raw)
	}
	r := result{out: said(out), err: said(errs)}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.code = exit.ExitCode()
	} else if err != nil {
		m.t.Fatalf("tsh %s: %v\n%s%s", strings.Join(args, " "), err, r.out, r.err)
	}
	return r
}

// want runs tsh.exe and looks for texts in what it says.
func (m *machine) want(code int, stdin string, args []string, texts ...string) result {
	m.t.Helper()
	r := m.tsh(stdin, args...)
	if r.code != code {
		m.t.Fatalf("tsh %s: exit status %d, want %d\n%s%s", strings.Join(args, " "), r.code, code, r.out, r.err)
	}
	for _, text := range texts {
		if !strings.Contains(r.out+r.err, text) {
			m.t.Fatalf("tsh %s does not say %q:\n%s%s", strings.Join(args, " "), text, r.out, r.err)
		}
	}
	return r
}
