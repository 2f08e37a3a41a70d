// Package redis runs Debian's Redis server for a test, with TLS, and client certificates of who has one, in a directory of its own.
package redis

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/authority"
)

// Server is one that runs.
type Server struct {
	Addr      string // loopback, TLS
	Authority *authority.Authority
	dir, port string
	cmd       *exec.Cmd
	gone      chan struct{}
}

// Start runs a server until the test is over.
func Start(t peer.Run, options ...string) *Server {
	t.Helper()
	peer.Need(t, "redis-server", "redis-cli")
	dir, err := os.MkdirTemp("", "redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Authority: authority.New("redis test"), dir: dir, gone: make(chan struct{})}
	if err := s.Authority.Files(dir, s.Authority.Server()); err != nil {
		t.Fatal(err)
	}
	client := filepath.Join(dir, "client")
	if err := os.Mkdir(client, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Authority.Files(client, s.Authority.Client("default")); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Addr = l.Addr().String()
	_, s.port, _ = net.SplitHostPort(s.Addr)
	l.Close()
	args := append([]string{"--port", "0", "--tls-port", s.port, "--bind", "127.0.0.1", "--dir", dir, "--save", "", "--appendonly", "no", "--tls-auth-clients", "optional",
		"--tls-cert-file", filepath.Join(dir, "cert.pem"), "--tls-key-file", filepath.Join(dir, "key.pem"), "--tls-ca-cert-file", filepath.Join(dir, "ca.pem"),
		"--logfile", filepath.Join(dir, "log")}, options...)
	s.cmd = exec.Command("redis-server", args...)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.gone)
	}()
	t.Cleanup(s.Kill)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for exec.CommandContext(ctx, "redis-cli", s.args("ping")...).Run() != nil {
		select {
		case <-tick.C:
		case <-s.gone:
			b, _ := os.ReadFile(filepath.Join(dir, "log"))
			t.Fatalf("redis-server went:\n%s", b)
		case <-ctx.Done():
			t.Fatal("redis-server does not answer")
		}
	}
	return s
}

func (s *Server) args(command ...string) []string {
	return append([]string{"-p", s.port, "--tls", "--cacert", filepath.Join(s.dir, "ca.pem"), "--cert", filepath.Join(s.dir, "client", "cert.pem"),
		"--key", filepath.Join(s.dir, "client", "key.pem"), "-e"}, command...)
}

// Do runs a command as the default user, and gives its output.
func (s *Server) Do(t peer.Run, command ...string) string {
	t.Helper()
	out, err := exec.Command("redis-cli", s.args(command...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return string(out)
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.gone
}
