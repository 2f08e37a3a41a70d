package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
)

// authenticated is a connection whose user has proven the key of a certificate.
type authenticated struct {
	conn     *ssh.ServerConn
	user     *identity.User
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
}

// algorithms are those that authorities of ours certify (see ca); the certificate types follow from them.
var algorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}

// unfit is why a key does not authenticate: a stable word and a sentence.
type unfit struct{ reason, text string }

func (u *unfit) Error() string { return u.text }

type userKey struct{}

func (n *Node) handshake(ctx context.Context, conn net.Conn) (*authenticated, error) {
	key := n.HostKey()
	if key == nil {
		return nil, errors.New("no host key yet")
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	bounded := &boundedConn{Conn: conn}
	bounded.left.Store(handshakeBytes)
	var login string
	var why error
	config := &ssh.ServerConfig{MaxAuthTries: maxAuthTries, ServerVersion: "SSH-2.0-Sallyport", PublicKeyAuthAlgorithms: algorithms}
	// The callback runs before possession is proven, and for keys that are merely asked about: it has no effects.
	config.PublicKeyCallback = func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		u, err := n.verify(meta.User(), key)
		login, why = meta.User(), err
		if err != nil {
			return nil, err
		}
		return &ssh.Permissions{ExtraData: map[any]any{userKey{}: u}}, nil
	}
	config.AddHostKey(key)
	server, channels, requests, err := ssh.NewServerConn(bounded, config)
	if err != nil {
		n.recordUnfit(ctx, conn, login, why, err)
		return nil, err
	}
	bounded.free.Store(true)
	_ = conn.SetDeadline(time.Time{})
	user, ok := server.Permissions.ExtraData[userKey{}].(*identity.User)
	if !ok {
		server.Close()
		return nil, errors.New("authenticated as nobody")
	}
	return &authenticated{server, user, channels, requests}, nil
}

// recordUnfit writes a refused attempt to the audit log, one a connection, where a key was offered at all.
func (n *Node) recordUnfit(ctx context.Context, conn net.Conn, login string, why, err error) {
	if login == "" {
		return
	}
	word := "not_proven"
	var u *unfit
	if errors.As(why, &u) {
		word, err = u.reason, u
	}
	ev := event.Event{Kind: event.Auth, Message: "ssh: " + err.Error(), Session: &event.Session{
		Login: login, ServerID: n.Host.ID, ServerName: n.Host.Name, Protocol: "ssh", Reason: word}}
	if from := addressOf(conn); from.IsValid() {
		ev.Session.Addr = from.Addr().String()
	}
	if err := n.Recorder.Write(ctx, ev); err != nil {
		n.Log.Error("ssh: a refused attempt could not be recorded", "err", err)
	}
}

// verify takes a user certificate of this cluster that names the login (OpenSSH PROTOCOL.certkeys).
func (n *Node) verify(login string, key ssh.PublicKey) (*identity.User, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, &unfit{"not_a_certificate", "a key without a certificate"}
	}
	picture, _ := n.Pictures.Current()
	if err := n.checkCertificate(login, cert, picture.Authorities.SSHUser); err != nil {
		return nil, err
	}
	u, err := identity.FromSSH(cert)
	if err != nil {
		return nil, &unfit{"identity", err.Error()}
	}
	if u.Cluster != n.Host.Cluster {
		return nil, &unfit{"cluster", fmt.Sprintf("a certificate of cluster %q", u.Cluster)}
	}
	return u, nil
}

func (n *Node) checkCertificate(login string, cert *ssh.Certificate, authorities []ssh.PublicKey) error {
	if cert.CertType != ssh.UserCert {
		return &unfit{"not_a_user_certificate", "not a user certificate"}
	}
	ours := func(k ssh.PublicKey) bool {
		return slices.ContainsFunc(authorities, func(a ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), k.Marshal()) })
	}
	if !ours(cert.SignatureKey) {
		return &unfit{"authority", "a certificate of another authority"}
	}
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return &unfit{"authority", "a certificate signed with SHA-1"}
	}
	// No principals means every login to OpenSSH, and none here.
	if !slices.Contains(cert.ValidPrincipals, login) || strings.HasPrefix(login, "-") {
		return &unfit{"principal", fmt.Sprintf("the certificate does not name the login %q", login)}
	}
	if cert.ValidBefore <= cert.ValidAfter || cert.ValidBefore-cert.ValidAfter > uint64((identity.MaxLifetime+identity.Backdate)/time.Second) {
		return &unfit{"lifetime", "a certificate that lives longer than any may"}
	}
	checker := ssh.CertChecker{Clock: n.Now, SupportedCriticalOptions: []string{"source-address"}, IsUserAuthority: ours}
	if err := checker.CheckCert(login, cert); err != nil {
		return &unfit{"certificate", err.Error()}
	}
	return nil
}

// boundedConn reads a bounded number of bytes until it is free.
type boundedConn struct {
	net.Conn
	left atomic.Int64
	free atomic.Bool
}

func (b *boundedConn) Read(p []byte) (int, error) {
	if b.free.Load() {
		return b.Conn.Read(p)
	}
	left := b.left.Load()
	if left <= 0 {
		return 0, errors.New("too much ahead of authentication")
	}
	k, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(k))
	return k, err
}
