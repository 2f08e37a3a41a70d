// Package sshagent is an SSH agent that holds one certificate and signs user authentication, and nothing else.
//
//	frame    uint32 length, byte type, body; at most 64 KiB (draft-ietf-sshm-ssh-agent section 3)
//	11       list identities: the certificate
//	13       sign: what is a publickey user authentication (RFC 4252 section 7) that shows the certificate
//	27       extension session-bind@openssh.com (OpenSSH PROTOCOL.agent section 1)
//
// Everything else is answered with failure. A connection that was bound signs for the session that it was bound to
// last; one that a forwarding was bound to signs for hosts of the cluster alone.
package sshagent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
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

// Agent serves SSH agent connections. Its methods may be called by many goroutines at once.
type Agent struct {
	c     Config
	hands sync.Mutex // held while signing: hardware has one pair
}

// New makes an agent.
func New(c Config) *Agent { return &Agent{c: c} }

// The message types and bounds of the protocol.
const (
	msgFailure    = 5
	msgSuccess    = 6
	msgList       = 11
	msgIdentities = 12
	msgSign       = 13
	msgSignature  = 14
	msgExtension  = 27

	maxFrame    = 64 << 10
	maxConns    = 64
	maxBindings = 16 // as OpenSSH's agent has it
)

// Serve serves connections until ctx ends or the listener is closed, and returns once all of them are over.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	slots := make(chan struct{}, maxConns)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		slots <- struct{}{}
		running.Go(func() {
			defer func() { <-slots }()
			over := context.AfterFunc(ctx, func() { conn.Close() })
			defer over()
			a.ServeConn(conn)
		})
	}
}

// ServeConn serves one connection and closes it.
func (a *Agent) ServeConn(conn net.Conn) {
	defer conn.Close()
	c := &client{agent: a}
	for {
		request, err := readFrame(conn)
		if err != nil {
			return
		}
		answer := c.answer(request)
		frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

func readFrame(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxFrame {
		return nil, errors.New("agent frame of a wrong size")
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// client is one connection with the sessions that it was bound to.
type client struct {
	agent    *Agent
	bindings []binding
}

// answer answers one request; what is not understood or allowed fails.
func (c *client) answer(request []byte) []byte {
	var out []byte
	var err error
	switch request[0] {
	case msgList:
		out, err = c.list(request[1:])
	case msgSign:
		out, err = c.sign(request[1:])
	case msgExtension:
		out, err = c.extension(request[1:])
	default:
		err = errors.New("not offered")
	}
	if err != nil {
		return []byte{msgFailure}
	}
	return out
}

func (c *client) list(body []byte) ([]byte, error) {
	if len(body) != 0 {
		return nil, errors.New("data behind the request")
	}
	out := []byte{msgIdentities, 0, 0, 0, 0}
	signer, err := c.agent.c.Signer()
	if err != nil {
		return out, nil
	}
	out[4] = 1
	return append(out, ssh.Marshal(struct {
		Key     []byte
		Comment string
	}{signer.PublicKey().Marshal(), c.agent.c.Comment})...), nil
}

func (c *client) sign(body []byte) ([]byte, error) {
	var m struct {
		Key, Data []byte
		Flags     uint32
	}
	if err := ssh.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	signer, err := c.agent.c.Signer()
	if err != nil {
		return nil, err
	}
	ours := signer.PublicKey()
	if !bytes.Equal(m.Key, ours.Marshal()) {
		return nil, errors.New("a key that is not held here")
	}
	ask, err := parseUserAuth(m.Data)
	if err != nil {
		return nil, err
	}
	if ask.algorithm != ours.Type() || !bytes.Equal(ask.key, m.Key) {
		return nil, errors.New("an authentication with another key")
	}
	if err := c.permits(ask); err != nil {
		return nil, err
	}
	c.agent.hands.Lock()
	defer c.agent.hands.Unlock()
	signature, err := signer.Sign(rand.Reader, m.Data)
	if err != nil {
		return nil, err
	}
	return ssh.Marshal(struct {
		Signature []byte `sshtype:"14"`
	}{ssh.Marshal(signature)}), nil
}
