//go:build linux

package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/peer"
)

const target = "ip-172-31-35-170"

func newKey(t testing.TB) (*ecdsa.PrivateKey, ssh.Signer) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return k, s
}

func newSigner(t testing.TB) ssh.Signer { _, s := newKey(t); return s }

func certify(t testing.TB, c *ssh.Certificate, ca, key ssh.Signer) ssh.Signer {
	t.Helper()
	c.Key = key.PublicKey()
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewCertSigner(c, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counting counts signatures, each of which may be a touch of hardware.
type counting struct {
	ssh.Signer
	mu sync.Mutex
	n  int
}

func (c *counting) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()
	return c.Signer.Sign(r, data)
}

func (c *counting) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

type authorities struct{ user, host ssh.Signer }

func newAuthorities(t testing.TB) authorities { return authorities{newSigner(t), newSigner(t)} }

func (a authorities) hostCert(t testing.TB) *ssh.Certificate {
	perms, err := identity.Host{ID: "id", Role: identity.RoleNode, Name: target, Cluster: "example.com"}.SSHPermissions()
	if err != nil {
		t.Fatal(err)
	}
	return &ssh.Certificate{CertType: ssh.HostCert, KeyId: "id", ValidPrincipals: []string{"id", target}, Permissions: perms,
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
}

// signer is a user's, who may be root and whoever runs this test.
func (a authorities) signer(t testing.TB) *counting {
	c := &ssh.Certificate{CertType: ssh.UserCert, KeyId: "myuser", ValidPrincipals: []string{"root", me(t)},
		ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
		Permissions: ssh.Permissions{Extensions: map[string]string{"permit-pty": "", "permit-port-forwarding": "", "permit-agent-forwarding": ""}}}
	return &counting{Signer: certify(t, c, a.user, newSigner(t))}
}

func me(t testing.TB) string {
	out, err := exec.Command("id", "-un").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func (a authorities) config(t testing.TB) Config {
	return Config{Login: me(t), Signer: a.signer(t), HostAuthorities: []ssh.PublicKey{newSigner(t).PublicKey(), a.host.PublicKey()}, Target: target, Now: time.Now}
}

// sshd is OpenSSH's server, which is not ours, with a host certificate of the cluster's.
func sshd(t *testing.T) *Client {
	t.Helper()
	program := peer.Any(t, "sshd", "/usr/sbin/sshd")
	a := newAuthorities(t)
	dir := t.TempDir()
	raw, key := newKey(t)
	block, err := ssh.MarshalPrivateKey(raw, "")
	if err != nil {
		t.Fatal(err)
	}
	cert := certify(t, a.hostCert(t), a.host, key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	_, port, _ := net.SplitHostPort(address)
	_ = os.MkdirAll("/run/sshd", 0o755) // it wants it, and has no option for another
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%s\nHostKey %s/key\nHostCertificate %s/cert\nTrustedUserCAKeys %s/ca\nPidFile none\nUsePAM no\n"+
		"StrictModes no\nPermitRootLogin yes\nAllowAgentForwarding yes\nSubsystem sftp internal-sftp\nAcceptEnv LC_*\n", port, dir, dir, dir)
	err = errors.Join(os.WriteFile(dir+"/key", pem.EncodeToMemory(block), 0o600),
		os.WriteFile(dir+"/cert", ssh.MarshalAuthorizedKey(cert.PublicKey()), 0o600),
		os.WriteFile(dir+"/ca", ssh.MarshalAuthorizedKey(a.user.PublicKey()), 0o600),
		os.WriteFile(dir+"/config", []byte(config), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-D", "-e", "-f", filepath.Join(dir, "config"))
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var conn net.Conn
	for range 500 {
		if conn, err = net.Dial("tcp", address); err == nil {
			break
		}
		time.Sleep(10 * time.Millisecond) // another program's start
	}
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(context.Background(), conn, a.config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// stand is a server that a test scripts: it takes the authentication and hands over the rest.
func stand(t *testing.T, script func(*ssh.ServerConn, <-chan ssh.NewChannel)) *Client {
	t.Helper()
	a := newAuthorities(t)
	client, err := Dial(context.Background(), a.serve(t, certify(t, a.hostCert(t), a.host, newSigner(t)), script), a.config(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (a authorities) serve(t *testing.T, host ssh.Signer, script func(*ssh.ServerConn, <-chan ssh.NewChannel)) net.Conn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(host)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer other.Close()
		server, channels, requests, err := ssh.NewServerConn(other, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		script(server, channels)
		server.Close()
	}()
	t.Cleanup(func() { conn.Close(); other.Close(); <-done })
	return conn
}
