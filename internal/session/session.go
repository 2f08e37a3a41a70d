// Package session is the user's side of an SSH session: shells, commands, forwards and copies.
package session

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
)

// Config is what a connection is made with.
type Config struct {
	Login string
	// Signer signs with the session key and shows the user's certificate (ssh.NewCertSigner). It is used once.
	Signer ssh.Signer
	// HostAuthorities are the cluster's; the host must show a certificate of one of them that names Target, a node's
	// name or UUID as typed.
	HostAuthorities []ssh.PublicKey
	Target          string
	Now             func() time.Time
}

// ExitStatus is the error of a remote command that ended with another status than 0. A command that a signal ended
// has 255 and the signal's name.
type ExitStatus struct {
	Status int
	Signal string
}

// Error names the status.
func (e *ExitStatus) Error() string {
	if e.Signal != "" {
		return "remote command ended by signal " + e.Signal
	}
	return fmt.Sprintf("remote command ended with status %d", e.Status)
}

// Refused is the error of a session, forward or copy that the node refused; Lines is the node's own text, one or
// several lines.
type Refused struct{ Lines string }

// Error is the refusal as people see it behind `ERROR: `: a role's begins with the node's own words, everything else
// with `ssh: rejected: administratively prohibited (…)`.
func (r *Refused) Error() string {
	first, rest, more := strings.Cut(r.Lines, "\n")
	if !strings.HasPrefix(first, "access denied") {
		first = "ssh: rejected: administratively prohibited (" + first + ")"
	}
	if more {
		return first + "\n" + rest
	}
	return first
}

// Cut is the error of a connection that the node ended; Lines says why.
type Cut struct{ Lines string }

// Error is the node's text.
func (c *Cut) Error() string { return c.Lines }

// Client is a connection to a node. Its methods may be called by many goroutines at once.
type Client struct{}

var errLater = fault.New(fault.Unsupported, "not there yet")

// Dial speaks SSH over conn, verifies the host's certificate and logs in with exactly one signature. It owns conn
// from then on, also when it fails.
func Dial(ctx context.Context, conn net.Conn, c Config) (*Client, error) { return nil, errLater }

// Close ends the connection and all that it carries.
func (c *Client) Close() error { return nil }

// Wait returns when the connection has ended: nil after Close, *Cut when the node said why, else what broke.
func (c *Client) Wait() error { return nil }

// Terminal says whether a session gets a terminal.
type Terminal int

// The choices: a shell has a terminal where standard input is one, a command none; -t; -T.
const (
	TerminalAuto Terminal = iota
	TerminalForce
	TerminalNone
)

// Job is one session. Without a command it is a shell. In, Out and Err are the person's; where In is a terminal
// (an *os.File), it is put into raw mode meanwhile and restored.
type Job struct {
	Command  string
	Terminal Terminal
	Agent    bool     // ask the node to forward the agent that ForwardAgent serves
	Env      []string // NAME=VALUE; the node takes LANG and LC_* alone
	In       io.Reader
	Out, Err io.Writer
}

// Run runs a session to its end: nil for status 0, else *ExitStatus, *Refused, *Cut, or what broke.
func (c *Client) Run(ctx context.Context, j Job) error { return errLater }

// ForwardAgent lets the node reach the agent at a socket (SSH_AUTH_SOCK), for jobs with Agent set.
func (c *Client) ForwardAgent(socket string) error { return errLater }

// Forward is one forwarding: connections to Listen on one side go to Target on the other. Of a dynamic one (-D) Target
// is empty.
type Forward struct{ Listen, Target string }

// ParseForward reads [bind:]port:host:hostport, or, of a dynamic forward, [bind:]port. IPv6 addresses are in brackets.
func ParseForward(s string, dynamic bool) (Forward, error) { return Forward{}, errLater }

// ForwardLocal listens here (-L, and -D with an empty target) until ctx or the connection ends; it returns once it
// listens. report is told of single connections that fail.
func (c *Client) ForwardLocal(ctx context.Context, f Forward, report func(error)) (net.Addr, error) {
	return nil, errLater
}

// ForwardRemote has the node listen (-R); as ForwardLocal. It returns the port that the node chose.
func (c *Client) ForwardRemote(ctx context.Context, f Forward, report func(error)) (int, error) {
	return 0, errLater
}

// Location is a place that a copy names: here where Host is empty.
type Location struct{ Login, Host, Path string }

// ParseLocation reads [[login@]host:]path as scp does: what has a slash before the first colon is a path, as is a
// drive letter on Windows.
func ParseLocation(s string) Location { return Location{} }

// Copy is one scp: sources into a destination. All sources are here and the destination there, or the other way.
type Copy struct {
	Sources     []string
	Destination string
	Upload      bool
	Recursive   bool
	Preserve    bool
}

// Copy copies by SFTP. It goes on after a file that fails and returns the first failure. What a node names never
// lands outside the destination.
func (c *Client) Copy(ctx context.Context, job Copy, report func(error)) error { return errLater }
