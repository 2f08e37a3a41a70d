// Package ca issues certificates, in two steps: Prepare checks everything and returns a token, and only the token can
// be signed. The audit event is written before the signature exists.
package ca

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/keystore"
	"github.com/sallyport/sallyport/internal/store"
)

// authorityLife is how long an authority's own certificate is valid.
const authorityLife = 10 * 365 * 24 * time.Hour

// Recorder writes an audit event durably, or fails.
type Recorder interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
}

// CA issues for one cluster. Its methods may be called by many goroutines at once.
type CA struct {
	keys    *keystore.Keys
	cluster string
	audit   Recorder
	now     func() time.Time
}

// New makes the issuer; keys and audit stay the caller's.
func New(keys *keystore.Keys, cluster string, audit Recorder, now func() time.Time) *CA {
	return &CA{keys: keys, cluster: cluster, audit: audit, now: now}
}

// Public is what others verify by: the public halves of the authorities.
type Public struct {
	SSHUser    ssh.PublicKey
	SSHHost    ssh.PublicKey
	SSHJump    ssh.PublicKey
	TLSUser    *x509.Certificate
	TLSHost    *x509.Certificate
	DialTicket ed25519.PublicKey
	AuditHeads ed25519.PublicKey
}

// Cluster is the name of the cluster that this issues for.
func (c *CA) Cluster() string { return c.cluster }

// Public gives the public halves, making the keys at the first call.
func (c *CA) Public(ctx context.Context) (Public, error) {
	var p Public
	var err error
	if p.SSHUser, err = c.sshPublic(ctx, keystore.SSHUser); err != nil {
		return p, err
	}
	if p.SSHHost, err = c.sshPublic(ctx, keystore.SSHHost); err != nil {
		return p, err
	}
	if p.SSHJump, err = c.sshPublic(ctx, keystore.SSHJump); err != nil {
		return p, err
	}
	if _, p.TLSUser, err = c.tlsAuthority(ctx, keystore.TLSUser); err != nil {
		return p, err
	}
	if _, p.TLSHost, err = c.tlsAuthority(ctx, keystore.TLSHost); err != nil {
		return p, err
	}
	for use, to := range map[keystore.Use]*ed25519.PublicKey{keystore.DialTickets: &p.DialTicket, keystore.AuditHeads: &p.AuditHeads} {
		s, _, err := c.keys.Signer(ctx, use)
		if err != nil {
			return p, err
		}
		*to, _ = s.Public().(ed25519.PublicKey)
	}
	return p, nil
}

func (c *CA) sshPublic(ctx context.Context, use keystore.Use) (ssh.PublicKey, error) {
	s, _, err := c.keys.Signer(ctx, use)
	if err != nil {
		return nil, err
	}
	return ssh.NewPublicKey(s.Public())
}

func (c *CA) tlsAuthority(ctx context.Context, use keystore.Use) (crypto.Signer, *x509.Certificate, error) {
	return c.authority(ctx, use, c.cluster)
}

// authority is a use's key with its certificate, made under a common name at the first call.
func (c *CA) authority(ctx context.Context, use keystore.Use, name string) (crypto.Signer, *x509.Certificate, error) {
	a, err := c.keys.Authority(ctx, use, func(s crypto.Signer) ([]byte, error) {
		now := c.now().UTC()
		t := &x509.Certificate{
			SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
			NotBefore: now.Add(-identity.Backdate), NotAfter: now.Add(authorityLife),
			IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
			KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		}
		return x509.CreateCertificate(rand.Reader, t, t, s.Public(), s)
	})
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(a.Cert)
	return a.Signer, cert, err
}

// DialTicket signs a ticket that opens a path to gates until expires.
func (c *CA) DialTicket(ctx context.Context, user string, expires time.Time) (string, error) {
	s, _, err := c.keys.Signer(ctx, keystore.DialTickets)
	if err != nil {
		return "", err
	}
	return identity.SignTicket(s, user, expires)
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// signSSH fills in the nonce-free parts of a certificate and signs it.
func (c *CA) signSSH(ctx context.Context, use keystore.Use, cert *ssh.Certificate) error {
	s, _, err := c.keys.Signer(ctx, use)
	if err != nil {
		return err
	}
	signer, err := ssh.NewSignerFromSigner(s)
	if err != nil {
		return err
	}
	if err := cert.SignCert(rand.Reader, signer); err != nil {
		return fmt.Errorf("sign ssh certificate: %w", err)
	}
	return nil
}
