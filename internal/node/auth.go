package node

import (
	"context"
	"errors"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/sshcert"
	"github.com/sallyport/sallyport/internal/turnstile"
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

type userKey struct{}

func (n *Node) handshake(ctx context.Context, conn net.Conn) (*authenticated, error) {
	key := n.HostKey()
	if key == nil {
		return nil, errors.New("no host key yet")
	}
	_ = conn.SetDeadline(time.Now().Add(handshakeTime))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	bounded := turnstile.Bound(conn, handshakeBytes)
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
	bounded.LetThrough()
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
	var u *sshcert.Unfit
	if errors.As(why, &u) {
		word, err = u.Reason, u
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

// verify takes a user certificate of this cluster that names the login.
func (n *Node) verify(login string, key ssh.PublicKey) (*identity.User, error) {
	if login == "" {
		return nil, &sshcert.Unfit{Reason: "principal", Text: "no login is named"}
	}
	picture, _ := n.Pictures.Current()
	return sshcert.Rules{Authorities: picture.Authorities.SSHUser, Cluster: n.Host.Cluster, Now: n.Now()}.User(login, key)
}
