package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// bouncer is Debian's pgbouncer, a connection to the server for each of a client's, as the door has it.
func (b *bench) bouncer(addr string) (*exec.Cmd, error) {
	path := "/usr/sbin/pgbouncer"
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	_, server, err := net.SplitHostPort(b.pg.Addr)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(b.dir, "bouncer")
	if err := b.bouncerFiles(dir); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(bouncerConf, server, host, port, dir)
	if err := os.WriteFile(filepath.Join(dir, "ini"), []byte(conf), 0o600); err != nil {
		return nil, err
	}
	c := exec.Command(path, "-q", filepath.Join(dir, "ini"))
	if os.Geteuid() != 0 {
		return c, nil
	}
	u, err := user.Lookup("postgres") // root it refuses to be
	if err != nil {
		return nil, err
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	return c, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error { return errors.Join(err, os.Chown(path, uid, gid)) })
}

const bouncerConf = `[databases]
bench = host=127.0.0.1 port=%s user=bench
[pgbouncer]
listen_addr = %s
listen_port = %s
unix_socket_dir =
auth_type = any
pool_mode = session
max_client_conn = 500
default_pool_size = 300
client_tls_sslmode = require
client_tls_cert_file = %[4]s/server.pem
client_tls_key_file = %[4]s/server.key
server_tls_sslmode = verify-ca
server_tls_ca_file = %[4]s/ca.pem
server_tls_cert_file = %[4]s/client.pem
server_tls_key_file = %[4]s/client.key
logfile =
pidfile = %[4]s/pid
log_connections = 0
log_disconnections = 0
server_reset_query =
`

func (b *bench) bouncerFiles(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	for to, from := range map[string]string{"server.pem": filepath.Join(b.pg.Dir, "server.pem"), "server.key": filepath.Join(b.pg.Dir, "server.key"),
		"ca.pem": b.client.CA, "client.pem": b.client.Cert, "client.key": b.client.Key} {
		raw, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, to), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}
