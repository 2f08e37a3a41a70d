// Package node is the SSH door: it carries a user's SSH connection (RFC 4251 to 4254) to the gate and to processes of
// this host, and decides nothing.
package node

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
)

// Config is what a node is made of. Every field is needed.
type Config struct {
	// Host is this host; users are admitted to its UUID, and to its name where it has one.
	Host identity.Host
	// HostKey gives the current host certificate's signer (ssh.NewCertSigner); it is asked at each connection.
	HostKey func() ssh.Signer
	// Gate admits. Recorder is the gate's own; it takes attempts that fail before there is somebody to ask for.
	Gate     *gate.Gate
	Recorder gate.Recorder
	Pictures gate.Pictures
	// Labels gives the node's labels, as roles select them.
	Labels func() label.Set
	Log    *slog.Logger
	Now    func() time.Time
	// SFTP is the absolute path and the arguments of the program that serves SFTP over its standard input and output,
	// run as the login: this program again, with an argument that makes it call shell.ServeSFTP.
	SFTP []string
}

// Node serves SSH.
type Node struct {
	Config
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
	return &Node{Config: c}, nil
}

// Handle serves one connection, whose RemoteAddr is the client's, and closes it. It returns once nothing of the
// connection is left. When ctx ends the connection is cut.
func (n *Node) Handle(ctx context.Context, conn net.Conn) { conn.Close() }
