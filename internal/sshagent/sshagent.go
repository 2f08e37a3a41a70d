// Package sshagent is an SSH agent that holds one certificate and signs user authentication, and nothing else.
package sshagent

import (
	"context"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
)

// Config is what an agent serves.
type Config struct {
	// Signer gives the current certificate's signer (ssh.NewCertSigner); it is asked at each request, so that a new
	// login counts. An error of it lists no key.
	Signer func() (ssh.Signer, error)
	// HostAuthorities are the cluster's: a forwarded connection authenticates to hosts of theirs alone.
	HostAuthorities []ssh.PublicKey
	Comment         string
	Now             func() time.Time
}

// Agent serves SSH agent connections (draft-ietf-sshm-ssh-agent, OpenSSH PROTOCOL.agent).
type Agent struct{ c Config }

// New makes an agent.
func New(c Config) *Agent { return &Agent{c} }

// Listen makes the agent's socket, readable by this user alone. One that is left over from a dead agent is replaced;
// one that is in use is a fault. On Windows it is a fault that says so.
func Listen(path string) (net.Listener, error) {
	return nil, fault.New(fault.Unsupported, "no agent here")
}

// Serve serves connections until ctx ends, and returns once all of them are over.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error { return nil }

// ServeConn serves one connection.
func (a *Agent) ServeConn(conn net.Conn) { conn.Close() }
