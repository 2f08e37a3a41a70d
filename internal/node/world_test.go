//go:build linux

package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/shell"
	"github.com/sallyport/sallyport/internal/snapshot"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "sftp-server" {
		if shell.ServeSFTP(os.Stdin, os.Stdout) != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const (
	clusterName = "example.com"
	nodeID      = "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11"
	nodeName    = "ip-172-31-35-170"
)

// journal keeps events in memory; a hook sees each before it counts as written.
type journal struct {
	mu     sync.Mutex
	events []event.Event
	hook   func(event.Event) error
}

func (r *journal) Write(_ context.Context, ev event.Event) error {
	if err := ev.Complete(clusterName, time.Now); err != nil {
		return err
	}
	if _, err := ev.Marshal(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hook != nil {
		if err := r.hook(ev); err != nil {
			return err
		}
	}
	r.events = append(r.events, ev)
	return nil
}

func (r *journal) of(k event.Kind) []event.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(r.events), func(e event.Event) bool { return e.Kind != k })
}

// world is a cluster with one node that listens on the loopback.
type world struct {
	t              *testing.T
	userCA, hostCA ssh.Signer
	mirror         *snapshot.Mirror
	gate           *gate.Gate
	recorder       *journal
	node           *Node
	login          *shell.Login
	address        string
	revision       uint64
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// accessRole grants everything that an SSH session can have.
func accessRole() *role.Role {
	return &role.Role{Name: "access", Options: role.Options{PortForwarding: true, ForwardAgent: true},
		Allow: role.Conditions{Logins: []string{"{{internal.logins}}"}, NodeLabels: label.Selector{"*": {"*"}}}}
}

func newWorld(t *testing.T, roles ...*role.Role) *world {
	t.Helper()
	w := &world{t: t, userCA: newSigner(t), hostCA: newSigner(t), recorder: &journal{}}
	began := time.Now()
	w.mirror = snapshot.NewMirror(func() time.Duration { return time.Since(began) })
	if len(roles) == 0 {
		roles = []*role.Role{accessRole()}
	}
	settings := cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOptional}, LockingMode: "best_effort"}
	put := []*manifest.Resource{{Kind: manifest.Cap, Spec: &settings}}
	for _, r := range roles {
		put = append(put, &manifest.Resource{Kind: manifest.Role, Spec: r})
	}
	w.mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: put,
		Authorities: &snapshot.Authorities{SSHUser: []ssh.PublicKey{newSigner(t).PublicKey(), w.userCA.PublicKey()}}})
	w.mirror.Confirm(w.mirror.Now())
	w.revision = 1
	host := identity.Host{ID: nodeID, Name: nodeName, Role: identity.RoleNode, Cluster: clusterName}
	w.gate = gate.New(w.mirror, w.recorder, host, time.Now)
	w.login = &shell.Login{Name: "ubuntu", UID: uint32(os.Getuid()), GID: uint32(os.Getgid()), Home: t.TempDir(), Shell: "/bin/sh"}
	w.start(host)
	return w
}

func (w *world) start(host identity.Host) {
	t := w.t
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	hostKey := w.hostKey(host)
	w.node, err = New(Config{Host: host, HostKey: func() ssh.Signer { return hostKey }, Gate: w.gate, Recorder: w.recorder,
		Pictures: w.mirror, Labels: func() label.Set { return label.Set{"env": "test"} }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Now: time.Now, SFTP: []string{self, "sftp-server"}})
	if err != nil {
		t.Fatal(err)
	}
	w.node.lookup = func(name string) (*shell.Login, error) {
		if name == "gone" {
			return shell.Lookup("no-such-login")
		}
		return w.login, nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.address = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { w.gate.Run(ctx) })
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() { w.node.Handle(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		l.Close()
		running.Wait() // everything that a connection started is over
	})
}

func (w *world) hostKey(host identity.Host) ssh.Signer {
	key := newSigner(w.t)
	perms, err := host.SSHPermissions()
	if err != nil {
		w.t.Fatal(err)
	}
	cert := &ssh.Certificate{Key: key.PublicKey(), CertType: ssh.HostCert, KeyId: host.ID, ValidPrincipals: []string{host.ID, host.Name},
		Permissions: perms, ValidAfter: uint64(time.Now().Add(-time.Minute).Unix()), ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	return sign(w.t, cert, w.hostCA, key)
}

func sign(t testing.TB, cert *ssh.Certificate, authority, key ssh.Signer) ssh.Signer {
	t.Helper()
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// user is who logs in, unless a test says otherwise.
func (w *world) user() *identity.User {
	now := time.Now()
	return &identity.User{Name: "myuser", Cluster: clusterName, Kind: identity.Human, Roles: []string{"access"}, KeyPolicy: identity.KeyAnywhere,
		Traits:   map[string][]string{"logins": {"ubuntu", "gone"}},
		Grant:    identity.Grant{PTY: true, PortForwarding: true, AgentForwarding: true},
		Validity: identity.Validity{IssuedAt: now, Expires: now.Add(time.Hour)}}
}

// unsigned is a user's certificate that a test may change before it is signed.
func (w *world) unsigned(u *identity.User, key ssh.PublicKey) *ssh.Certificate {
	perms, err := u.SSHPermissions()
	if err != nil {
		w.t.Fatal(err)
	}
	return &ssh.Certificate{Key: key, CertType: ssh.UserCert, KeyId: u.Name, ValidPrincipals: []string{"ubuntu", "gone"}, Permissions: perms,
		ValidAfter:  uint64(u.Validity.IssuedAt.Add(-identity.Backdate).Unix()),
		ValidBefore: uint64(u.Validity.Expires.Unix())}
}

func (w *world) signer() ssh.Signer {
	key := newSigner(w.t)
	return sign(w.t, w.unsigned(w.user(), key.PublicKey()), w.userCA, key)
}

// dial connects as x/crypto's client.
func (w *world) dial(s ssh.Signer, login string) (*ssh.Client, error) {
	checker := &ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool {
		return bytes.Equal(k.Marshal(), w.hostCA.PublicKey().Marshal())
	}}
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		return nil, err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, nodeName+":0", &ssh.ClientConfig{User: login,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(s)}, HostKeyCallback: checker.CheckHostKey, HostKeyAlgorithms: []string{ssh.CertAlgoECDSA256v01}})
	if err != nil {
		conn.Close()
		return nil, err
	}
	client := ssh.NewClient(c, chans, reqs)
	w.t.Cleanup(func() { client.Close() })
	return client, nil
}

func (w *world) client() *ssh.Client {
	w.t.Helper()
	c, err := w.dial(w.signer(), "ubuntu")
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

// apply changes the picture.
func (w *world) apply(kind manifest.Kind, spec any) {
	w.revision++
	w.mirror.Apply(snapshot.Change{Revision: w.revision, Put: []*manifest.Resource{{Kind: kind, Spec: spec}}})
}

func (w *world) lock() {
	w.apply(manifest.Lock, &lock.Lock{Name: "l1", Target: lock.Target{User: "myuser"}})
}

const lockedLine = `lock targeting User:"myuser" is in force`

// await asks until it is so; for what other processes do, which no channel tells of.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Errorf("not within 5 s: %s", what)
}

// echo is a server that answers what it is sent.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

// files writes what stock OpenSSH programs need, and gives the options that name it.
func (w *world) files(key ssh.Signer, raw *ecdsa.PrivateKey) (dir string, options []string) {
	t := w.t
	dir = t.TempDir()
	block, err := ssh.MarshalPrivateKey(raw, "")
	if err != nil {
		t.Fatal(err)
	}
	identityFile := filepath.Join(dir, "id")
	known := "@cert-authority * " + string(ssh.MarshalAuthorizedKey(w.hostCA.PublicKey()))
	err = errors.Join(
		os.WriteFile(identityFile, pemBytes(block), 0o600),
		os.WriteFile(identityFile+"-cert.pub", ssh.MarshalAuthorizedKey(key.PublicKey()), 0o600),
		os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(known), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(w.address)
	options = []string{"-F", "none", "-o", "Port=" + port, "-o", "IdentitiesOnly=yes", "-o", "IdentityFile=" + identityFile,
		"-o", "CertificateFile=" + identityFile + "-cert.pub", "-o", "UserKnownHostsFile=" + filepath.Join(dir, "known_hosts"),
		"-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=" + nodeName, "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"}
	return dir, options
}

func (w *world) openSSH(u *identity.User) (dir string, options []string) {
	raw, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.files(sign(w.t, w.unsigned(u, key.PublicKey()), w.userCA, key), raw)
}

func contains(t *testing.T, where, what string) {
	t.Helper()
	if !strings.Contains(where, what) {
		t.Errorf("%q has no %q", where, what)
	}
}
