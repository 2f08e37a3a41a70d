// Package session is the user's side of an SSH session: shells, commands, forwards and copies.
package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
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
type Client struct {
	ssh *ssh.Client

	mu       sync.Mutex
	cut      *Cut                     // guarded by mu: what the node said at the end
	closed   bool                     // guarded by mu: by Close
	forwards map[string]remoteForward // guarded by mu: -R, by the node's address and port
	agent    string                   // guarded by mu: the socket of the agent that is forwarded
}

// hostAlgorithms are certificates alone: a bare host key is never offered for.
var hostAlgorithms = []string{ssh.CertAlgoED25519v01, ssh.CertAlgoECDSA256v01, ssh.CertAlgoRSASHA512v01, ssh.CertAlgoRSASHA256v01}

// ciphers begin with the one that is fastest where processors help, as all current ones do.
var ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305}

// Dial speaks SSH over conn, verifies the host's certificate and logs in with exactly one signature. It owns conn
// from then on, also when it fails.
func Dial(ctx context.Context, conn net.Conn, c Config) (*Client, error) {
	if err := c.check(); err != nil {
		conn.Close()
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	var host error
	config := &ssh.ClientConfig{User: c.Login, Auth: []ssh.AuthMethod{ssh.PublicKeys(c.Signer)}, ClientVersion: "SSH-2.0-Sallyport",
		HostKeyAlgorithms: hostAlgorithms, Config: ssh.Config{Ciphers: ciphers}}
	config.HostKeyCallback = func(_ string, _ net.Addr, key ssh.PublicKey) error {
		host = c.checkHost(key)
		return host
	}
	inner, channels, requests, err := ssh.NewClientConn(conn, c.Target, config)
	if !stop() && err == nil {
		inner.Close()
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		return nil, c.failed(ctx, host, err)
	}
	client := &Client{forwards: map[string]remoteForward{}}
	none := make(chan *ssh.Request)
	close(none)
	client.ssh = ssh.NewClient(inner, channels, none)
	go client.global(requests)
	go client.accept("forwarded-tcpip", client.forwarded)
	go client.accept("auth-agent@openssh.com", client.agentChannel)
	return client, nil
}

// check refuses a login that the certificate does not name: the node could only say that it failed.
func (c Config) check() error {
	cert, ok := c.Signer.PublicKey().(*ssh.Certificate)
	if !ok || c.Target == "" || c.Now == nil {
		return errors.New("a session without a certificate, target or clock")
	}
	if slices.Contains(cert.ValidPrincipals, c.Login) {
		return nil
	}
	f := fault.New(fault.Denied, "access denied to %s connecting to %s:0", c.Login, c.Target).WithReason("not_a_login")
	if len(cert.ValidPrincipals) == 1 && strings.HasPrefix(cert.ValidPrincipals[0], identity.NoLogin("")) {
		return f.WithCause("this login has no logins").WithFix("ask an administrator for one")
	}
	return f.WithCause("the logins of this login are %s", strings.Join(cert.ValidPrincipals, ", ")).WithFix("tsh ssh -l LOGIN %s", c.Target)
}

// checkHost takes a host certificate of the cluster that names the target.
func (c Config) checkHost(key ssh.PublicKey) error {
	wrong := fault.New(fault.Unauthenticated, "what answered is not the host %q of this cluster", c.Target).WithReason("host_identity")
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert {
		return wrong.WithCause("it shows no host certificate")
	}
	ours := func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), cert.SignatureKey.Marshal()) }
	if !slices.ContainsFunc(c.HostAuthorities, ours) {
		return wrong.WithCause("its certificate is of another authority")
	}
	if !slices.Contains(cert.ValidPrincipals, c.Target) {
		return wrong.WithCause("its certificate is for %s", strings.Join(cert.ValidPrincipals, ", "))
	}
	host, err := identity.HostFromSSH(cert)
	if err != nil {
		return wrong.WithCause("its certificate says nothing of its host").Wrapping(err)
	}
	if host.Role != identity.RoleNode {
		return wrong.WithCause("its certificate is that of a %s", host.Role)
	}
	now := c.Now()
	if from := time.Unix(int64(cert.ValidAfter), 0); now.Before(from) {
		return wrong.WithReason("clock").WithCause("its certificate begins in %s: this clock is behind, or the host's ahead", from.Sub(now).Round(time.Second))
	}
	if until := time.Unix(int64(cert.ValidBefore), 0); !now.Before(until) {
		return wrong.WithReason("clock").WithCause("its certificate ended %s ago: this clock is ahead, or the host did not renew", now.Sub(until).Round(time.Second))
	}
	checker := ssh.CertChecker{Clock: c.Now}
	if err := checker.CheckCert(c.Target, cert); err != nil {
		return wrong.WithCause("its certificate does not hold").Wrapping(err)
	}
	return nil
}

// failed words why there is no connection.
func (c Config) failed(ctx context.Context, host, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if host != nil {
		return host
	}
	if own := (*fault.Error)(nil); errors.As(err, &own) {
		return own // the key could not sign, and says why
	}
	if strings.Contains(err.Error(), "unable to authenticate") {
		return fault.New(fault.Denied, "%q did not accept this login's certificate", c.Target).WithReason("authentication").
			WithFix("tsh login").Wrapping(err)
	}
	return fault.New(fault.Unavailable, "no SSH connection to %q", c.Target).WithReason("handshake").Wrapping(err)
}

// global takes the node's global requests; cut@sallyport says why the connection ends.
func (c *Client) global(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.Type == "cut@sallyport" {
			c.mu.Lock()
			c.cut = &Cut{Lines: plain(string(r.Payload))}
			c.mu.Unlock()
		}
		_ = r.Reply(false, nil)
	}
}

// maxText bounds what is printed of a node's words.
const maxText = 4 << 10

// plain drops from a node's words what would steer a terminal.
func plain(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || r >= ' ' && r != 0x7f && (r < 0x80 || r > 0x9f) {
			return r
		}
		return -1
	}, strings.ToValidUTF8(s, ""))
}

// Close ends the connection and all that it carries.
func (c *Client) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.ssh.Close()
}

// Wait returns when the connection has ended: nil after Close, *Cut when the node said why, else what broke.
func (c *Client) Wait() error {
	err := c.ssh.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.cut != nil:
		return c.cut
	case c.closed:
		return nil
	}
	return fault.New(fault.Unavailable, "the connection was lost").WithReason("connection_lost").Wrapping(err)
}

// open opens a channel; one that the node prohibits is *Refused.
func (c *Client) open(kind string, payload []byte) (ssh.Channel, <-chan *ssh.Request, error) {
	channel, requests, err := c.ssh.OpenChannel(kind, payload)
	var open *ssh.OpenChannelError
	if errors.As(err, &open) {
		if open.Reason == ssh.Prohibited {
			return nil, nil, &Refused{Lines: plain(open.Message)}
		}
		return nil, nil, fault.New(fault.Unavailable, "%s", plain(open.Message)).WithReason("channel")
	}
	if err != nil {
		return nil, nil, c.lost(err)
	}
	return channel, requests, nil
}

// lost is why the connection is over, where it is.
func (c *Client) lost(err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut != nil {
		return c.cut
	}
	return fault.New(fault.Unavailable, "the connection was lost").WithReason("connection_lost").Wrapping(err)
}

// accept handles the channels of one kind that the node opens.
func (c *Client) accept(kind string, handle func(ssh.NewChannel)) {
	for ch := range c.ssh.HandleChannelOpen(kind) {
		go handle(ch)
	}
}
