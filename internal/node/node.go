// Package node is the SSH door: it carries a user's SSH connection (RFC 4251 to 4254) to the gate and to processes of
// this host, and decides nothing.
//
//	handshake   10 s and 64 KiB; a user certificate of the cluster that names the login, nothing else
//	admission   gate.Admit, once a connection; where it refuses, every channel is refused with its words
//	channels    session (shell, exec, sftp, pty, agent), direct-tcpip; tcpip-forward brings forwarded-tcpip
//	end         the gate's cause on each session's standard error, exit status 255, and in the global request
//	            cut@sallyport for who has no session open
package node

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/shell"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/turnstile"
)

// What a connection may cost before its user is known.
const (
	handshakeTime  = 10 * time.Second
	handshakeBytes = 64 << 10
	halfOpen       = 20  // connections from one address
	queued         = 200 // more of them, that wait for their turn unread
	maxAuthTries   = 6
)

// Config is what a node is made of. Every field but Recordings is needed.
type Config struct {
	// Host is this host; users are admitted to its UUID, and to its name where it has one.
	Host identity.Host
	// HostKey gives the current host certificate's signer (ssh.NewCertSigner); it is asked at each connection.
	HostKey func() ssh.Signer
	// Gate admits. Recorder is the gate's own; it takes attempts that fail before there is somebody to ask for.
	Gate     *gate.Gate
	Recorder gate.Recorder
	Pictures gate.Pictures
	// Recordings records what sessions show; with a nil one none is.
	Recordings *recorder.Recorder
	// Labels gives the node's labels, as roles select them.
	Labels func() label.Set
	Log    *slog.Logger
	Now    func() time.Time
	// SFTP is the absolute path and the arguments of the program that serves SFTP over its standard input and output,
	// run as the login: this program again, with an argument that makes it call shell.ServeSFTP.
	SFTP []string
}

// Node serves SSH. Handle may be called by many goroutines at once.
type Node struct {
	Config
	lookup func(string) (*shell.Login, error)

	half *turnstile.Turnstile // connections in their handshake
}

// New makes a node; a config with something missing is an error.
func New(c Config) (*Node, error) {
	switch {
	case c.Host.ID == "" || c.Host.Cluster == "":
		return nil, errors.New("a node without a host")
	case c.HostKey == nil || c.Gate == nil || c.Recorder == nil || c.Pictures == nil:
		return nil, errors.New("a node without a key, gate, recorder or pictures")
	case c.Labels == nil || c.Log == nil || c.Now == nil || len(c.SFTP) == 0:
		return nil, errors.New("a node without labels, log, clock or SFTP program")
	}
	return &Node{Config: c, lookup: shell.Lookup, half: turnstile.New(turnstile.Config{AtOnce: halfOpen, Waiting: queued, Wait: handshakeTime})}, nil
}

// Handle serves one connection, whose RemoteAddr is the client's, and closes it. It returns once nothing of the
// connection is left. When ctx ends the connection is cut.
func (n *Node) Handle(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	from := addressOf(conn)
	done := n.half.Enter(ctx, from.Addr())
	if done == nil {
		n.Log.Debug("ssh: too many half-open connections", "addr", from)
		return
	}
	a, err := n.handshake(ctx, conn)
	done()
	if err != nil {
		n.Log.Debug("ssh: handshake failed", "addr", from, "err", err)
		return
	}
	defer a.conn.Close()
	where := target.Target{Kind: target.Node, ID: n.Host.ID, Name: n.name(), Labels: n.Labels()}
	session, err := n.Gate.Admit(ctx, gate.Request{
		Identity: a.user, Target: where, Action: target.Action{Login: a.conn.User(), From: from.Addr()},
		Start: event.Event{Kind: event.SessionStart, Session: &event.Session{Protocol: "ssh"}},
	})
	if err != nil {
		n.Log.Debug("ssh: refused", "addr", from, "user", a.user.Name, "login", a.conn.User(), "err", err)
		refuse(ctx, a, err)
		return
	}
	newConnection(n, a, session).serve(a.channels, a.requests)
}

// name is what people call this node.
func (n *Node) name() string { return cmp.Or(n.Host.Name, n.Host.ID) }

// addressOf is who connected, or nothing where the connection does not say.
func addressOf(conn net.Conn) netip.AddrPort {
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		p := a.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}
