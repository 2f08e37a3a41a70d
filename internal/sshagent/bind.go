package sshagent

import (
	"bytes"
	"errors"
	"slices"

	"golang.org/x/crypto/ssh"
)

// binding is a session that a connection was bound to: a host has proven that the session is its own.
type binding struct {
	host       []byte // the host key's blob, a certificate where it showed one
	session    []byte
	forwarding bool
}

func (c *client) extension(body []byte) ([]byte, error) {
	var m struct {
		Name string
		Rest []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(body, &m); err != nil {
		return nil, err
	}
	if m.Name != "session-bind@openssh.com" {
		return nil, errors.New("unknown extension")
	}
	if err := c.bind(m.Rest); err != nil {
		return nil, err
	}
	return []byte{msgSuccess}, nil
}

// bind takes a session whose host has signed its id (OpenSSH PROTOCOL.agent section 1).
func (c *client) bind(body []byte) error {
	var m struct {
		Host, Session, Signature []byte
		Forwarding               bool
	}
	if err := ssh.Unmarshal(body, &m); err != nil {
		return err
	}
	if len(c.bindings) >= maxBindings {
		return errors.New("too many bindings")
	}
	// Behind the session that authenticates nothing can be bound: that is how a hop would hide.
	if n := len(c.bindings); n > 0 && !c.bindings[n-1].forwarding {
		return errors.New("already bound for authentication")
	}
	key, err := ssh.ParsePublicKey(m.Host)
	if err != nil {
		return err
	}
	var signature ssh.Signature
	if err := ssh.Unmarshal(m.Signature, &signature); err != nil {
		return err
	}
	if signature.Format == ssh.KeyAlgoRSA {
		return errors.New("a signature with SHA-1")
	}
	if err := key.Verify(m.Session, &signature); err != nil {
		return err
	}
	c.bindings = append(c.bindings, binding{m.Host, m.Session, m.Forwarding})
	return nil
}

// permits reports why the connection may not sign a request.
func (c *client) permits(ask *userAuth) error {
	n := len(c.bindings)
	if n == 0 {
		return nil // a client older than OpenSSH 8.9, on this machine
	}
	last := c.bindings[n-1]
	if last.forwarding {
		return errors.New("forwarded, and bound to no session to authenticate")
	}
	if !bytes.Equal(last.session, ask.session) {
		return errors.New("another session than the one bound")
	}
	if ask.host != nil && !bytes.Equal(last.host, ask.host) {
		return errors.New("another host than the one bound")
	}
	if n == 1 {
		return nil
	}
	return c.agent.ofCluster(last.host)
}

// ofCluster reports why a host key is not a host certificate of the cluster's.
func (a *Agent) ofCluster(blob []byte) error {
	key, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return err
	}
	cert, ok := key.(*ssh.Certificate)
	if !ok || cert.CertType != ssh.HostCert || len(cert.ValidPrincipals) == 0 {
		return errors.New("no host certificate")
	}
	if !slices.ContainsFunc(a.c.HostAuthorities, func(k ssh.PublicKey) bool { return bytes.Equal(k.Marshal(), cert.SignatureKey.Marshal()) }) {
		return errors.New("a host of another authority")
	}
	checker := ssh.CertChecker{Clock: a.c.Now}
	return checker.CheckCert(cert.ValidPrincipals[0], cert)
}

// userAuth is a request to authenticate a user by a public key.
type userAuth struct {
	session   []byte
	user      string
	algorithm string
	key       []byte
	host      []byte // of the hostbound method, else nil
}

const msgUserAuthRequest = 50

// parseUserAuth reads what an SSH client signs to authenticate (RFC 4252 section 7, OpenSSH PROTOCOL section 3.1);
// whatever is anything else, or more, is an error.
func parseUserAuth(data []byte) (*userAuth, error) {
	var m struct {
		Session   []byte
		Type      byte
		User      string
		Service   string
		Method    string
		Signed    bool
		Algorithm string
		Key       []byte
		Rest      []byte `ssh:"rest"`
	}
	if err := ssh.Unmarshal(data, &m); err != nil {
		return nil, err
	}
	// A session id is the hash of the key exchange: SHA-1 to SHA-512.
	if m.Type != msgUserAuthRequest || len(m.Session) < 20 || len(m.Session) > 64 || !m.Signed || m.Service != "ssh-connection" {
		return nil, errors.New("not a user authentication")
	}
	ask := &userAuth{session: m.Session, user: m.User, algorithm: m.Algorithm, key: m.Key}
	switch m.Method {
	case "publickey":
		if len(m.Rest) != 0 {
			return nil, errors.New("data behind the request")
		}
	case "publickey-hostbound-v00@openssh.com":
		var h struct{ Host []byte }
		if err := ssh.Unmarshal(m.Rest, &h); err != nil {
			return nil, err
		}
		ask.host = h.Host
		if ask.host == nil {
			ask.host = []byte{}
		}
	default:
		return nil, errors.New("another method")
	}
	// The bytes must be the only ones that say this: no bool but 0 and 1.
	if !bytes.Equal(ask.marshal(m.Method), data) {
		return nil, errors.New("not in canonical form")
	}
	return ask, nil
}

func (u *userAuth) marshal(method string) []byte {
	out := ssh.Marshal(struct {
		Session   []byte
		Type      byte
		User      string
		Service   string
		Method    string
		Signed    bool
		Algorithm string
		Key       []byte
	}{u.session, msgUserAuthRequest, u.user, "ssh-connection", method, true, u.algorithm, u.key})
	if u.host != nil {
		out = append(out, ssh.Marshal(struct{ Host []byte }{u.host})...)
	}
	return out
}
