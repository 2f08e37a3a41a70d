package world_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/world"
)

// rogue is a proxy that was taken over: it has the proxy's own keys, and keeps all that goes through it.
type rogue struct {
	listener net.Listener
	cert     tls.Certificate
	real     client.Address

	mu     sync.Mutex
	seen   bytes.Buffer // guarded by mu
	ticket string       // guarded by mu
}

// takeOver steals the proxy's keys and stands in its place.
func takeOver(t *testing.T, w *world.World) *rogue {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.Dir, "data", "host", "proxy.json"))
	if err != nil {
		t.Fatal(err)
	}
	var kept struct {
		Cert []byte `json:"tls_certificate"`
		Key  []byte `json:"tls_key"`
	}
	if err := json.Unmarshal(raw, &kept); err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(kept.Key)
	if err != nil {
		t.Fatal(err)
	}
	r := &rogue{cert: tls.Certificate{Certificate: [][]byte{kept.Cert}, PrivateKey: key}, real: w.Address()}
	r.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{r.cert}, NextProtos: []string{tunnel.ALPNDial}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.listener.Close() })
	go func() {
		for {
			c, err := r.listener.Accept()
			if err != nil {
				return
			}
			go r.serve(t, c)
		}
	}()
	return r
}

func (r *rogue) serve(t *testing.T, c net.Conn) {
	defer c.Close()
	var d tunnel.Dial
	if tunnel.ReadFrame(c, &d) != nil {
		return
	}
	up, err := r.real.Stream(t.Context(), d)
	if err != nil {
		return
	}
	defer up.Close()
	r.mu.Lock()
	r.ticket = d.Ticket
	r.mu.Unlock()
	_ = tunnel.WriteFrame(c, tunnel.Status{OK: true})
	go func() { _, _ = io.Copy(up, io.TeeReader(c, r)) }()
	_, _ = io.Copy(c, io.TeeReader(up, r))
}

// Write keeps what goes through.
func (r *rogue) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen.Write(p)
}

// TestA10ProxyTakenOver has a person work through a proxy that was taken over: it sees no plaintext, and neither what
// it saw nor the proxy's own certificate lets it act for anybody.
func TestA10ProxyTakenOver(t *testing.T) {
	w := world.New(t, nil)
	w.User("alice", "access", "editor")
	l := w.Login("alice")
	dial(t, func(ticket, target string) (net.Conn, error) {
		return w.Address().Stream(t.Context(), tunnel.Dial{Target: target, Door: tunnel.DoorSSH, Ticket: ticket})
	}, l.DialTicket).Close()
	r := takeOver(t, w)
	through := w.Address()
	through.Addr = r.listener.Addr().String()
	conn, err := through.Stream(t.Context(), tunnel.Dial{Target: "web", Door: tunnel.DoorSSH, Ticket: l.DialTicket})
	if err != nil {
		t.Fatal(err)
	}
	c, err := session.Dial(t.Context(), conn, session.Config{Login: "root", Signer: signer(t, l), HostAuthorities: l.HostAuthorities, Target: "web", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Run(t.Context(), session.Job{Command: "echo plain; cat", In: strings.NewReader("to-the-node\n"), Out: &out, Err: io.Discard}); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if out.String() != "plain\nto-the-node\n" {
		t.Fatalf("%q", out.String())
	}
	r.mu.Lock()
	seen, ticket := r.seen.String(), r.ticket
	r.mu.Unlock()
	if !strings.Contains(seen, "SSH-2.0") {
		t.Fatal("the rogue saw no SSH at all: the test proves nothing")
	}
	for _, plain := range []string{"to-the-node", "plain", "echo", "alice"} {
		if strings.Contains(seen, plain) {
			t.Errorf("the proxy saw %q", plain)
		}
	}

	// The proxy's own certificate calls nothing that a user calls, and names nobody.
	calls := w.Address().Call(&r.cert)
	defer calls.Close()
	_, err = calls.Get(t.Context(), manifest.User, "alice")
	w.Refused(err, "host_call", event.Auth)
	_, err = calls.Write(t.Context(), []*manifest.Resource{manifest.New(&role.Role{Name: "mine"}, 0)}, true)
	w.Refused(err, "host_call", event.Auth)
	if _, err := w.Address().Login(t.Context(), calls, client.LoginRequest{User: "alice", Key: r.cert.PrivateKey.(*ecdsa.PrivateKey).Public(), Certificate: r.cert.Certificate[0]}, nil); !fault.Is(err, fault.Unauthenticated) {
		t.Errorf("a reissue by a proxy: %v", err)
	}
	// The ticket that it saw leads to a gate that knows nobody.
	if _, err := r.real.Stream(t.Context(), tunnel.Dial{Target: "web", Door: tunnel.DoorSSH, Ticket: ticket}); err != nil {
		t.Fatal(err)
	}
	// It cannot be auth: its certificate says which role it has.
	impostor, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{r.cert}, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer impostor.Close()
	go func() {
		for {
			c, err := impostor.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	fake := w.Address()
	fake.Addr = impostor.Addr().String()
	anon := fake.Call(nil)
	defer anon.Close()
	if _, err := anon.Hello(t.Context()); !fault.Because(err, "intercepted") {
		t.Errorf("a proxy as auth: %v", err)
	}
}

func signer(t *testing.T, l *world.Login) ssh.Signer {
	t.Helper()
	s, err := ssh.NewSignerFromSigner(l.TLS.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ssh.NewCertSigner(l.SSH, s)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestHostsAreListed waits until both hosts of the process have said what they serve.
func TestHostsAreListed(t *testing.T) {
	w := world.New(t, nil)
	list, err := w.Admin.List(t.Context(), manifest.Node)
	for deadline := time.Now().Add(10 * time.Second); err == nil && len(list) < 2 && time.Now().Before(deadline); list, err = w.Admin.List(t.Context(), manifest.Node) {
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil || len(list) != 2 {
		t.Fatalf("%d hosts, %v", len(list), err)
	}
	roles := map[identity.HostRole]bool{}
	for _, r := range list {
		roles[r.Spec.(*identity.Server).Role] = true
	}
	if !roles[identity.RoleNode] || !roles[identity.RoleProxy] {
		t.Fatal(roles)
	}
}
