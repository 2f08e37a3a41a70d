package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
)

// HostLife is how long a host's certificates live; hosts renew them by themselves after a third of it.
const HostLife = 7 * 24 * time.Hour

// HostRequest asks for a host's certificates. PublicAddr, of a proxy, are the HOST:PORT that people type.
type HostRequest struct {
	Host       identity.Host
	TLSKey     crypto.PublicKey
	SSHKey     ssh.PublicKey // nil where the host speaks no SSH
	PublicAddr []string
}

// HostCertificates are a host's certificates; SSH is nil where no SSH key was given.
type HostCertificates struct {
	TLS []byte // DER
	SSH *ssh.Certificate
}

// PreparedHost is a request that was checked; only it can be signed.
type PreparedHost struct {
	ca     *CA
	req    HostRequest
	tls    *x509.Certificate
	ssh    *ssh.Certificate
	serial string
}

// PrepareHost checks a request and builds the certificates, unsigned.
func (c *CA) PrepareHost(req HostRequest) (*PreparedHost, error) {
	if err := checkKey(req.TLSKey); err != nil {
		return nil, err
	}
	for _, n := range append([]string{req.Host.Name}, req.PublicAddr...) {
		if strings.ContainsAny(n, "*?!") {
			return nil, fmt.Errorf("host name %q is a pattern: what matches it would be others' names", n)
		}
	}
	req.Host.Cluster = c.cluster
	now := c.now().UTC()
	number := serial()
	p := &PreparedHost{ca: c, req: req, serial: fmt.Sprintf("%x", number)}
	p.tls = &x509.Certificate{
		SerialNumber: number, NotBefore: now.Add(-identity.Backdate), NotAfter: now.Add(HostLife).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if req.Host.Role == identity.RoleProxy {
		if err := c.publicNames(p.tls, req.PublicAddr); err != nil {
			return nil, err
		}
	}
	if err := req.Host.X509(p.tls); err != nil {
		return nil, err
	}
	if req.SSHKey == nil {
		return p, nil
	}
	return p, p.buildSSH(now)
}

func (p *PreparedHost) buildSSH(now time.Time) error {
	if certKey, ok := p.req.SSHKey.(ssh.CryptoPublicKey); !ok || checkKey(certKey.CryptoPublicKey()) != nil {
		return fmt.Errorf("an SSH host key of type %s is not certified here", p.req.SSHKey.Type())
	}
	perms, err := p.req.Host.SSHPermissions()
	if err != nil {
		return err
	}
	principals := []string{p.req.Host.ID}
	if p.req.Host.Name != "" {
		principals = append(principals, p.req.Host.Name)
	}
	if p.req.Host.Role == identity.RoleProxy {
		principals = append(principals, p.tls.DNSNames...)
		for _, ip := range p.tls.IPAddresses {
			principals = append(principals, ip.String())
		}
	}
	p.ssh = &ssh.Certificate{
		Key: p.req.SSHKey, Serial: binary.BigEndian.Uint64(p.tls.SerialNumber.FillBytes(make([]byte, 16))[8:]),
		CertType: ssh.HostCert, KeyId: p.req.Host.ID, ValidPrincipals: principals, Permissions: perms,
		ValidAfter: uint64(p.tls.NotBefore.Unix()), ValidBefore: uint64(p.tls.NotAfter.Unix()),
	}
	return nil
}

// publicNames adds a proxy's public addresses, none of which may be a name that means something inside the cluster.
func (c *CA) publicNames(t *x509.Certificate, addrs []string) error {
	for _, a := range addrs {
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			host = a
		}
		host = strings.ToLower(host)
		if ip := net.ParseIP(host); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
			continue
		}
		for _, reserved := range []string{"auth.", "proxy."} {
			if host == reserved+c.cluster {
				return fmt.Errorf("public address %q is a name of the cluster's own", a)
			}
		}
		for _, kind := range []string{"node", "db", "kube", "app"} {
			if strings.HasSuffix(host, "."+kind+"."+c.cluster) {
				return fmt.Errorf("public address %q is a name of the cluster's own", a)
			}
		}
		if host != "" {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	return nil
}

// Issue writes the audit event and signs.
func (p *PreparedHost) Issue(ctx context.Context) (HostCertificates, error) {
	var out HostCertificates
	ends := p.tls.NotAfter
	ev := event.Event{Kind: event.CertCreate, User: "host:" + p.req.Host.ID, Success: true,
		Resource: &event.Resource{ResourceKind: string(p.req.Host.Role), ResourceName: p.req.Host.Name, Expires: &ends, CertSerial: p.serial}}
	if _, err := p.ca.audit.Record(ctx, ev); err != nil {
		return out, err
	}
	signer, authority, err := p.ca.tlsAuthority(ctx, keystore.TLSHost)
	if err != nil {
		return out, err
	}
	if out.TLS, err = x509.CreateCertificate(rand.Reader, p.tls, authority, p.req.TLSKey, signer); err != nil {
		return out, fmt.Errorf("sign host certificate: %w", err)
	}
	if p.ssh != nil {
		// A proxy says itself which names people type for it; under the nodes' authority it could say a node's.
		use := keystore.SSHHost
		if p.req.Host.Role == identity.RoleProxy {
			use = keystore.SSHJump
		}
		if err := p.ca.signSSH(ctx, use, p.ssh); err != nil {
			return out, err
		}
		out.SSH = p.ssh
	}
	return out, nil
}
