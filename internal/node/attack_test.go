//go:build linux

package node

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/node/ask"
	"github.com/sallyport/sallyport/internal/peer"
)

// impostor shows one key and signs with another.
type impostor struct {
	shown ssh.PublicKey
	ssh.Signer
}

func (i impostor) PublicKey() ssh.PublicKey { return i.shown }

// TestA20ToA26 offers every certificate that must not open the door. Each refusal has its own reason, and none leaves
// a session behind.
func TestA20ToA26(t *testing.T) {
	w := newWorld(t)
	made := func(edit func(u *identity.User), change func(c *ssh.Certificate), ca ssh.Signer) ssh.Signer {
		key, u := newSigner(t), w.user()
		if edit != nil {
			edit(u)
		}
		c := w.unsigned(u, key.PublicKey())
		if change != nil {
			change(c)
		}
		return sign(t, c, ca, key)
	}
	change := func(f func(c *ssh.Certificate)) ssh.Signer { return made(nil, f, w.userCA) }
	hours := func(h int) uint64 { return uint64(time.Now().Add(time.Duration(h) * time.Hour).Unix()) }
	otherKey := newSigner(t)
	user := newSigner(t)
	userCert := sign(t, w.unsigned(w.user(), user.PublicKey()), w.userCA, user)
	good := change(nil2)
	for _, c := range []struct {
		name, login, reason string
		signer              ssh.Signer
	}{
		{"a raw key", "ubuntu", "not_a_certificate", newSigner(t)},
		{"A20 a user key as authority", "ubuntu", "authority", made(nil, nil, user)},
		{"A21 a host certificate", "ubuntu", "not_a_user_certificate", change(func(c *ssh.Certificate) { c.CertType = ssh.HostCert })},
		{"A21 signed by the host authority", "ubuntu", "authority", made(nil, nil, w.hostCA)},
		{"A22 another cluster's authority with our name", "ubuntu", "authority", made(nil, nil, otherKey)},
		{"A22 our authority, another cluster's name", "ubuntu", "cluster", made(func(u *identity.User) { u.Cluster = "evil.com" }, nil, w.userCA)},
		{"A23 another key proven", "ubuntu", "not_proven", impostor{userCert.PublicKey(), otherKey}},
		{"A24 no principals", "ubuntu", "principal", change(func(c *ssh.Certificate) { c.ValidPrincipals = nil })},
		{"A24 another login", "root", "principal", good},
		{"A24 a comma", "root", "principal", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ubuntu,root"} })},
		{"A24 a comma, typed", "ubuntu,root", "identity", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ubuntu,root"} })},
		{"A24 a space", "root", "principal", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ubuntu root"} })},
		{"A24 a NUL", "ubuntu", "principal", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ubuntu\x00x"} })},
		{"A24 a newline beside a good one", "ubuntu", "identity", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ubuntu", "ubuntu\nroot"} })},
		{"A24 a look-alike", "rооt", "identity", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{"rооt"} })},
		{"A24 nobody's login", identity.NoLogin("x"), "principal", change(func(c *ssh.Certificate) { c.ValidPrincipals = []string{identity.NoLogin("x")} })},
		{"A25 an unknown critical option", "ubuntu", "certificate", change(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"no-such": ""} })},
		{"A25 force-command", "ubuntu", "certificate", change(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "ls"} })},
		{"A25 a pin that the identity does not have", "ubuntu", "identity", change(func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "127.0.0.1/32"} })},
		{"A26 expired", "ubuntu", "certificate", change(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = hours(-5), hours(-1) })},
		{"A26 not yet", "ubuntu", "certificate", change(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = hours(1), hours(5) })},
		{"A26 over-long", "ubuntu", "lifetime", change(func(c *ssh.Certificate) { c.ValidBefore = hours(31) })},
		{"A26 for ever", "ubuntu", "lifetime", change(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = 0, ssh.CertTimeInfinity })},
		{"A26 ends before it begins", "ubuntu", "lifetime", change(func(c *ssh.Certificate) { c.ValidAfter, c.ValidBefore = hours(1), hours(-1) })},
		{"without an identity", "ubuntu", "identity", change(func(c *ssh.Certificate) { delete(c.Extensions, identity.ExtIdentity) })},
		{"with a right that the identity has not", "ubuntu", "identity", made(func(u *identity.User) { u.Grant.PTY = false },
			func(c *ssh.Certificate) { c.Extensions["permit-pty"] = "" }, w.userCA)},
		{"with half a device", "ubuntu", "identity", change(func(c *ssh.Certificate) { c.Extensions[identity.ExtDeviceID] = "d" })},
	} {
		before := len(w.recorder.of(event.Auth))
		if _, err := w.dial(c.signer, c.login); err == nil {
			t.Errorf("%s: let in", c.name)
			continue
		}
		await(t, c.name+": on record", func() bool { return len(w.recorder.of(event.Auth)) == before+1 })
		if events := w.recorder.of(event.Auth); events[before].Reason != c.reason || events[before].User != "" {
			t.Errorf("%s: reason %q (%s), want %q", c.name, events[before].Reason, events[before].Message, c.reason)
		}
	}
	if len(w.recorder.of(event.SessionStart)) != 0 {
		t.Error("a session started")
	}
	if _, err := w.dial(good, "ubuntu"); err != nil {
		t.Error(err)
	}
}

func nil2(*ssh.Certificate) {}

// TestPinnedAddress holds a certificate to its address, by the gate.
func TestPinnedAddress(t *testing.T) {
	w := newWorld(t)
	for pin, let := range map[string]bool{"127.0.0.1": true, "127.0.0.2": false} {
		u := w.user()
		u.PinnedIP = addr(pin)
		key := newSigner(t)
		c, err := w.dial(sign(t, w.unsigned(u, key.PublicKey()), w.userCA, key), "ubuntu")
		if err != nil {
			t.Fatal(err)
		}
		s, err := c.NewSession()
		if (err == nil) != let {
			t.Errorf("%s: %v", pin, err)
		}
		if err == nil {
			s.Close()
		}
	}
}

func TestNoSuchLogin(t *testing.T) {
	w := newWorld(t)
	c, err := w.dial(w.signer(), "gone")
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.NewSession()
	var open *ssh.OpenChannelError
	if !errors.As(err, &open) || !strings.Contains(open.Message, "does not exist on this host") {
		t.Error(err)
	}
}

// TestA28 asks for everything that was not granted.
func TestA28(t *testing.T) {
	plain := accessRole()
	plain.Options.PortForwarding, plain.Options.ForwardAgent = false, false
	w := newWorld(t, plain)
	c := w.client()
	target := echo(t)
	host, port, _ := net.SplitHostPort(target)
	_ = host
	var n uint32
	_, _ = fmt.Sscan(port, &n)
	direct := ssh.Marshal(struct {
		H string
		P uint32
		O string
		Q uint32
	}{"127.0.0.1", n, "", 0})
	for _, ch := range []struct {
		kind, text string
		payload    []byte
	}{
		{"direct-tcpip", "port forwarding is not granted", direct},
		{"direct-streamlocal@openssh.com", "forwarding to unix sockets is not offered", ssh.Marshal(struct {
			P, R string
			N    uint32
		}{"/run/x", "", 0})},
		{"x11", "X11 forwarding is not offered", nil},
	} {
		_, _, err := c.OpenChannel(ch.kind, ch.payload)
		var open *ssh.OpenChannelError
		if !errors.As(err, &open) || open.Reason != ssh.Prohibited || !strings.HasPrefix(open.Message, ch.text) {
			t.Errorf("%s: %v", ch.kind, err)
		}
	}
	for _, g := range []struct {
		kind    string
		payload []byte
	}{
		{"tcpip-forward", ssh.Marshal(ask.Forward{Address: "localhost", Port: 0})},
		{"streamlocal-forward@openssh.com", ssh.Marshal(struct{ P string }{"/tmp/x"})},
	} {
		if ok, _, err := c.SendRequest(g.kind, true, g.payload); ok || err != nil {
			t.Errorf("%s: %v %v", g.kind, ok, err)
		}
	}
	ch, reqs, err := c.OpenChannel("session", nil)
	if err != nil {
		t.Fatal(err)
	}
	go ssh.DiscardRequests(reqs)
	for _, r := range []struct {
		kind    string
		payload []byte
	}{
		{"auth-agent-req@openssh.com", nil},
		{"x11-req", nil},
		{"subsystem", ssh.Marshal(struct{ N string }{"netconf"})},
		{"env", ssh.Marshal(struct{ N, V string }{"LD_PRELOAD", "/tmp/x.so"})},
	} {
		if ok, err := ch.SendRequest(r.kind, true, r.payload); ok || err != nil {
			t.Errorf("%s: %v %v", r.kind, ok, err)
		}
	}
	if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"env"})); !ok || err != nil {
		t.Fatal(ok, err)
	}
	out, _ := io.ReadAll(ch)
	for _, bad := range []string{"LD_PRELOAD", "SSH_AUTH_SOCK", "DISPLAY"} {
		if strings.Contains(string(out), bad) {
			t.Errorf("the process has %s", bad)
		}
	}
	var said []string
	for _, e := range w.recorder.of(event.Auth) {
		if e.Reason != "not_granted" || e.User != "myuser" {
			t.Errorf("%+v", e)
		}
		said = append(said, e.Message)
	}
	if len(said) != 8 {
		t.Errorf("%d denials on record: %q", len(said), said)
	}
	if len(w.recorder.of(event.Port)) != 0 {
		t.Error("a forward is on record as granted")
	}
}

// TestA28WithoutPTY has a certificate that grants no terminal.
func TestA28WithoutPTY(t *testing.T) {
	w := newWorld(t)
	u := w.user()
	u.Grant = identity.Grant{}
	key := newSigner(t)
	c, err := w.dial(sign(t, w.unsigned(u, key.PublicKey()), w.userCA, key), "ubuntu")
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RequestPty("xterm", 24, 80, nil); err == nil {
		t.Error("a terminal was given")
	}
	if _, err := c.Dial("tcp", echo(t)); err == nil {
		t.Error("a port was forwarded")
	}
}

// TestA28Later takes the right to forward away while the connection is up: what opens later is refused, what is open
// ends, and the session that carries it goes on.
func TestA28Later(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	in, _ := session.StdinPipe()
	out, _ := session.StdoutPipe()
	if err := session.Start("cat"); err != nil {
		t.Fatal(err)
	}
	target := echo(t)
	up, err := c.Dial("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	l, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	remote, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); err != nil {
		t.Fatal(err)
	}
	less := accessRole()
	less.Options.PortForwarding = false
	w.apply(manifest.Role, less)
	for name, conn := range map[string]net.Conn{"-L": up, "-R": remote} {
		if name == "-R" {
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("%s lives on: %v", name, err)
		}
	}
	if up, err := c.Dial("tcp", target); err == nil {
		up.Close()
		t.Error("another forward was opened")
	}
	await(t, "the port's end", func() bool {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if _, err := io.WriteString(in, "still here\n"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("still here\n"))
	if _, err := io.ReadFull(out, got); err != nil {
		t.Fatalf("the session ended with its forwards: %v", err)
	}
	// Given back, it works again.
	w.apply(manifest.Role, accessRole())
	await(t, "the right is back", func() bool {
		up, err := c.Dial("tcp", target)
		if err == nil {
			up.Close()
		}
		return err == nil
	})
}

func TestForwardTargets(t *testing.T) {
	w := newWorld(t)
	w.login.UID = 12345 // not root, so that its ports are bounded
	c := w.client()
	for _, bad := range []string{"169.254.169.254:80", "[fe80::1%lo]:80"} {
		if _, err := c.Dial("tcp", bad); err == nil {
			t.Errorf("%s was dialed", bad)
		}
	}
	for _, r := range []struct {
		ask ask.Forward
		ok  bool
		at  string
	}{
		{ask.Forward{Address: "", Port: 0}, true, "127.0.0.1"}, {ask.Forward{Address: "*", Port: 0}, true, "127.0.0.1"}, {ask.Forward{Address: "0.0.0.0", Port: 0}, true, "0.0.0.0"},
		{ask.Forward{Address: "localhost", Port: 80}, false, ""}, {ask.Forward{Address: "example.com", Port: 0}, false, ""}, {ask.Forward{Address: "localhost", Port: 70000}, false, ""},
	} {
		ok, payload, err := c.SendRequest("tcpip-forward", true, ssh.Marshal(r.ask))
		if err != nil || ok != r.ok {
			t.Errorf("%+v: %v %v", r.ask, ok, err)
		}
		if !ok {
			continue
		}
		port := binary.BigEndian.Uint32(payload)
		if got := listensOn(t, port); got != r.at {
			t.Errorf("%+v listens on %s", r.ask, got)
		}
		if ok, _, _ := c.SendRequest("cancel-tcpip-forward", true, ssh.Marshal(ask.Forward{Address: r.ask.Address, Port: port})); !ok {
			t.Errorf("%+v was not ended", r.ask)
		}
	}
}

// listensOn reads the kernel's table of listening sockets.
func listensOn(t *testing.T, port uint32) string {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != "0A" || !strings.HasSuffix(f[1], fmt.Sprintf(":%04X", port)) {
			continue
		}
		switch strings.Split(f[1], ":")[0] {
		case "0100007F":
			return "127.0.0.1"
		case "00000000":
			return "0.0.0.0"
		}
		return f[1]
	}
	return "nothing"
}

// TestA29 has SFTP of a login without rights reach for what is not its own, through a link that is swapped in too.
func TestA29(t *testing.T) {
	peer.Root(t)
	w := newWorld(t)
	dir, err := os.MkdirTemp("", "node-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	self, _ := os.Executable()
	program, err := os.ReadFile(self)
	home, secret := filepath.Join(dir, "home"), filepath.Join(dir, "secret")
	err = errors.Join(err, os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "server"), program, 0o755), os.Mkdir(home, 0o755),
		os.Chown(home, 65534, 65534), os.WriteFile(secret, []byte("root's"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	w.node.SFTP = []string{filepath.Join(dir, "server"), "sftp-server"}
	w.login.UID, w.login.GID, w.login.Home = 65534, 65534, home
	c, err := sftp.NewClient(w.client())
	if err != nil {
		t.Fatal(err)
	}
	f, err := c.Create("file")
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := errors.Join(c.Remove("file"), c.Symlink(secret, "file")); err != nil { // the swap
		t.Fatal(err)
	}
	for _, path := range []string{"file", "../secret", secret, home + "/./../secret"} { // never a file of the machine: a mistake here would write it
		if f, err := c.Open(path); err == nil {
			f.Close()
			t.Errorf("%s was read", path)
		}
		if f, err := c.OpenFile(path, os.O_WRONLY); err == nil {
			f.Close()
			t.Errorf("%s was written", path)
		}
		if err := c.Chmod(path, 0o4777); err == nil {
			t.Errorf("%s got setuid", path)
		}
		if path != "file" && c.Remove(path) == nil {
			t.Errorf("%s was removed", path)
		}
	}
	if b, err := os.ReadFile(secret); string(b) != "root's" {
		t.Error(err)
	}
	if st, _ := os.Stat(secret); st.Mode() != 0o600 {
		t.Error(st.Mode())
	}
	var paths []string
	for _, e := range w.recorder.of(event.SCP) {
		paths = append(paths, e.Path)
	}
	if !slices.Contains(paths, secret) {
		t.Errorf("attempts on record: %q", paths)
	}
}

// TestExecOnlyWhenRecorded fails the audit log: then nothing runs.
func TestExecOnlyWhenRecorded(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(w.login.Home, "ran")
	w.recorder.hook = func(ev event.Event) error {
		if _, err := os.Stat(mark); err == nil && ev.Kind == event.Exec {
			t.Error("the command ran before its event")
		}
		if ev.Kind == event.Exec && strings.Contains(ev.Command, "refuse") || ev.Kind == event.SCP || ev.Kind == event.Port {
			return errors.New("disk full")
		}
		return nil
	}
	c := w.client()
	s, _ := c.NewSession()
	if err := s.Run("touch ran # refuse"); err == nil {
		t.Error("it ran")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("an unrecorded command ran")
	}
	if _, err := c.Dial("tcp", echo(t)); err == nil {
		t.Error("an unrecorded forward")
	}
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := files.Create("ran"); err == nil {
		t.Error("an unrecorded upload")
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("an unrecorded file was made")
	}
	s, _ = c.NewSession()
	if err := s.Run("touch ran"); err != nil {
		t.Error(err)
	}
}

func TestKeepalive(t *testing.T) {
	w := newWorld(t)
	if ok, _, err := w.client().SendRequest("keepalive@openssh.com", true, nil); !ok || err != nil {
		t.Error(ok, err)
	}
}

func FuzzParseDirect(f *testing.F) {
	f.Add(ssh.Marshal(struct {
		H string
		P uint32
		O string
		Q uint32
	}{"localhost", 80, "::1", 1}))
	f.Fuzz(func(t *testing.T, payload []byte) {
		to, err := ask.Direct(payload)
		if err != nil {
			return
		}
		if host, port, err := net.SplitHostPort(to); err != nil || host == "" || port == "0" || strings.ContainsAny(to, "/ \x00") {
			t.Errorf("%q", to)
		}
	})
}
