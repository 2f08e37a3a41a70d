package ca

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/target"
)

// How long certificates for databases live: an agent's towards a server, a server's unless told, a server's at most, and
// an agent's for the names that it serves.
const (
	DatabaseClientLife    = 5 * time.Minute
	DatabaseServerLife    = 90 * 24 * time.Hour
	DatabaseServerLongest = 365 * 24 * time.Hour
	ServedLife            = 24 * time.Hour
)

// DatabaseRequest asks for a certificate of one database's own authority: a client's, for a database user, or the
// server's own, for its Hosts, names and addresses.
type DatabaseRequest struct {
	By       string // who asks, for the audit log
	Database string
	DBUser   string
	Hosts    []string
	Life     time.Duration // of a server's; 0: DatabaseServerLife
	Key      crypto.PublicKey
}

// DatabaseCertificate is what it gets, DER; Authority is what the other side trusts.
type DatabaseCertificate struct {
	TLS       []byte
	Authority []byte
	Expires   time.Time
}

// PreparedDatabase is a request that was checked; only it can be signed.
type PreparedDatabase struct {
	ca       *CA
	req      DatabaseRequest
	template *x509.Certificate
}

// PrepareDatabase checks a request and builds the certificate, unsigned.
func (c *CA) PrepareDatabase(req DatabaseRequest) (*PreparedDatabase, error) {
	if err := checkKey(req.Key); err != nil {
		return nil, err
	}
	if err := target.CheckServed([]target.Served{{Name: req.Database}}); err != nil {
		return nil, err
	}
	if (req.DBUser == "") == (len(req.Hosts) == 0) {
		return nil, errors.New("a database's certificate is a user's or the server's")
	}
	now := c.now().UTC()
	t := &x509.Certificate{SerialNumber: serial(), NotBefore: now.Add(-identity.Backdate),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true}
	if req.DBUser != "" {
		if !identity.ValidName(req.DBUser) {
			return nil, fmt.Errorf("database user %q is not fit for a certificate", req.DBUser)
		}
		t.Subject, t.NotAfter = pkix.Name{CommonName: req.DBUser}, now.Add(DatabaseClientLife)
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	} else {
		life := req.Life
		if life <= 0 {
			life = DatabaseServerLife
		}
		t.Subject, t.NotAfter = pkix.Name{CommonName: req.Hosts[0]}, now.Add(min(life, DatabaseServerLongest))
		t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		for _, h := range req.Hosts {
			if ip := net.ParseIP(h); ip != nil {
				t.IPAddresses = append(t.IPAddresses, ip)
			} else if identity.ValidName(h) {
				t.DNSNames = append(t.DNSNames, h)
			} else {
				return nil, fmt.Errorf("host %q is no name or address", h)
			}
		}
	}
	t.NotAfter = t.NotAfter.Truncate(time.Second)
	return &PreparedDatabase{c, req, t}, nil
}

// Issue writes the audit event and signs.
func (p *PreparedDatabase) Issue(ctx context.Context) (DatabaseCertificate, error) {
	var out DatabaseCertificate
	ends := p.template.NotAfter
	ev := event.Event{Kind: event.CertCreate, User: p.req.By, Success: true,
		Resource: &event.Resource{ResourceKind: "db", ResourceName: p.req.Database, Expires: &ends, CertSerial: fmt.Sprintf("%x", p.template.SerialNumber)}}
	if p.req.DBUser != "" {
		ev.Action = &event.Action{DBUser: p.req.DBUser}
	}
	if _, err := p.ca.audit.Record(ctx, ev); err != nil {
		return out, err
	}
	signer, authority, err := p.ca.authority(ctx, keystore.DB(p.req.Database), target.SNIName(p.req.Database)+".db."+p.ca.cluster)
	if err != nil {
		return out, err
	}
	if out.TLS, err = x509.CreateCertificate(rand.Reader, p.template, authority, p.req.Key, signer); err != nil {
		return out, fmt.Errorf("sign database certificate: %w", err)
	}
	out.Authority, out.Expires = authority.Raw, ends
	return out, nil
}

// ServedRequest asks for a certificate by which an agent serves resources under their names.
type ServedRequest struct {
	Host  identity.Host
	Key   crypto.PublicKey
	Names []string
}

// PreparedServed is a request that was checked; only it can be signed.
type PreparedServed struct {
	ca       *CA
	req      ServedRequest
	template *x509.Certificate
}

// PrepareServed checks a request and builds the certificate, unsigned. Whether the host may serve these names is the
// caller's to have asked.
func (c *CA) PrepareServed(req ServedRequest) (*PreparedServed, error) {
	if err := checkKey(req.Key); err != nil {
		return nil, err
	}
	if req.Host.Role == identity.RoleAuth || req.Host.Role == identity.RoleProxy || req.Host.Role == identity.RoleNode {
		return nil, fmt.Errorf("a host of role %s serves no resources", req.Host.Role)
	}
	req.Host.Cluster = c.cluster
	now := c.now().UTC()
	t := &x509.Certificate{SerialNumber: serial(), NotBefore: now.Add(-identity.Backdate), NotAfter: now.Add(ServedLife).Truncate(time.Second),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, n := range req.Names {
		t.DNSNames = append(t.DNSNames, req.Host.ServedDNSName(n))
	}
	if err := req.Host.X509(t); err != nil {
		return nil, err
	}
	return &PreparedServed{c, req, t}, nil
}

// Issue writes the audit event and signs; the result is DER.
func (p *PreparedServed) Issue(ctx context.Context) ([]byte, error) {
	ends := p.template.NotAfter
	ev := event.Event{Kind: event.CertCreate, User: "host:" + p.req.Host.ID, Success: true,
		Resource: &event.Resource{ResourceKind: string(p.req.Host.Role), ResourceName: p.req.Host.Name, Expires: &ends, CertSerial: fmt.Sprintf("%x", p.template.SerialNumber)}}
	if _, err := p.ca.audit.Record(ctx, ev); err != nil {
		return nil, err
	}
	signer, authority, err := p.ca.tlsAuthority(ctx, keystore.TLSHost)
	if err != nil {
		return nil, err
	}
	return x509.CreateCertificate(rand.Reader, p.template, authority, p.req.Key, signer)
}
