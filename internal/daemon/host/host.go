// Package host is a host of the cluster as it lies on disk: its keys and certificates, joined for and renewed.
package host

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
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Member is a host of the cluster: its keys and certificates, kept in a file and renewed.
type Member struct {
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

// Joining is how a host that is not yet a member becomes one.
type Joining struct {
	Token      string
	Name       string
	PublicAddr []string
	Authority  *x509.Certificate
	Call       func(client.Address) *client.Cluster
	Addr       string
}

// Load reads a member; fs.ErrNotExist where the host never joined.
func Load(file string, role identity.HostRole) (*Member, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	m := &Member{file: file, role: role}
	if err := json.Unmarshal(raw, &m.kept); err != nil {
		return nil, fault.New(fault.Invalid, "%s is damaged", file).WithFix("remove it and join the host anew").Wrapping(err)
	}
	return m, m.use(m.kept)
}

// Join spends a token and keeps what it brings.
func Join(ctx context.Context, file string, role identity.HostRole, j Joining) (*Member, string, error) {
	tlsKey, sshKey, err := newHostKeys()
	if err != nil {
		return nil, "", err
	}
	sshPublic, err := ssh.NewPublicKey(sshKey.Public())
	if err != nil {
		return nil, "", err
	}
	c := j.Call(client.Address{Addr: j.Addr, Cluster: j.Authority.Subject.CommonName, Authority: j.Authority})
	defer c.Close()
	got, err := hosts.New(c).Join(ctx, hosts.Request{Token: j.Token, Role: role, Name: j.Name, TLSKey: tlsKey.Public(), SSHKey: sshPublic, PublicAddr: j.PublicAddr})
	if err != nil {
		return nil, "", err
	}
	m := &Member{file: file, role: role}
	k := kept{ID: got.ID, Name: got.Name, Cluster: got.Cluster, Authority: j.Authority.Raw, TLS: got.TLS, SSH: got.SSH, PublicAddr: j.PublicAddr}
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
func (m *Member) use(k kept) error {
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

func (m *Member) save() error {
	m.mu.Lock()
	raw, err := json.MarshalIndent(m.kept, "", "  ")
	m.mu.Unlock()
	if err != nil {
		return err
	}
	return WriteFile(m.file, raw)
}

// WriteFile replaces a file in one step, 0600.
func WriteFile(path string, raw []byte) error {
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
func (m *Member) Certificate() *tls.Certificate {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.tls
}

// HostKey is the member's current SSH host key with its certificate.
func (m *Member) HostKey() ssh.Signer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ssh
}

func (m *Member) Host() identity.Host {
	m.mu.Lock()
	defer m.mu.Unlock()
	return identity.Host{ID: m.kept.ID, Role: m.role, Name: m.kept.Name, Cluster: m.kept.Cluster}
}

func (m *Member) Address(addr string) (client.Address, error) {
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
func (m *Member) renew(ctx context.Context, c *client.Cluster) error {
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

// KeepRenewed renews until ctx ends; a cluster that cannot be reached is asked again every minute.
func (m *Member) KeepRenewed(ctx context.Context, c *client.Cluster) error {
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

// SetPublicAddr is what the host's next certificates are to say of its public addresses.
func (m *Member) SetPublicAddr(addrs []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.kept.PublicAddr = addrs
}

// File is where the member lies.
func (m *Member) File() string { return m.file }
