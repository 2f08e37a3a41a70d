package kubeserver

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/peer"
)

// TestKubelet: the parts that tests stand on do what they are for, without any door: both transports, exit statuses, a
// terminal, standard error apart, logs, and bytes through a port.
func TestKubelet(t *testing.T) {
	peer.Need(t, "etcd", Bin("apiserver"), Bin("kubelet"), Bin("kubectl"))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	s, err := Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Stop()
	if err := s.Kubelet(ctx); err != nil {
		t.Fatal(err)
	}
	if err := s.Run(ctx, "default", "web", "sh", "-c", "echo one; echo two >&2; exec sleep 300"); err != nil {
		t.Fatal(err)
	}
	config, err := s.Kubeconfig(AdminToken)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := func(ws string, in string, args ...string) (string, string, int) {
		c := exec.CommandContext(ctx, Bin("kubectl"), append([]string{"--kubeconfig", config}, args...)...)
		c.Env = append(os.Environ(), "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+ws, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+ws)
		var out, errs bytes.Buffer
		c.Stdin, c.Stdout, c.Stderr = strings.NewReader(in), &out, &errs
		err := c.Run()
		var e *exec.ExitError
		if err != nil && !errors.As(err, &e) {
			t.Fatal(err)
		}
		return out.String(), errs.String(), c.ProcessState.ExitCode()
	}
	for _, ws := range []string{"true", "false"} {
		if out, errs, code := kubectl(ws, "hello\n", "exec", "-i", "web", "--", "sh", "-c", "cat; echo bad >&2; exit 7"); out != "hello\n" || !strings.HasPrefix(errs, "bad\n") || code != 7 {
			t.Errorf("exec, websockets %s: %q %q %d", ws, out, errs, code)
		}
	}
	if out, errs, code := kubectl("true", "", "logs", "web"); !strings.Contains(out, "one\n") || !strings.Contains(out, "two\n") || code != 0 {
		t.Errorf("logs: %q %q %d", out, errs, code)
	}
	if out, _, _ := kubectl("true", "", "logs", "web", "--tail=1"); strings.Count(out, "\n") != 1 {
		t.Errorf("logs --tail=1: %q", out)
	}
	// Whom the API server's authority does not vouch for is not served.
	raw, err := s.Do(ctx, http.MethodGet, "/api/v1/nodes/"+Node, "")
	if err != nil || !strings.Contains(raw, "kubeletEndpoint") {
		t.Fatal(raw, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	c := exec.CommandContext(ctx, Bin("kubectl"), "--kubeconfig", config, "port-forward", "web", ":"+port)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	line := make([]byte, 200)
	n, _ := out.Read(line)
	_, rest, _ := strings.Cut(string(line[:n]), "127.0.0.1:")
	at, _, _ := strings.Cut(rest, " ")
	conn, err := net.Dial("tcp", "127.0.0.1:"+at)
	if err != nil {
		t.Fatalf("%q: %v", line[:n], err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, "through"); err != nil {
		t.Fatal(err)
	}
	back := make([]byte, 7)
	if _, err := io.ReadFull(conn, back); err != nil || string(back) != "through" {
		t.Errorf("%q %v", back, err)
	}
}
