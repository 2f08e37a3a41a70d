package sshagent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sallyport/sallyport/internal/fault"
)

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func certified(t testing.TB, ca ssh.Signer, kind uint32, edit ...func(*ssh.Certificate)) ssh.Signer {
	t.Helper()
	s := newSigner(t)
	now := time.Now()
	c := &ssh.Certificate{Key: s.PublicKey(), CertType: kind, KeyId: "k", ValidPrincipals: []string{"root"},
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(time.Hour).Unix())}
	for _, e := range edit {
		e(c)
	}
	if err := c.SignCert(rand.Reader, ca); err != nil {
		t.Fatal(err)
	}
	cs, err := ssh.NewCertSigner(c, s)
	if err != nil {
		t.Fatal(err)
	}
	return cs
}

type fixture struct {
	t              *testing.T
	agent          *Agent
	user, hostCA   ssh.Signer
	host, stranger ssh.Signer
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, hostCA: newSigner(t)}
	f.user = certified(t, newSigner(t), ssh.UserCert)
	f.host = certified(t, f.hostCA, ssh.HostCert)
	f.stranger = certified(t, newSigner(t), ssh.HostCert)
	f.agent = New(Config{Signer: func() (ssh.Signer, error) { return f.user, nil }, Comment: "tsh",
		HostAuthorities: []ssh.PublicKey{f.hostCA.PublicKey()}, Now: time.Now})
	return f
}

// connect speaks to the agent as x/crypto's client does, which is not ours.
func (f *fixture) connect() agent.ExtendedAgent {
	ours, theirs := net.Pipe()
	go f.agent.ServeConn(theirs)
	f.t.Cleanup(func() { ours.Close() })
	return agent.NewClient(ours)
}

func (f *fixture) ask(edit ...func(*userAuth)) []byte {
	u := &userAuth{session: bytes.Repeat([]byte{7}, 32), user: "root", algorithm: f.user.PublicKey().Type(), key: f.user.PublicKey().Marshal()}
	for _, e := range edit {
		e(u)
	}
	method := "publickey"
	if u.host != nil {
		method = "publickey-hostbound-v00@openssh.com"
	}
	return u.marshal(method)
}

func bindBody(host ssh.Signer, session []byte, forwarding bool) []byte {
	sig, err := host.Sign(rand.Reader, session)
	if err != nil {
		panic(err)
	}
	return ssh.Marshal(struct {
		Host, Session, Signature []byte
		Forwarding               bool
	}{host.PublicKey().Marshal(), session, ssh.Marshal(sig), forwarding})
}

func (f *fixture) bind(a agent.ExtendedAgent, host ssh.Signer, session []byte, forwarding bool) error {
	_, err := a.Extension("session-bind@openssh.com", bindBody(host, session, forwarding))
	return err
}

func TestSignsUserAuthentication(t *testing.T) {
	f := newFixture(t)
	a := f.connect()
	keys, err := a.List()
	if err != nil || len(keys) != 1 || !bytes.Equal(keys[0].Blob, f.user.PublicKey().Marshal()) || keys[0].Comment != "tsh" {
		t.Fatal(keys, err)
	}
	for _, data := range [][]byte{f.ask(), f.ask(func(u *userAuth) { u.host = f.host.PublicKey().Marshal() })} {
		sig, err := a.Sign(f.user.PublicKey(), data)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.user.PublicKey().Verify(data, sig); err != nil {
			t.Error(err)
		}
	}
}

// TestA32 asks the agent to sign what is no user authentication.
func TestA32SignsNothingElse(t *testing.T) {
	f := newFixture(t)
	good := f.ask()
	at := func(i int, b byte) []byte { c := bytes.Clone(good); c[i] = b; return c }
	replace := func(old, new string) []byte {
		// length-prefixed fields of the same length stay well-formed
		return bytes.Replace(good, []byte(old), []byte(new), 1)
	}
	key := f.user.PublicKey()
	for name, data := range map[string][]byte{
		"nothing":              {},
		"a file (SSHSIG)":      append([]byte("SSHSIG"), good...),
		"a text":               []byte("pay 100 to mallory"),
		"a TLS 1.3 transcript": append(bytes.Repeat([]byte{0x20}, 64), []byte("TLS 1.3, client CertificateVerify\x00")...),
		"another message":      at(36, 51),
		"a query, unsigned":    at(36+1+4+4+4+14+4+9, 0),
		"bool of 2":            at(36+1+4+4+4+14+4+9, 2),
		"another service":      replace("ssh-connection", "ssh-userauth!!"),
		"another method":       replace("publickey", "hostbased"),
		"trailing data":        append(bytes.Clone(good), 0),
		"truncated":            good[:len(good)-1],
		"short session id":     f.ask(func(u *userAuth) { u.session = u.session[:8] }),
		"long session id":      f.ask(func(u *userAuth) { u.session = bytes.Repeat(u.session, 3) }),
		"another key":          f.ask(func(u *userAuth) { u.key = f.host.PublicKey().Marshal() }),
		"the bare key":         f.ask(func(u *userAuth) { u.key = key.(*ssh.Certificate).Key.Marshal() }),
		"another algorithm":    f.ask(func(u *userAuth) { u.algorithm = "ecdsa-sha2-nistp256" }),
		"hostbound, no host":   replaceMethod(good),
	} {
		if _, err := f.connect().Sign(key, data); err == nil {
			t.Errorf("signed: %s", name)
		}
	}
	if _, err := f.connect().Sign(key.(*ssh.Certificate).Key, good); err == nil {
		t.Error("signed for a key that is not listed")
	}
	a := f.connect()
	if a.Add(agent.AddedKey{PrivateKey: ed25519.NewKeyFromSeed(make([]byte, 32))}) == nil || a.RemoveAll() == nil || a.Lock([]byte("x")) == nil {
		t.Error("the agent lets itself be changed")
	}
	if _, err := a.Extension("query", nil); err == nil {
		t.Error("an unknown extension succeeded")
	}
}

func replaceMethod(good []byte) []byte {
	old := ssh.Marshal(struct{ S string }{"publickey"})
	return bytes.Replace(good, old, ssh.Marshal(struct{ S string }{"publickey-hostbound-v00@openssh.com"}), 1)
}

// TestA32Forwarded signs over a forwarding for hosts of the cluster alone.
func TestA32Forwarded(t *testing.T) {
	f := newFixture(t)
	key := f.user.PublicKey()
	hop, target := bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{7}, 32)
	bare := newSigner(t)
	expired := certified(t, f.hostCA, ssh.HostCert, func(c *ssh.Certificate) { c.ValidBefore = uint64(time.Now().Add(-time.Second).Unix()) })
	user := certified(t, f.hostCA, ssh.UserCert)
	optional := certified(t, f.hostCA, ssh.HostCert, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} })
	for _, c := range []struct {
		name   string
		host   ssh.Signer
		signed bool
	}{
		{"a host of the cluster", f.host, true}, {"another authority's", f.stranger, false}, {"a bare key", bare, false},
		{"expired", expired, false}, {"a user certificate", user, false}, {"with a critical option", optional, false},
	} {
		a := f.connect()
		if err := f.bind(a, f.host, hop, true); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Sign(key, f.ask(func(u *userAuth) { u.session = hop })); err == nil {
			t.Error("signed for the hop itself")
		}
		if err := f.bind(a, c.host, target, false); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Sign(key, f.ask(func(u *userAuth) { u.session = hop })); err == nil {
			t.Errorf("%s: signed for another session", c.name)
		}
		if _, err := a.Sign(key, f.ask(func(u *userAuth) { u.host = bare.PublicKey().Marshal() })); err == nil {
			t.Errorf("%s: signed for another host", c.name)
		}
		if _, err := a.Sign(key, f.ask()); (err == nil) != c.signed {
			t.Errorf("%s: %v", c.name, err)
		}
		if err := f.bind(a, f.host, target, false); err == nil {
			t.Errorf("%s: bound behind the session that authenticates", c.name)
		}
	}
}

func TestBindWantsProof(t *testing.T) {
	f := newFixture(t)
	session := bytes.Repeat([]byte{7}, 32)
	forged := bindBody(f.host, session, false)
	forged[len(forged)-3] ^= 1
	for name, body := range map[string][]byte{"forged": forged, "trailing": append(bindBody(f.host, session, false), 0), "empty": nil} {
		if _, err := f.connect().Extension("session-bind@openssh.com", body); err == nil {
			t.Errorf("bound: %s", name)
		}
	}
	a := f.connect()
	for range maxBindings {
		if err := f.bind(a, f.host, session, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.bind(a, f.host, session, true); err == nil {
		t.Error("bound without end")
	}
}

func TestFramesAreBounded(t *testing.T) {
	f := newFixture(t)
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); f.agent.ServeConn(theirs) }()
	if _, err := ours.Write(binary.BigEndian.AppendUint32(nil, 1<<30)); err != nil {
		t.Fatal(err)
	}
	<-done
}

func TestListen(t *testing.T) {
	f := newFixture(t)
	path := filepath.Join(t.TempDir(), "d", "agent.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Error(st.Mode(), err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- f.agent.Serve(ctx, l) }()
	if _, err := Listen(path); !fault.Because(err, "agent_running") {
		t.Error(err)
	}
	// OpenSSH's own client lists it.
	if tool, err := exec.LookPath("ssh-add"); err == nil {
		cmd := exec.Command(tool, "-L")
		cmd.Env = []string{"SSH_AUTH_SOCK=" + path}
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "ecdsa-sha2-nistp256-cert-v01@openssh.com") {
			t.Errorf("%s %v", out, err)
		}
	} else if os.Getenv("REQUIRE_PEERS") == "1" {
		t.Error(err)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
	// What a dead agent leaves is replaced, a file is not.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	if l, err = Listen(path); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); !fault.Because(err, "agent_socket") {
		t.Error(err)
	}
}

func FuzzParseUserAuth(f *testing.F) {
	u := &userAuth{session: make([]byte, 32), user: "root", algorithm: "a", key: []byte("k")}
	f.Add(u.marshal("publickey"))
	u.host = []byte("h")
	f.Add(u.marshal("publickey-hostbound-v00@openssh.com"))
	f.Fuzz(func(t *testing.T, data []byte) {
		u, err := parseUserAuth(data)
		if err != nil {
			return
		}
		method := "publickey"
		if u.host != nil {
			method = "publickey-hostbound-v00@openssh.com"
		}
		if !bytes.Equal(u.marshal(method), data) {
			t.Error("read what it would not write")
		}
	})
}

func FuzzAnswer(f *testing.F) {
	ca, host := newSigner(f), newSigner(f)
	user := certified(f, ca, ssh.UserCert)
	a := New(Config{Signer: func() (ssh.Signer, error) { return user, nil }, Now: time.Now})
	f.Add([]byte{msgList})
	f.Add(append([]byte{msgExtension}, append(ssh.Marshal(struct{ S string }{"session-bind@openssh.com"}), bindBody(host, make([]byte, 32), true)...)...))
	f.Add(append([]byte{msgSign}, ssh.Marshal(struct {
		K, D []byte
		F    uint32
	}{user.PublicKey().Marshal(), []byte("x"), 0})...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		c := &client{agent: a}
		if out := c.answer(data); len(out) == 0 || out[0] == msgSignature {
			if _, err := parseUserAuth(data); err != nil && out[0] == msgSignature && !bytes.Contains(data, []byte("ssh-connection")) {
				t.Error("signed what is no authentication")
			}
		}
	})
}
