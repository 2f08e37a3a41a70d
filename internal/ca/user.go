package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/store"
)

// UserRequest asks for a user's certificates. Identity.Validity.Expires is the wanted end; the time of issue is set
// here. Key is the session key's public half. Logins become the SSH principals. What is Given must still be so when the
// issue is recorded: conditions of the store, without which nothing is signed.
type UserRequest struct {
	Identity identity.User
	Key      crypto.PublicKey
	Logins   []string
	Device   *event.Device
	Given    []store.Op
}

// UserCertificates are one login's certificates over one session key.
type UserCertificates struct {
	SSH        *ssh.Certificate
	TLS        []byte // DER
	DialTicket string
	Expires    time.Time
}

// PreparedUser is a request that was checked; only it can be signed, once.
type PreparedUser struct {
	ca  *CA
	req UserRequest
	ssh *ssh.Certificate
	tls *x509.Certificate
}

// Identity is whom the certificates will name, serial number and times included.
func (p *PreparedUser) Identity() identity.User { return p.req.Identity }

// PrepareUser checks a request and builds both certificates, unsigned.
func (c *CA) PrepareUser(req UserRequest) (*PreparedUser, error) {
	if err := checkKey(req.Key); err != nil {
		return nil, err
	}
	now := c.now().UTC()
	id := &req.Identity
	id.Cluster, id.Validity.IssuedAt = c.cluster, now
	if !now.Before(id.Validity.Expires) || id.Validity.Expires.Sub(now) > identity.MaxLifetime {
		return nil, fmt.Errorf("a user certificate that lives %s", id.Validity.Expires.Sub(now))
	}
	id.Validity.Expires = id.Validity.Expires.UTC().Truncate(time.Second)
	for _, l := range req.Logins {
		if !identity.ValidName(l) {
			return nil, fmt.Errorf("login %q is not fit for a certificate", l)
		}
	}
	if len(req.Logins) == 0 {
		req.Logins = []string{identity.NoLogin(uuid.NewString())}
	}
	p := &PreparedUser{ca: c, req: req}
	if err := p.build(now); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *PreparedUser) build(now time.Time) error {
	id := &p.req.Identity
	number := serial()
	id.Validity.Serial = fmt.Sprintf("%x", number)
	key, err := ssh.NewPublicKey(p.req.Key)
	if err != nil {
		return err
	}
	perms, err := id.SSHPermissions()
	if err != nil {
		return err
	}
	p.ssh = &ssh.Certificate{
		Key: key, Serial: binary.BigEndian.Uint64(number.FillBytes(make([]byte, 16))[8:]), CertType: ssh.UserCert, KeyId: id.Name,
		ValidPrincipals: p.req.Logins, Permissions: perms,
		ValidAfter: uint64(now.Add(-identity.Backdate).Unix()), ValidBefore: uint64(id.Validity.Expires.Unix()),
	}
	p.tls = &x509.Certificate{
		SerialNumber: number, NotBefore: now.Add(-identity.Backdate), NotAfter: id.Validity.Expires,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	return id.X509(p.tls)
}

// Issue writes the audit event, and with it what else the issue brings about, and signs.
func (p *PreparedUser) Issue(ctx context.Context, with ...store.Op) (UserCertificates, error) {
	var out UserCertificates
	id := &p.req.Identity
	expires := id.Validity.Expires
	ev := event.Event{Kind: event.CertCreate, User: id.Name, Success: true, Device: p.req.Device,
		Session:  &event.Session{Addr: addr(id)},
		Resource: &event.Resource{ResourceKind: "user", ResourceName: id.Name, Roles: id.Roles, Expires: &expires, CertSerial: id.Validity.Serial}}
	if id.Device != nil {
		ev.Resource.Attestation = string(id.Device.Level)
	}
	if _, err := p.ca.audit.Record(ctx, ev, append(slices.Clone(p.req.Given), with...)...); err != nil {
		return out, err
	}
	if err := p.ca.signSSH(ctx, keystore.SSHUser, p.ssh); err != nil {
		return out, err
	}
	signer, authority, err := p.ca.tlsAuthority(ctx, keystore.TLSUser)
	if err != nil {
		return out, err
	}
	if out.TLS, err = x509.CreateCertificate(rand.Reader, p.tls, authority, p.req.Key, signer); err != nil {
		return out, fmt.Errorf("sign user certificate: %w", err)
	}
	if out.DialTicket, err = p.ca.DialTicket(ctx, id.Name, expires); err != nil {
		return out, err
	}
	out.SSH, out.Expires = p.ssh, expires
	return out, nil
}

func addr(id *identity.User) string {
	if id.LoginIP.IsValid() {
		return id.LoginIP.String()
	}
	return ""
}

// checkKey takes the keys that programs of ours make: P-256 and Ed25519, and RSA of 2048 bits to 4096 for hosts that
// bring one.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return nil
		}
	case ed25519.PublicKey:
		if len(k) == ed25519.PublicKeySize {
			return nil
		}
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n >= 2048 && n <= 4096 && k.E >= 65537 {
			return nil
		}
	}
	return fmt.Errorf("a key of kind %T is not certified here", key)
}
