// Package keystore keeps the cluster's signing keys, sealed, in the store.
//
// A key is generated when it is first asked for and lives under `keys/USE`. It is sealed with XChaCha20-Poly1305 by
// the seal key, a file beside the state that further auth servers are given by hand; the use, the key's id and its
// certificate are authenticated with it, so a sealed key cannot be moved to another use. P-256 keys sign
// certificates, Ed25519 keys sign audit heads and dial tickets.
package keystore

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// Use is what a key is for. Beside the named ones there is one for each database resource (DB).
type Use string

// The uses.
const (
	SSHUser     Use = "ssh-user"
	SSHHost     Use = "ssh-host"
	SSHJump     Use = "ssh-jump" // proxies, as jump hosts: nobody takes them for a node
	TLSUser     Use = "tls-user"
	TLSHost     Use = "tls-host"
	OpenSSH     Use = "openssh"
	AuditHeads  Use = "audit-heads"
	DialTickets Use = "dial-tickets"
)

const dbPrefix = "db/"

// DB is the use of a database resource's own authority.
func DB(name string) Use { return Use(dbPrefix + name) }

// Authority is a key with the certificate that was made for it. Cert is DER, nil for a key without one.
type Authority struct {
	Use    Use
	ID     string // 32 hex digits of the SHA-256 of the public key's SPKI
	Signer crypto.Signer
	Cert   []byte
}

// Keys gives signing keys. Its methods may be called by many goroutines at once; it holds nothing to close.
type Keys struct {
	store store.Store
	seal  sealer

	mu    sync.Mutex
	known map[Use]Authority // guarded by mu
}

// Open reads the seal key from a file, which it creates (0600) when neither it nor any sealed state exists. A file
// that is missing, readable by others, or not the one that the state was sealed with is a fault that says so. The
// store stays the caller's to close.
func Open(ctx context.Context, s store.Store, sealKeyFile string) (*Keys, error) {
	seal, err := openSeal(ctx, s, sealKeyFile)
	if err != nil {
		return nil, err
	}
	return &Keys{store: s, seal: seal, known: make(map[Use]Authority)}, nil
}

// Signer returns the key of a use and its id, and creates it on first demand; servers that race end with the same
// key.
func (k *Keys) Signer(ctx context.Context, use Use) (crypto.Signer, string, error) {
	a, err := k.load(ctx, use, nil)
	return a.Signer, a.ID, err
}

// Authority returns the key of a use with its certificate. Where either is still missing it is created: certify gets
// the key and returns the certificate's DER, of which, among servers that race, one is kept for all. certify must not call k.
func (k *Keys) Authority(ctx context.Context, use Use, certify func(crypto.Signer) ([]byte, error)) (Authority, error) {
	if certify == nil {
		return Authority{}, errors.New("authority without a way to certify it")
	}
	return k.load(ctx, use, certify)
}

// load finds the authority in memory, then in store, then makes what is missing; it begins anew when another server
// was faster.
func (k *Keys) load(ctx context.Context, use Use, certify func(crypto.Signer) ([]byte, error)) (Authority, error) {
	newKey, err := use.generator()
	if err != nil {
		return Authority{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if a, ok := k.known[use]; ok && (certify == nil || a.Cert != nil) {
		return a, nil
	}
	for {
		a, revision, err := k.read(ctx, use)
		if err == nil && (certify == nil || a.Cert != nil) {
			k.known[use] = a
			return a, nil
		}
		if errors.Is(err, store.ErrNotFound) {
			a, err = generate(use, newKey)
		}
		if err != nil {
			return Authority{}, err
		}
		if certify != nil {
			if a.Cert, err = certify(a.Signer); err != nil {
				return Authority{}, fmt.Errorf("certify authority %s: %w", use, err)
			}
		}
		if err := k.write(ctx, a, revision); err != nil && !errors.Is(err, store.ErrConflict) {
			return Authority{}, err
		}
	}
}

func (u Use) generator() (func() (crypto.Signer, error), error) {
	switch u {
	case SSHUser, SSHHost, SSHJump, TLSUser, TLSHost, OpenSSH:
		return newP256, nil
	case AuditHeads, DialTickets:
		return newEd25519, nil
	}
	if name, ok := strings.CutPrefix(string(u), dbPrefix); ok && name != "" && !strings.Contains(name, "/") {
		return newP256, nil
	}
	return nil, fmt.Errorf("no key has the use %q", string(u))
}

func newP256() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func newEd25519() (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	return key, err
}

func generate(use Use, newKey func() (crypto.Signer, error)) (Authority, error) {
	signer, err := newKey()
	if err != nil {
		return Authority{}, fmt.Errorf("generate key %s: %w", use, err)
	}
	id, err := keyID(signer.Public())
	return Authority{Use: use, ID: id, Signer: signer}, err
}

func keyID(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16]), nil
}

// sealed is a key's record.
type sealed struct {
	ID   string `json:"id"`
	Cert []byte `json:"cert,omitempty"`
	Key  []byte `json:"key"` // nonce and sealed PKCS #8
}

func path(use Use) string { return "keys/" + string(use) }

func (k *Keys) write(ctx context.Context, a Authority, revision uint64) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.Signer)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", a.Use, err)
	}
	rec := sealed{ID: a.ID, Cert: a.Cert, Key: k.seal.seal(der, string(a.Use), a.ID, string(a.Cert))}
	clear(der)
	value, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("encode key %s: %w", a.Use, err)
	}
	ops := []store.Op{store.CheckRevision(path(a.Use), revision), store.Put(path(a.Use), value)}
	if _, err := k.store.Txn(ctx, ops); err != nil {
		return fmt.Errorf("store key %s: %w", a.Use, err)
	}
	return nil
}

func (k *Keys) read(ctx context.Context, use Use) (Authority, uint64, error) {
	r, err := k.store.Get(ctx, path(use))
	if err != nil {
		return Authority{}, 0, fmt.Errorf("read key %s: %w", use, err)
	}
	var rec sealed
	if err := json.Unmarshal(r.Value, &rec); err != nil {
		return Authority{}, 0, damaged(use)
	}
	der, err := k.seal.open(rec.Key, string(use), rec.ID, string(rec.Cert))
	if err != nil {
		return Authority{}, 0, damaged(use)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	clear(der)
	signer, ok := key.(crypto.Signer)
	if err != nil || !ok {
		return Authority{}, 0, damaged(use)
	}
	return Authority{Use: use, ID: rec.ID, Signer: signer, Cert: rec.Cert}, r.Revision, nil
}

// damaged drops what failed underneath: it could quote key bytes.
func damaged(use Use) error {
	return fault.New(fault.Internal, "the signing key %s in the cluster's state was changed or damaged", use).
		WithReason("signing_key_damaged").WithFix("tctl restore FILE")
}
