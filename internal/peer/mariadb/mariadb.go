// Package mariadb runs Debian's MariaDB server for a test, with TLS and client certificates, in a directory of its own.
package mariadb

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/peer"
	"github.com/sallyport/sallyport/internal/peer/authority"
)

// Server is one that runs.
type Server struct {
	Addr      string // loopback, TLS for who asks
	Socket    string // where root needs no password
	Authority *authority.Authority
	dir       string
	cmd       *exec.Cmd
	gone      chan struct{}
}

// Start runs a server until the test is over.
func Start(t peer.Run, options ...string) *Server {
	t.Helper()
	peer.Need(t, "mariadb-install-db", "mysql")
	daemon := peer.Any(t, "mariadbd", "/usr/sbin/mariadbd")
	dir, err := os.MkdirTemp("", "mariadb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Server{Socket: filepath.Join(dir, "s"), Authority: authority.New("mariadb test"), dir: dir, gone: make(chan struct{})}
	if err := s.Authority.Files(dir, s.Authority.Server()); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(dir, "data")
	me := "--user=root"
	if os.Geteuid() != 0 {
		me = "--skip-log-bin"
	}
	if out, err := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", me,
		"--skip-test-db").CombinedOutput(); err != nil {
		t.Fatalf("mariadb-install-db: %v\n%s", err, out)
	}
	_, port, _ := net.SplitHostPort(FreeAddr(t))
	s.Addr = "127.0.0.1:" + port
	args := append([]string{"--no-defaults", "--datadir=" + data, me, "--socket=" + s.Socket, "--port=" + port, "--bind-address=127.0.0.1",
		"--pid-file=" + filepath.Join(dir, "pid"), "--ssl-ca=" + filepath.Join(dir, "ca.pem"), "--ssl-cert=" + filepath.Join(dir, "cert.pem"),
		"--ssl-key=" + filepath.Join(dir, "key.pem"), "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0"}, options...)
	s.cmd = exec.Command(daemon, args...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.cmd.Wait()
		close(s.gone)
	}()
	t.Cleanup(s.Kill)
	s.await(t)
	return s
}

// FreeAddr is a loopback address that nobody listens at.
func FreeAddr(t peer.Run) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (s *Server) await(t peer.Run) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if exec.CommandContext(ctx, "mysql", "--no-defaults", "-uroot", "-S", s.Socket, "-e", "select 1").Run() == nil {
			return
		}
		select {
		case <-tick.C:
		case <-s.gone:
			b, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			t.Fatalf("mariadbd went:\n%s", b)
		case <-ctx.Done():
			t.Fatal("mariadbd does not answer")
		}
	}
}

// Exec runs statements as root, and gives their output.
func (s *Server) Exec(t peer.Run, statements string) string {
	t.Helper()
	cmd := exec.Command("mysql", "--no-defaults", "-uroot", "-S", s.Socket, "-N")
	cmd.Stdin = strings.NewReader(statements)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", statements, err, out)
	}
	return strings.TrimSpace(string(out))
}

// Kill ends the server as a crash would.
func (s *Server) Kill() {
	s.cmd.Process.Kill()
	<-s.gone
}
