package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/peer/authority"
	"github.com/sallyport/sallyport/internal/peer/mongo"
	"github.com/sallyport/sallyport/internal/peer/pgserver"
)

// cmdDatabase starts a database's server with the files that `tctl auth sign --out=PREFIX` wrote, on a free port, and puts
// 127.0.0.1:PORT in a variable: database postgres|mysql|redis|mongodb PREFIX NAME. SQL for a superuser is then run by: sql NAME FILE.
func cmdDatabase(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: database PROTOCOL PREFIX NAME")
	}
	files := map[string]string{}
	dir, err := os.MkdirTemp("", "db")
	ts.Check(err)
	ts.Check(os.Chmod(dir, 0o755))
	ts.Defer(func() { os.RemoveAll(dir) })
	for _, suffix := range []string{"key", "crt", "cas"} {
		raw, err := os.ReadFile(ts.MkAbs(args[1] + "." + suffix))
		ts.Check(err)
		files[suffix] = filepath.Join(dir, suffix)
		ts.Check(os.WriteFile(files[suffix], raw, 0o600))
	}
	s := &server{protocol: args[0], dir: dir}
	switch args[0] {
	case "postgres":
		ts.Check(s.postgres(files))
	case "mysql":
		ts.Check(s.mysql(files))
	case "redis":
		ts.Check(s.redis(files))
	case "mongodb":
		ts.Check(s.mongodb(files))
	default:
		ts.Fatalf("no server for %s", args[0])
	}
	ts.Defer(s.stop)
	ts.Setenv(args[2], s.addr)
	databases.put(s.addr, s)
}

// databases are the running ones by address.
var databases shelf[*server]

// shelf keeps what scripts, which run at once, have begun.
type shelf[T any] struct{ kept sync.Map }

func (s *shelf[T]) put(name string, v T) { s.kept.Store(name, v) }

func (s *shelf[T]) get(name string) T {
	v, _ := s.kept.Load(name)
	t, _ := v.(T)
	return t
}

type server struct {
	protocol, dir, addr string
	pg                  *pgserver.Server
	mongo               *mongo.Server
	cmd                 *exec.Cmd
}

func (s *server) stop() {
	if s.pg != nil {
		s.pg.Stop()
		return
	}
	if s.mongo != nil {
		s.mongo.Kill()
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// mongodb is a server of the tests' own, in this process: there is no mongod to be had.
func (s *server) mongodb(files map[string]string) error {
	cert, err := tls.LoadX509KeyPair(files["crt"], files["key"])
	if err != nil {
		return err
	}
	clients, err := authority.Load(files["cas"])
	if err != nil {
		return err
	}
	s.mongo, err = mongo.Listen(&tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert}, nil)
	if err == nil {
		s.addr = s.mongo.Addr
	}
	return err
}

func (s *server) postgres(files map[string]string) error {
	if os.Geteuid() == 0 {
		u, err := user.Lookup("postgres")
		if err != nil {
			return err
		}
		uid, _ := strconv.Atoi(u.Uid)
		for _, f := range files {
			if err := os.Chown(f, uid, -1); err != nil {
				return err
			}
		}
	}
	var err error
	s.pg, err = pgserver.Start("ssl_cert_file = '"+files["crt"]+"'", "ssl_key_file = '"+files["key"]+"'", "ssl_ca_file = '"+files["cas"]+"'")
	if err == nil {
		s.addr = s.pg.Addr
	}
	return err
}

// launch starts a program and waits until its port answers.
func (s *server) launch(name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			return err
		}
	}
	s.cmd = exec.Command(path, args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(s.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 300 {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	raw, _ := os.ReadFile(log.Name())
	return fmt.Errorf("%s does not answer:\n%s", name, raw)
}

func (s *server) free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	s.addr = l.Addr().String()
	_, port, err := net.SplitHostPort(s.addr)
	return port, err
}

func (s *server) mysql(files map[string]string) error {
	port, err := s.free()
	if err != nil {
		return err
	}
	data, me := filepath.Join(s.dir, "data"), "--user="+userName()
	if out, err := exec.Command("mariadb-install-db", "--no-defaults", "--datadir="+data, "--auth-root-authentication-method=normal", "--skip-test-db", me).CombinedOutput(); err != nil {
		return fmt.Errorf("mariadb-install-db: %w\n%s", err, out)
	}
	return s.launch("mariadbd", "--no-defaults", "--datadir="+data, me, "--socket="+filepath.Join(s.dir, "s"), "--port="+port, "--bind-address=127.0.0.1",
		"--ssl-ca="+files["cas"], "--ssl-cert="+files["crt"], "--ssl-key="+files["key"], "--require-secure-transport=on")
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "root"
}

func (s *server) redis(files map[string]string) error {
	port, err := s.free()
	if err != nil {
		return err
	}
	return s.launch("redis-server", "--port", "0", "--tls-port", port, "--bind", "127.0.0.1", "--tls-key-file", files["key"], "--tls-cert-file", files["crt"],
		"--tls-ca-cert-file", files["cas"], "--tls-auth-clients", "yes", "--save", "", "--dir", s.dir, "--protected-mode", "no")
}

// cmdSQL runs a file as the superuser of a server: sql NAME FILE.
func cmdSQL(ts *testscript.TestScript, _ bool, args []string) {
	s, text := databases.get(ts.Getenv(args[0])), ts.ReadFile(args[1])
	if s == nil {
		ts.Fatalf("no database %s", args[0])
	}
	if s.pg != nil {
		_, err := s.pg.Admin("postgres", text)
		ts.Check(err)
		return
	}
	cmd := exec.Command("mysql", "--no-defaults", "-uroot", "-S", filepath.Join(s.dir, "s"))
	cmd.Stdin = strings.NewReader(text)
	out, err := cmd.CombinedOutput()
	if err != nil {
		ts.Fatalf("%v\n%s", err, out)
	}
}

// cmdOpen runs a program that stays, with a line of input now and then: open NAME PROGRAM ARGS…; say NAME LINE writes a
// line to it; gone NAME waits for its end.
func cmdOpen(ts *testscript.TestScript, _ bool, args []string) {
	cmd := exec.Command(programPath(ts, args[1]), args[2:]...)
	cmd.Dir = ts.Getenv("WORK")
	for _, k := range []string{"HOME", "TSH_HOME", "TSH_TPM", "TSH_DMI_DIR", "PATH", "LANG", "USER", "KUBECONFIG", "KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSSLMODE"} {
		if v := ts.Getenv(k); v != "" {
			cmd.Env = append(cmd.Env, k+"="+v)
		}
	}
	in, err := cmd.StdinPipe()
	ts.Check(err)
	log, err := os.Create(filepath.Join(ts.Getenv("WORK"), args[0]+".said"))
	ts.Check(err)
	cmd.Stdout, cmd.Stderr = log, log
	ts.Check(cmd.Start())
	o := &opened{process: cmd.Process, in: in, log: log.Name(), ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); log.Close(); close(o.ended) }()
	ts.Defer(func() { _ = cmd.Process.Kill(); <-o.ended })
	programs.put(ts.Getenv("WORK")+args[0], o)
}

// cmdInterrupt is Ctrl-C to an opened program: interrupt NAME.
func cmdInterrupt(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(programs.get(ts.Getenv("WORK") + args[0]).process.Signal(os.Interrupt))
}

type opened struct {
	process *os.Process
	in      io.WriteCloser
	log     string
	ended   chan struct{}
}

// programs are the opened ones.
var programs shelf[*opened]

func cmdSay(ts *testscript.TestScript, _ bool, args []string) {
	o := programs.get(ts.Getenv("WORK") + args[0])
	_, err := io.WriteString(o.in, strings.Join(args[1:], " ")+"\n")
	ts.Check(err)
}

// cmdPrinted waits until a program has printed a text: printed NAME TEXT [LINE], saying LINE again meanwhile.
func cmdPrinted(ts *testscript.TestScript, _ bool, args []string) {
	o := programs.get(ts.Getenv("WORK") + args[0])
	var raw []byte
	for range 200 {
		if raw, _ = os.ReadFile(o.log); strings.Contains(string(raw), args[1]) {
			return
		}
		if len(args) > 2 {
			_, _ = io.WriteString(o.in, args[2]+"\n")
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("%s printed %q", args[0], raw)
}
