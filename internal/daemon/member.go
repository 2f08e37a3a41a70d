package daemon

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/client"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// member is a host of the cluster: its keys and certificates, kept in a file and renewed.
type member struct {
	file string
	role identity.HostRole

	mu   sync.Mutex
	kept kept // guarded by mu
	tls  *tls.Certificate
	ssh  ssh.Signer
}

// kept is the file, JSON with mode 0600.
type kept struct {
	ID         string   `json:"id"`
	Name       string   `json:"name,omitempty"`
	Cluster    string   `json:"cluster"`
	Authority  []byte   `json:"authority"`
	TLS        []byte   `json:"tls_certificate"`
	SSH        []byte   `json:"ssh_certificate"`
	TLSKey     []byte   `json:"tls_key"`
	SSHKey     []byte   `json:"ssh_key"`
	PublicAddr []string `json:"public_addr,omitempty"`
}

// joining is how a host that is not yet a member becomes one.
type joining struct {
	token      string
	name       string
	publicAddr []string
	authority  *x509.Certificate
	call       func(client.Address) *client.Cluster
	addr       string
}

// loadMember reads a member; fs.ErrNotExist where the host never joined.
func loadMember(file string, role identity.HostRole) (*member, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &member{file: file, role: role}
	if err := json.Unmarshal(raw, &m.kept); err != nil {
		return nil, fault.New(fault.Invalid, "%s is damaged", file).WithFix("remove it and join the host anew").Wrapping(err)
	}
	return m, m.use(m.kept)
}

// join spends a token and keeps what it brings.
func join(ctx context.Context, file string, role identity.HostRole, j joining) (*member, string, error) {
	tlsKey, sshKey, err := newHostKeys()
	if err != nil {
		return nil, "", err
	}
	sshPublic, err := ssh.NewPublicKey(sshKey.Public())
	if err != nil {
		return nil, "", err
	}
	c := j.call(client.Address{Addr: j.addr, Cluster: j.authority.Subject.CommonName, Authority: j.authority})
	defer c.Close()
	got, err := hosts.New(c).Join(ctx, hosts.Request{Token: j.token, Role: role, Name: j.name, TLSKey: tlsKey.Public(), SSHKey: sshPublic, PublicAddr: j.publicAddr})
	if err != nil {
		return nil, "", err
	}
	m := &member{file: file, role: role}
	k := kept{ID: got.ID, Name: got.Name, Cluster: got.Cluster, Authority: j.authority.Raw, TLS: got.TLS, SSH: got.SSH, PublicAddr: j.publicAddr}
	if k.TLSKey, err = x509.MarshalPKCS8PrivateKey(tlsKey); err != nil {
		return nil, "", err
	}
	if k.SSHKey, err = x509.MarshalPKCS8PrivateKey(sshKey); err != nil {
		return nil, "", err
	}
	if err := m.use(k); err != nil {
		return nil, "", err
	}
	return m, got.Notice, m.save()
}

func newHostKeys() (tlsKey, sshKey *ecdsa.PrivateKey, err error) {
	if tlsKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, nil, err
	}
	sshKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	return tlsKey, sshKey, err
}

// use takes keys and certificates into service.
func (m *member) use(k kept) error {
	tlsKey, err := privateKey(k.TLSKey)
	if err != nil {
		return err
	}
	sshKey, err := privateKey(k.SSHKey)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromSigner(sshKey)
	if err != nil {
		return err
	}
	if len(k.SSH) > 0 {
		public, err := ssh.ParsePublicKey(k.SSH)
		if err != nil {
			return fmt.Errorf("host ssh certificate: %w", err)
		}
		cert, ok := public.(*ssh.Certificate)
		if !ok {
			return errors.New("host ssh certificate is none")
		}
		if signer, err = ssh.NewCertSigner(cert, signer); err != nil {
			return err
		}
	}
	leaf, err := x509.ParseCertificate(k.TLS)
	if err != nil {
		return fmt.Errorf("host certificate: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept, m.ssh = k, signer
	m.tls = &tls.Certificate{Certificate: [][]byte{k.TLS}, PrivateKey: tlsKey, Leaf: leaf}
	return nil
}

func privateKey(der []byte) (crypto.Signer, error) {
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("host key: %w", err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, errors.New("host key cannot sign")
	}
	return s, nil
}

func (m *member) save() error {
	m.mu.Lock()
	raw, err := json.MarshalIndent(m.kept, "", "  ")
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return writeFile(m.file, raw)
}

// writeFile replaces a file in one step, 0600.
func writeFile(path string, raw []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Certificate is the member's current TLS certificate.
func (m *member) Certificate() *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tls
}

// HostKey is the member's current SSH host key with its certificate.
func (m *member) HostKey() ssh.Signer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ssh
}

func (m *member) host() identity.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	return identity.Host{ID: m.kept.ID, Role: m.role, Name: m.kept.Name, Cluster: m.kept.Cluster}
}

func (m *member) address(addr string) (client.Address, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	authority, err := x509.ParseCertificate(m.kept.Authority)
	if err != nil {
		return client.Address{}, fmt.Errorf("cluster authority: %w", err)
	}
	return client.Address{Addr: addr, Cluster: m.kept.Cluster, Authority: authority}, nil
}

// renewEvery is how long until a certificate with these ends is to be renewed: after a third of its life.
func renewEvery(leaf *x509.Certificate, now time.Time) time.Duration {
	return max(0, leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore)/3).Sub(now))
}

// renew gets new certificates for the same keys.
func (m *member) renew(ctx context.Context, c *client.Cluster) error {
	cert := m.Certificate()
	m.mu.Lock()
	k := m.kept
	m.mu.Unlock()
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("host key cannot sign")
	}
	sshKey, err := privateKey(k.SSHKey)
	if err != nil {
		return err
	}
	public, err := ssh.NewPublicKey(sshKey.Public())
	if err != nil {
		return err
	}
	got, err := hosts.New(c).Renew(ctx, hosts.Request{TLSKey: key.Public(), SSHKey: public, PublicAddr: k.PublicAddr})
	if err != nil {
		return err
	}
	k.TLS, k.SSH = got.TLS, got.SSH
	if err := m.use(k); err != nil {
		return err
	}
	return m.save()
}

// keepRenewed renews until ctx ends; a cluster that cannot be reached is asked again every minute.
func (m *member) keepRenewed(ctx context.Context, c *client.Cluster) error {
	for {
		wait := renewEvery(m.Certificate().Leaf, time.Now())
		select {
		case <-time.After(max(wait, time.Second)):
		case <-ctx.Done():
			return nil
		}
		if err := m.renew(ctx, c); err != nil {
			if fault.Because(err, "host_removed") {
				return err
			}
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
				return nil
			}
		}
	}
}

// member finds this host's identity for a role, or joins.
func (d *daemon) member(role identity.HostRole, name, addr string, publicAddr []string) (*member, error) {
	file := d.memberFile(role)
	m, err := loadMember(file, role)
	if err == nil && (d.auth == nil || m.host().Cluster == d.auth.host.Cluster) {
		return d.standing(m, publicAddr)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	j, err := d.joining(role, name, addr)
	if err != nil {
		return nil, err
	}
	j.publicAddr = publicAddr
	m, notice, err := join(d.ctx, file, role, j)
	if notice != "" {
		fmt.Fprintln(d.Out, notice)
	}
	return m, err
}

// standing refuses a member whose certificates are over: only a new token brings it back.
func (d *daemon) standing(m *member, publicAddr []string) (*member, error) {
	m.kept.PublicAddr = publicAddr
	leaf := m.Certificate().Leaf
	if now := time.Now(); now.After(leaf.NotAfter) {
		if d.auth != nil {
			if err := os.Remove(m.file); err != nil {
				return nil, err
			}
			return d.member(m.role, m.host().Name, d.state.Auth, publicAddr)
		}
		return nil, fault.New(fault.Unauthenticated, "this host's certificate has expired").WithReason("host_expired").
			WithCause("it ended %s ago; a host that is away for longer than %s has to join anew", now.Sub(leaf.NotAfter).Truncate(time.Second), ca.HostLife).
			WithFix("remove %s, then: tctl tokens add --type=%s", m.file, m.role)
	}
	return m, nil
}

// joining says how to join: with a token of this process's own auth, or as the config says.
func (d *daemon) joining(role identity.HostRole, name, addr string) (joining, error) {
	call := func(a client.Address) *client.Cluster { return a.Call(nil) }
	if role == identity.RoleProxy {
		call = client.Address.CallAuth
	}
	if d.auth != nil {
		token, err := d.hostToken(role, name)
		return joining{token: token, name: name, authority: d.auth.public.TLSHost, call: call, addr: addr}, err
	}
	c := d.Config.Join
	token, err := readToken(c.Token)
	if err != nil {
		return joining{}, err
	}
	j := joining{token: token, name: name, call: call, addr: addr}
	if role == identity.RoleProxy {
		j.authority, err = client.FirstAuth(d.ctx, addr, c.CAPins)
	} else {
		j.authority, err = client.FirstContact(d.ctx, addr, c.CAPins, false)
	}
	return j, err
}

// readToken takes a token as it is, or from @FILE.
func readToken(s string) (string, error) {
	path, isFile := strings.CutPrefix(s, "@")
	if !isFile {
		return s, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "join token: %v", err).WithReason("config")
	}
	return strings.TrimSpace(string(raw)), nil
}
