//go:build linux

package node

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/role"
)

func pemBytes(b *pem.Block) []byte { return pem.EncodeToMemory(b) }

type result struct {
	out, err string
	status   int
}

func run(t *testing.T, cmd *exec.Cmd, in string) result {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &stderr
	timer := time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	r := result{out.String(), stderr.String(), 0}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		r.status = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestOpenSSHCommands(t *testing.T) {
	program := peer.Any(t, "ssh")
	w := newWorld(t)
	_, options := w.openSSH(w.user())
	call := func(in string, args ...string) result {
		return run(t, exec.Command(program, slices.Concat(options, args)...), in)
	}
	for _, c := range []struct {
		name, in string
		args     []string
		want     result
	}{
		{"status 0", "", []string{"ubuntu@127.0.0.1", "echo out; echo err >&2"}, result{"out\n", "err\n", 0}},
		{"status 7", "", []string{"ubuntu@127.0.0.1", "exit 7"}, result{"", "", 7}},
		{"input", "some text", []string{"ubuntu@127.0.0.1", "cat"}, result{"some text", "", 0}},
		{"a signal", "", []string{"ubuntu@127.0.0.1", "kill -TERM $$"}, result{"", "", 255}},
		{"a shell", "echo hi; exit 3\n", []string{"-T", "ubuntu@127.0.0.1"}, result{"hi\n", "", 3}},
		{"home", "", []string{"ubuntu@127.0.0.1", "pwd; echo $USER"}, result{w.login.Home + "\nubuntu\n", "", 0}},
		{"a background process", "", []string{"ubuntu@127.0.0.1", "sleep 30 >/dev/null 2>&1 </dev/null & echo on"}, result{"on\n", "", 0}},
	} {
		if got := call(c.in, c.args...); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
	r := call("stty size; echo $TERM; exit 5\n", "-tt", "ubuntu@127.0.0.1")
	if r.status != 5 {
		t.Errorf("terminal: %+v", r)
	}
	big := strings.Repeat("0123456789abcdef", 1<<18)
	if r := call(big, "ubuntu@127.0.0.1", "cat"); r.out != big {
		t.Errorf("%d bytes of %d came back, %s", len(r.out), len(big), r.err)
	}
	starts, ends, execs := w.recorder.of(event.SessionStart), w.recorder.of(event.SessionEnd), w.recorder.of(event.Exec)
	if len(starts) < 8 || starts[0].User != "myuser" || starts[0].Login != "ubuntu" || starts[0].ServerID != nodeID || starts[0].Addr != "127.0.0.1" {
		t.Errorf("starts: %d, %+v", len(starts), starts[0])
	}
	if execs[0].Command != "echo out; echo err >&2" || execs[0].SessionID != starts[0].SessionID {
		t.Errorf("%+v", execs[0])
	}
	await(t, "every session's end on record", func() bool { return len(w.recorder.of(event.SessionEnd)) == len(starts) })
	_ = ends
}

func TestOpenSSHCopies(t *testing.T) {
	for _, name := range []string{"scp -O", "scp", "sftp"} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			dir, options := w.openSSH(w.user())
			program := peer.Any(t, strings.Fields(name)[0])
			if name == "scp -O" {
				options = append([]string{"-O"}, options...)
			}
			up, down := filepath.Join(dir, "up.txt"), filepath.Join(dir, "down.txt")
			want := bytes.Repeat([]byte("sallyport\n"), 100_000)
			if err := os.WriteFile(up, want, 0o640); err != nil {
				t.Fatal(err)
			}
			var r1, r2 result
			if name == "sftp" {
				r1 = run(t, exec.Command(program, append(options, "-b", "-", "ubuntu@127.0.0.1")...),
					fmt.Sprintf("put %s there.txt\nget there.txt %s\nrename there.txt x\nrm x\nmkdir d\nls\n", up, down))
			} else {
				r1 = run(t, exec.Command(program, append(options, up, "ubuntu@127.0.0.1:there.txt")...), "")
				r2 = run(t, exec.Command(program, append(options, "ubuntu@127.0.0.1:there.txt", down)...), "")
			}
			if r1.status != 0 || r2.status != 0 {
				t.Fatalf("%+v %+v", r1, r2)
			}
			if got, err := os.ReadFile(down); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back, %v", len(got), err)
			}
			var seen []string
			for _, e := range w.recorder.of(event.SCP) {
				seen = append(seen, e.Direction+e.Verb+" "+filepath.Base(e.Path))
			}
			for _, want := range []string{"upload there.txt", "download there.txt"} {
				if !slices.Contains(seen, want) {
					t.Errorf("%q is not among the events %q", want, seen)
				}
			}
			if name == "sftp" && (!slices.Contains(seen, "rename there.txt") || !slices.Contains(seen, "remove x") || !slices.Contains(seen, "mkdir d")) {
				t.Errorf("events %q", seen)
			}
		})
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestOpenSSHForwards(t *testing.T) {
	program := peer.Any(t, "ssh")
	w := newWorld(t)
	_, options := w.openSSH(w.user())
	target, local, remote := echo(t), freePort(t), freePort(t)
	cmd := exec.Command(program, append(options, "-o", "ExitOnForwardFailure=yes", "-L", "127.0.0.1:"+local+":"+target,
		"-R", remote+":"+target, "ubuntu@127.0.0.1", "echo up; cat")...)
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); _ = cmd.Wait() }()
	if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{local, remote} {
		conn, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "hello")
		_ = conn.(*net.TCPConn).CloseWrite()
		if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
			t.Errorf("port %s: %q %v", port, got, err)
		}
		conn.Close()
	}
	events := w.recorder.of(event.Port)
	if len(events) != 2 {
		t.Fatalf("%d port events", len(events))
	}
	for _, e := range events {
		if e.Target != target && e.Target != "localhost:"+remote {
			t.Errorf("%+v", e.Action)
		}
	}
}

func TestOpenSSHAgent(t *testing.T) {
	program, agent := peer.Any(t, "ssh"), peer.Any(t, "ssh-agent")
	w := newWorld(t)
	_, options := w.openSSH(w.user())
	socket := filepath.Join(t.TempDir(), "a")
	daemon := exec.Command(agent, "-D", "-a", socket)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = daemon.Process.Kill(); _ = daemon.Wait() }()
	await(t, "ssh-agent", func() bool { _, err := os.Stat(socket); return err == nil })
	cmd := exec.Command(program, append(options, "-A", "ubuntu@127.0.0.1", "stat -c %a $SSH_AUTH_SOCK $(dirname $SSH_AUTH_SOCK); ssh-add -l; echo $SSH_AUTH_SOCK")...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+socket)
	r := run(t, cmd, "")
	contains(t, r.out, "600\n700\n")
	contains(t, r.out+r.err, "The agent has no identities.")
	path := strings.TrimSpace(r.out[strings.LastIndex(strings.TrimSpace(r.out), "\n")+1:])
	await(t, "the socket's removal", func() bool { _, err := os.Stat(filepath.Dir(path)); return os.IsNotExist(err) })
}

// TestOpenSSHRefusal shows what a person with stock ssh sees.
func TestOpenSSHRefusal(t *testing.T) {
	program := peer.Any(t, "ssh")
	required := accessRole()
	required.Name, required.Options.DeviceTrustMode = "require-trusted-device", device.ModeRequired
	w := newWorld(t, accessRole(), required)
	u := w.user()
	u.Roles = []string{"access", "require-trusted-device"}
	_, options := w.openSSH(u)
	r := run(t, exec.Command(program, append([]string{"-o", "LogLevel=INFO"}, append(options, "ubuntu@127.0.0.1", "echo no")...)...), "")
	if r.status != 255 || r.out != "" {
		t.Errorf("%+v", r)
	}
	contains(t, r.err, "administratively prohibited: access denied to ubuntu connecting to "+nodeName+":0")
	contains(t, r.err, `role "require-trusted-device" requires a trusted device, and this login carries no device proof`)
	contains(t, r.err, "to fix: tsh device enroll --current-device")
	refused := w.recorder.of(event.Auth)
	if len(refused) != 1 || refused[0].Reason != "device_required" || refused[0].Source != "require-trusted-device" {
		t.Errorf("%+v", refused)
	}
	if len(w.recorder.of(event.SessionStart)) != 0 {
		t.Error("a refused session started")
	}
}

// TestOpenSSHLock cuts a session of stock ssh and shows why.
func TestOpenSSHLock(t *testing.T) {
	program := peer.Any(t, "ssh")
	for _, flags := range [][]string{{"-T"}, {"-tt"}} {
		w := newWorld(t)
		_, options := w.openSSH(w.user())
		cmd := exec.Command(program, slices.Concat(options, flags, []string{"ubuntu@127.0.0.1", "echo up; exec sleep 1000"})...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, _ := cmd.StdinPipe()
		out, _ := cmd.StdoutPipe()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(out, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		w.lock()
		_ = cmd.Wait()
		in.Close()
		if d := time.Since(began); d > 3*time.Second {
			t.Errorf("%v: took %s", flags, d)
		}
		if cmd.ProcessState.ExitCode() != 255 {
			t.Errorf("%v: status %d", flags, cmd.ProcessState.ExitCode())
		}
		contains(t, stderr.String(), lockedLine)
	}
}

// TestDenyRole uses the deny side, whose refusal has the same first line.
func TestDenyRole(t *testing.T) {
	denied := accessRole()
	denied.Deny = role.Conditions{NodeLabels: label.Selector{"env": {"test"}}}
	w := newWorld(t, denied)
	c := w.client()
	_, err := c.NewSession()
	if err == nil {
		t.Fatal("a session opened")
	}
	var open *ssh.OpenChannelError
	if !errors.As(err, &open) || open.Reason != ssh.Prohibited || open.Message != "access denied to ubuntu connecting to "+nodeName+":0\n  role \"access\" denies it" {
		t.Error(err)
	}
}
