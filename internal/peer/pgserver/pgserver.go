// Package pgserver is Debian's PostgreSQL, started by a test: TLS, client certificates of an authority of its own, and
// one database with passwords. No shipped binary links it.
package pgserver

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ScramDatabase lets users in by password; every other database by certificate.
const ScramDatabase = "scram"

// Server is one that runs.
type Server struct {
	Addr string // 127.0.0.1:PORT
	Dir  string // its unix socket is here, where the user postgres gets in as it is

	key     *ecdsa.PrivateKey
	ca      *x509.Certificate
	server  *exec.Cmd
	leash   io.Closer
	exited  chan struct{}
	account *syscall.Credential
}

// Bin finds a program of PostgreSQL's, which Debian keeps out of the path.
func Bin(name string) (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/" + name)
	if err != nil {
		return "", err
	}
	if path, err := exec.LookPath(name); err == nil && len(found) == 0 {
		return path, nil
	}
	if len(found) == 0 {
		return "", fmt.Errorf("%s is not installed", name)
	}
	slices.Sort(found)
	return found[len(found)-1], nil
}

// Start makes a cluster in a new directory and starts it; more are lines of its configuration.
func Start(more ...string) (*Server, error) {
	s := &Server{exited: make(chan struct{})}
	var err error
	if s.Dir, err = os.MkdirTemp("", "pg"); err != nil { // short: a socket's path has 107 bytes
		return nil, err
	}
	if err := s.begin(more); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

// Authority is another server's authority, in a directory, without the server.
func Authority(dir string) (*Server, error) {
	s := &Server{Dir: dir}
	return s, s.authority()
}

func (s *Server) begin(more []string) error {
	if err := s.unprivileged(); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Addr = l.Addr().String()
	l.Close()
	if err := s.authority(); err != nil {
		return err
	}
	if err := s.owned(); err != nil {
		return err
	}
	initdb, err := Bin("initdb")
	if err != nil {
		return err
	}
	if out, err := s.command(initdb, "-D", s.path("data"), "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C").CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	if err := s.configure(more); err != nil {
		return err
	}
	return s.Restart()
}

// unprivileged finds whom the server runs as, which may not be root.
func (s *Server) unprivileged() error {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	s.account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	return err
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Server) owned() error {
	if s.account == nil {
		return nil
	}
	return filepath.WalkDir(s.Dir, func(path string, _ fs.DirEntry, err error) error {
		return errors.Join(err, os.Chown(path, int(s.account.Uid), int(s.account.Gid)))
	})
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Dir = s.Dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + s.Dir}
	if s.account != nil {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: s.account}
	}
	return c
}

func (s *Server) configure(more []string) error {
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return err
	}
	conf := append([]string{"listen_addresses = '127.0.0.1'", "port = " + port, "unix_socket_directories = '" + s.Dir + "'",
		"ssl = on", "ssl_cert_file = '" + s.path("server.pem") + "'", "ssl_key_file = '" + s.path("server.key") + "'", "ssl_ca_file = '" + s.path("ca.pem") + "'",
		"fsync = off", "max_connections = 200", "wal_level = logical", "password_encryption = 'scram-sha-256'", "client_connection_check_interval = 0"}, more...)
	hba := "local all postgres trust\nlocal replication postgres trust\nhostssl " + ScramDatabase + " all 127.0.0.1/32 scram-sha-256\nhostssl all all 127.0.0.1/32 cert\nhostssl replication all 127.0.0.1/32 cert\n"
	f, err := os.OpenFile(s.path("data/postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(strings.Join(conf, "\n") + "\n")
	return errors.Join(err, f.Close(), os.WriteFile(s.path("data/pg_hba.conf"), []byte(hba), 0o600))
}

// Restart starts the server where it does not run.
func (s *Server) Restart() error {
	bin, err := Bin("postgres")
	if err != nil {
		return err
	}
	// It ends with its standard input, so with this process, however that ends.
	s.server = s.command("/bin/sh", "-c", `"$0" -D "$1" & p=$!; cat; kill -QUIT $p; wait $p`, bin, s.path("data"))
	var log bytes.Buffer
	s.server.Stdout, s.server.Stderr = &log, &log
	if s.leash, err = s.server.StdinPipe(); err != nil {
		return err
	}
	if err := s.server.Start(); err != nil {
		return err
	}
	exited := make(chan struct{})
	s.exited = exited
	server := s.server
	go func() {
		defer close(exited)
		_ = server.Wait()
	}()
	for range 600 {
		select {
		case <-exited:
			return fmt.Errorf("postgres ended: %s", log.String())
		case <-time.After(20 * time.Millisecond):
		}
		if _, err := s.Admin("postgres", "SELECT 1"); err == nil {
			return nil
		}
	}
	return errors.New("postgres does not answer")
}

// Admin runs SQL as the superuser and gives what it prints, unaligned.
func (s *Server) Admin(database, sql string) (string, error) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		return "", err
	}
	_, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return "", err
	}
	c := s.command(psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", s.Dir, "-p", port, "-U", "postgres", "-d", database, "-f", "-")
	c.Stdin = strings.NewReader(sql)
	out, err := c.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

// Kill ends the server at once, as a crash would.
func (s *Server) Kill() {
	if s.leash != nil {
		_ = s.leash.Close()
		<-s.exited
	}
}

// Stop ends the server and removes what it had.
func (s *Server) Stop() {
	s.Kill()
	_ = os.RemoveAll(s.Dir)
}

// authority makes the authority and the server's certificate.
func (s *Server) authority() error {
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "db authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, s.key.Public(), s.key)
	if err != nil {
		return err
	}
	if s.ca, err = x509.ParseCertificate(der); err != nil {
		return err
	}
	cert, err := s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "db.example.com"}, DNSNames: []string{"db.example.com"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	if err != nil {
		return err
	}
	return errors.Join(writePEM(s.path("ca.pem"), "CERTIFICATE", der), s.write("server", cert))
}

func (s *Server) sign(t *x509.Certificate) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t.SerialNumber, t.NotBefore, t.NotAfter = big.NewInt(time.Now().UnixNano()), time.Now().Add(-time.Hour), time.Now().Add(23*time.Hour)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, s.ca, key.Public(), s.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// write puts a certificate and its key into NAME.pem and NAME.key.
func (s *Server) write(name string, c *tls.Certificate) error {
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(s.path(name+".pem"), "CERTIFICATE", c.Certificate[0]), writePEM(s.path(name+".key"), "PRIVATE KEY", key))
}

// Files are a client's certificate and key, and the authority, for programs.
func (s *Server) Files(user string) (cert, key, ca string, err error) {
	c, err := s.client(user)
	if err != nil {
		return "", "", "", err
	}
	name := "client-" + user
	return s.path(name + ".pem"), s.path(name + ".key"), s.path("ca.pem"), s.write(name, c)
}

func (s *Server) client(user string) (*tls.Certificate, error) {
	return s.sign(&x509.Certificate{Subject: pkix.Name{CommonName: user}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
}

// TLS verifies the server, and shows it a certificate for a user; none for an empty one.
func (s *Server) TLS(user string) (*tls.Config, error) {
	c := &tls.Config{RootCAs: x509.NewCertPool(), ServerName: "db.example.com", MinVersion: tls.VersionTLS12}
	c.RootCAs.AddCert(s.ca)
	if user == "" {
		return c, nil
	}
	cert, err := s.client(user)
	if err != nil {
		return nil, err
	}
	c.Certificates = []tls.Certificate{*cert}
	return c, nil
}

func writePEM(file, kind string, der []byte) error {
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
