package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/swtpm"
)

const password = "correct horse battery\n"

// world is a cluster, an idle server, a TPM and an sshd, all on loopback.
type world struct {
	dir      string
	bin      string
	tpm      *swtpm.Emulator
	env      []string
	sshdPort string
	idle     *exec.Cmd
	procs    []*exec.Cmd
	later    []func()
}

func newWorld(ctx context.Context, bin string) (*world, error) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return nil, err
	}
	w := &world{dir: dir, bin: bin}
	if err := w.setup(ctx); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *world) setup(ctx context.Context) error {
	var err error
	if w.tpm, err = swtpm.Launch(filepath.Join(w.dir, "tpm"), swtpm.Options{}); err != nil {
		return err
	}
	out, _, err := w.server("data", "web")
	if err != nil {
		return err
	}
	if _, w.idle, err = w.server("idle", "idle"); err != nil {
		return err
	}
	pin := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(out)
	proxy := regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(out)
	w.env = append(os.Environ(), "SALLYPORT_DATA_DIR="+filepath.Join(w.dir, "data"), "TSH_HOME="+filepath.Join(w.dir, "tsh"), "TSH_TPM="+w.tpm.Socket, "USER=root")
	steps := [][]string{
		{"tctl", "users", "add", "alice", "--roles=access,editor", "--logins=root", "--password-file=-"},
		{"tsh", "login", "--proxy=" + proxy[1], "--ca-pin=" + pin[1], "--user=alice"},
		{"tsh", "device", "enroll", "--current-device"},
	}
	for _, s := range steps {
		if err := w.run(ctx, password, s[0], s[1:]...); err != nil {
			return err
		}
	}
	if err := w.plain().run(ctx, password, steps[1][0], steps[1][1:]...); err != nil {
		return err
	}
	for range 50 {
		if err = w.run(ctx, "", "tsh", "ssh", "root@web", "true"); err == nil {
			return w.sshd(ctx)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// plain is the same user on a machine without a device.
func (w *world) plain() *world {
	c := *w
	c.env = append(c.env[:len(c.env):len(c.env)], "TSH_HOME="+filepath.Join(w.dir, "plain"), "TSH_TPM="+filepath.Join(w.dir, "none"))
	return &c
}

// server starts a cluster of its own and returns what it printed.
func (w *world) server(data, node string) (string, *exec.Cmd, error) {
	file := filepath.Join(w.dir, data+".yaml")
	text := fmt.Sprintf("version: v1\ncluster_name: bench.example.com\nnode_name: %s\ndata_dir: %s\nauth: {enabled: true, listen: \"127.0.0.1:0\", authentication: {second_factors: []}}\nproxy: {enabled: true, listen: \"127.0.0.1:0\"}\nssh: {enabled: true}\ndatabases: []\nkubernetes: []\n",
		node, filepath.Join(w.dir, data))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", nil, err
	}
	outFile, err := os.Create(filepath.Join(w.dir, data+".out"))
	if err != nil {
		return "", nil, err
	}
	defer outFile.Close()
	cmd := exec.Command(filepath.Join(w.bin, "sallyport"), "start", "-c", file)
	cmd.Stdout, cmd.Stderr = outFile, outFile
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	w.procs = append(w.procs, cmd)
	for range 100 {
		raw, err := os.ReadFile(outFile.Name())
		if err == nil && strings.Contains(string(raw), "Next:") {
			return string(raw), cmd, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	raw, _ := os.ReadFile(outFile.Name())
	return "", nil, fmt.Errorf("the server did not come up: %s", raw)
}

// sshd starts the machine's sshd on a loopback port, with a key file for root.
func (w *world) sshd(ctx context.Context) error {
	for _, key := range []string{"id", "host"} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(w.dir, key)).CombinedOutput(); err != nil {
			return fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, w.sshdPort, _ = net.SplitHostPort(l.Addr().String())
	l.Close()
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return err
	}
	path, err := exec.LookPath("sshd")
	if err != nil {
		path = "/usr/sbin/sshd"
	}
	cmd := exec.Command(path, "-D", "-f", "none", "-p", w.sshdPort, "-h", filepath.Join(w.dir, "host"), "-o", "ListenAddress=127.0.0.1",
		"-o", "AuthorizedKeysFile="+filepath.Join(w.dir, "id.pub"), "-o", "StrictModes=no", "-o", "PermitRootLogin=yes", "-o", "PidFile=none", "-o", "UsePAM=yes")
	if err := cmd.Start(); err != nil {
		return err
	}
	w.procs = append(w.procs, cmd)
	for range 50 {
		if err = w.stock(ctx); err == nil {
			return nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	return err
}

// run runs a program of ours.
func (w *world) run(ctx context.Context, input, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, name), args...)
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = strings.NewReader(input), &out, &out, w.env
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}

func (w *world) close() {
	for _, p := range w.procs {
		_ = p.Process.Signal(syscall.SIGTERM)
		_ = p.Wait()
	}
	if w.tpm != nil {
		w.tpm.Close()
	}
	for _, f := range w.later {
		f()
	}
	os.RemoveAll(w.dir)
}
