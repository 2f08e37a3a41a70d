//go:build linux

package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/peer"
)

// TestDialVerifiesHost shows every host that is not the one; none gets a signature.
func TestDialVerifiesHost(t *testing.T) {
	a := newAuthorities(t)
	role := func(r identity.HostRole) func(c *ssh.Certificate) {
		return func(c *ssh.Certificate) {
			c.Permissions, _ = identity.Host{ID: "id", Role: r, Name: target, Cluster: "example.com"}.SSHPermissions()
		}
	}
	at := func(d time.Duration) uint64 { return uint64(time.Now().Add(d).Unix()) }
	for _, c := range []struct {
		name, reason string
		ca           ssh.Signer
		edit         func(c *ssh.Certificate)
	}{
		{"the host", "", a.host, nil},
		{"another authority", "host_identity", newSigner(t), nil},
		{"A21 the user authority", "host_identity", a.user, nil},
		{"A21 a user certificate", "host_identity", a.host, func(c *ssh.Certificate) { c.CertType = ssh.UserCert }},
		{"another name", "host_identity", a.host, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"other", target + ".example.com"} }},
		{"any name", "host_identity", a.host, func(c *ssh.Certificate) { c.ValidPrincipals = nil }},
		{"expired", "clock", a.host, func(c *ssh.Certificate) { c.ValidBefore = at(-time.Second) }},
		{"not yet", "clock", a.host, func(c *ssh.Certificate) { c.ValidAfter = at(time.Minute) }},
		{"a critical option", "host_identity", a.host, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} }},
		{"nothing of a host", "host_identity", a.host, func(c *ssh.Certificate) { c.Extensions = nil }},
		{"A10 a proxy of that name", "host_identity", a.host, role(identity.RoleProxy)},
		{"A13 a database agent of that name", "host_identity", a.host, role(identity.RoleDB)},
	} {
		cert := a.hostCert(t)
		if c.edit != nil {
			c.edit(cert)
		}
		conn := a.serve(t, certify(t, cert, c.ca, newSigner(t)), func(s *ssh.ServerConn, _ <-chan ssh.NewChannel) { _ = s.Wait() })
		config := a.config(t)
		client, err := Dial(context.Background(), conn, config)
		signatures := config.Signer.(*counting).count()
		if c.reason == "" {
			if err != nil || signatures != 1 {
				t.Errorf("%s: %v, %d signatures", c.name, err, signatures)
			}
			client.Close()
			continue
		}
		if !fault.Because(err, c.reason) || signatures != 0 {
			t.Errorf("%s: %v, %d signatures", c.name, err, signatures)
		}
	}
	conn := a.serve(t, newSigner(t), func(*ssh.ServerConn, <-chan ssh.NewChannel) {})
	if _, err := Dial(context.Background(), conn, a.config(t)); err == nil {
		t.Error("a bare host key was taken")
	}
	config := a.config(t)
	config.Login = "admin"
	if _, err := Dial(context.Background(), conn, config); !fault.Because(err, "not_a_login") {
		t.Error(err)
	}
}

func TestDialGivesUp(t *testing.T) {
	client, server := net.Pipe()
	defer server.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { _, _ = io.ReadFull(server, make([]byte, 4)); cancel() }()
	if _, err := Dial(ctx, client, newAuthorities(t).config(t)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func job(command string, in io.Reader) (Job, *bytes.Buffer, *bytes.Buffer) {
	var out, stderr bytes.Buffer
	return Job{Command: command, In: in, Out: &out, Err: &stderr}, &out, &stderr
}

func TestRun(t *testing.T) {
	c := sshd(t)
	for _, r := range []struct {
		command, in, out, err string
		want                  ExitStatus
	}{
		{"echo out; echo err >&2", "", "out\n", "err\n", ExitStatus{}},
		{"cat; exit 7", "input", "input", "", ExitStatus{Status: 7}},
		{"kill -TERM $$", "", "", "", ExitStatus{Status: 255, Signal: "TERM"}},
		{"tty", "", "not a tty\n", "", ExitStatus{Status: 1}},
	} {
		j, out, stderr := job(r.command, strings.NewReader(r.in))
		err := c.Run(context.Background(), j)
		var status *ExitStatus
		if errors.As(err, &status) != (r.want != ExitStatus{}) || status != nil && *status != r.want {
			t.Errorf("%s: %v", r.command, err)
		}
		if out.String() != r.out || stderr.String() != r.err {
			t.Errorf("%s: %q %q", r.command, out, stderr)
		}
	}
	j, out, _ := job("tty; echo $LC_TEST", nil)
	j.Terminal, j.Env = TerminalForce, []string{"LC_TEST=yes"}
	if err := c.Run(context.Background(), j); err != nil || !strings.HasPrefix(out.String(), "/dev/pts/") || !strings.Contains(out.String(), "yes") {
		t.Errorf("%v %q", err, out)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	j, _, _ = job("echo up; sleep 1000", nil)
	j.Out = writerFunc(func([]byte) { cancel(errors.New("enough")) })
	if err := c.Run(ctx, j); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

type writerFunc func([]byte)

func (f writerFunc) Write(b []byte) (int, error) { f(b); return len(b), nil }

// TestInteractive has a person at a terminal, who resizes it and leaves by ~. .
func TestInteractive(t *testing.T) {
	c := sshd(t)
	person, terminal, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer person.Close()
	defer terminal.Close()
	if err := pty.Setsize(person, &pty.Winsize{Rows: 33, Cols: 101}); err != nil {
		t.Fatal(err)
	}
	before, _ := term.GetState(int(terminal.Fd()))
	done := make(chan error, 1)
	go func() {
		done <- c.Run(context.Background(), Job{In: terminal, Out: terminal, Err: terminal})
	}()
	seen := make(chan string, 1000)
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := person.Read(buf)
			if err != nil {
				return
			}
			seen <- string(buf[:n])
		}
	}()
	var all string
	until := func(what string) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for !strings.Contains(all, what) {
			select {
			case s := <-seen:
				all += s
			case <-timeout:
				t.Fatalf("%q was not seen in %q", what, all)
			}
		}
	}
	_, _ = io.WriteString(person, "stty size; echo re''ady\r")
	until("ready")
	until("33 101")
	if err := pty.Setsize(person, &pty.Winsize{Rows: 20, Cols: 70}); err != nil {
		t.Fatal(err)
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	_, _ = io.WriteString(person, "for i in 1 2 3 4 5 6 7 8 9; do stty size; sleep 0.1; done\r")
	until("20 70")
	_, _ = io.WriteString(person, "echo \x03\r~.")
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("~. did not end it")
	}
	after, _ := term.GetState(int(terminal.Fd()))
	if *before != *after {
		t.Error("the terminal was not restored")
	}
}

func TestEscapes(t *testing.T) {
	for _, c := range []struct {
		in, out string
		hangUp  bool
	}{
		{"abc", "abc", false}, {"~.", "", true}, {"a~.", "a~.", false}, {"a\r~.b", "a\r", true}, {"~~.", "~.", false},
		{"~a", "~a", false}, {"\n~~~.", "\n~~.", false}, {"x\r~", "x\r", false},
	} {
		for _, size := range []int{2, 3, 64} {
			e := &escapes{Reader: strings.NewReader(c.in), lineStart: true}
			var got []byte
			var err error
			buf := make([]byte, size)
			for err == nil {
				var n int
				n, err = e.Read(buf)
				got = append(got, buf[:n]...)
			}
			if string(got) != c.out || errors.Is(err, errHangUp) != c.hangUp {
				t.Errorf("%q by %d: %q %v", c.in, size, got, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	lines := "access denied to root connecting to " + target + ":0\n  role \"x\" requires a trusted device\x1b[2J"
	c := stand(t, func(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, lines)
		}
	})
	j, _, _ := job("ls", nil)
	var refused *Refused
	want := "access denied to root connecting to " + target + ":0\n  role \"x\" requires a trusted device[2J"
	if err := c.Run(context.Background(), j); !errors.As(err, &refused) || refused.Lines != want || err.Error() != want {
		t.Errorf("%q", err)
	}
	if err := c.Copy(context.Background(), Copy{Upload: true, Sources: []string{"x"}}, func(error) {}); !errors.As(err, &refused) {
		t.Error(err)
	}
	for lines, want := range map[string]string{
		"unauthorized device":      "ssh: rejected: administratively prohibited (unauthorized device)",
		"lock targeting X\n  more": "ssh: rejected: administratively prohibited (lock targeting X)\n  more",
	} {
		if got := (&Refused{lines}).Error(); got != want {
			t.Error(got)
		}
	}
}

func TestRefusedRequest(t *testing.T) {
	c := stand(t, func(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		for ch := range channels {
			channel, requests, _ := ch.Accept()
			for r := range requests {
				_, _ = io.WriteString(channel.Stderr(), "a terminal is not granted\n")
				_ = r.Reply(false, nil)
			}
		}
	})
	j, _, _ := job("ls", nil)
	j.Terminal = TerminalForce
	var refused *Refused
	if err := c.Run(context.Background(), j); !errors.As(err, &refused) || refused.Lines != "a terminal is not granted" {
		t.Error(err)
	}
}

func TestCut(t *testing.T) {
	c := stand(t, func(s *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		ch := <-channels
		channel, requests, _ := ch.Accept()
		_ = (<-requests).Reply(true, nil)
		_, _ = io.WriteString(channel.Stderr(), "lock in force\n")
		_, _, _ = s.SendRequest("cut@sallyport", false, []byte("lock in force\x1b]0;x\x07"))
	})
	j, _, stderr := job("sleep", nil)
	err := c.Run(context.Background(), j)
	var cut *Cut
	if !errors.As(err, &cut) || stderr.String() != "lock in force\n" {
		t.Errorf("%v %q", err, stderr)
	}
	if err := c.Wait(); !errors.As(err, &cut) || cut.Lines != "lock in force]0;x" {
		t.Errorf("%q", err)
	}
	c = stand(t, func(s *ssh.ServerConn, _ <-chan ssh.NewChannel) { _ = s.Wait() })
	c.Close()
	if err := c.Wait(); err != nil {
		t.Error(err)
	}
}

func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	return l.Addr().String()
}

func echoes(t *testing.T, address string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "hello")
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
		t.Errorf("%q %v", got, err)
	}
}

func TestForwards(t *testing.T) {
	c := sshd(t)
	to := echo(t)
	ctx, cancel := context.WithCancel(context.Background())
	fail := func(err error) { t.Error(err) }
	local, err := c.ForwardLocal(ctx, Forward{Listen: "127.0.0.1:0", Target: to}, fail)
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, local.String())
	port, err := c.ForwardRemote(Forward{Listen: "localhost:0", Target: to}, fail)
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, net.JoinHostPort("localhost", itoa(port)))
	dynamic, err := c.ForwardLocal(ctx, Forward{Listen: "127.0.0.1:0"}, fail)
	if err != nil {
		t.Fatal(err)
	}
	web := webServer(t)
	curl := peer.Any(t, "curl")
	for _, how := range []string{"--socks5", "--socks5-hostname"} {
		out, err := exec.Command(curl, "-sS", how, dynamic.String(), "http://"+strings.Replace(web, "127.0.0.1", "localhost", 1)).CombinedOutput()
		if string(out) != "the page" || err != nil {
			t.Errorf("%s: %q %v", how, out, err)
		}
	}
	cancel()
	for range 100 {
		conn, err := net.Dial("tcp", local.String())
		if err != nil {
			return
		}
		conn.Close()
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it listens on")
}

func TestForwardRefused(t *testing.T) {
	c := stand(t, func(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		for ch := range channels {
			_ = ch.Reject(ssh.Prohibited, "port forwarding is not granted")
		}
	})
	told := make(chan error, 1)
	local, err := c.ForwardLocal(context.Background(), Forward{Listen: "127.0.0.1:0", Target: "x:1"}, func(err error) { told <- err })
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", local.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var refused *Refused
	if err := <-told; !errors.As(err, &refused) {
		t.Error(err)
	}
	if _, err := c.ForwardRemote(Forward{Listen: "localhost:0", Target: "x:1"}, nil); !fault.Because(err, "remote_forward") {
		t.Error(err)
	}
}

// TestUnaskedChannels has a node open what nobody asked for.
func TestUnaskedChannels(t *testing.T) {
	answers := make(chan error, 3)
	stand(t, func(s *ssh.ServerConn, _ <-chan ssh.NewChannel) {
		forwarded := ssh.Marshal(struct {
			H string
			P uint32
			O string
			Q uint32
		}{"localhost", 80, "", 0})
		for kind, payload := range map[string][]byte{"forwarded-tcpip": forwarded, "auth-agent@openssh.com": nil, "session": nil} {
			_, _, err := s.OpenChannel(kind, payload)
			answers <- err
		}
		_ = s.Wait()
	})
	for range 3 {
		if err := <-answers; err == nil {
			t.Error("a channel was opened")
		}
	}
}

func TestAgentForwarding(t *testing.T) {
	c := sshd(t)
	socket := filepath.Join(t.TempDir(), "agent")
	ring := agent.NewKeyring()
	raw, _ := newKey(t)
	if err := ring.Add(agent.AddedKey{PrivateKey: raw, Comment: "mine"}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); _ = agent.ServeAgent(ring, conn) }()
		}
	}()
	if err := c.ForwardAgent(socket); err != nil {
		t.Fatal(err)
	}
	j, out, stderr := job("ssh-add -l", nil)
	j.Agent = true
	if err := c.Run(context.Background(), j); err != nil || !strings.Contains(out.String(), "mine") {
		t.Errorf("%v %q %q", err, out, stderr)
	}
	// An agent with a certificate of ours is tsh's own.
	cert := &ssh.Certificate{CertType: ssh.UserCert, ValidBefore: ssh.CertTimeInfinity, Permissions: ssh.Permissions{Extensions: map[string]string{identity.ExtIdentity: "{}"}}}
	ours, key := newKey(t)
	certify(t, cert, newSigner(t), key)
	if err := ring.Add(agent.AddedKey{PrivateKey: ours, Certificate: cert}); err != nil {
		t.Fatal(err)
	}
	if err := c.ForwardAgent(socket); !fault.Because(err, "own_agent") {
		t.Error(err)
	}
	if err := c.ForwardAgent(socket + "x"); !fault.Because(err, "agent") {
		t.Error(err)
	}
}

func TestParseForward(t *testing.T) {
	for _, c := range []struct {
		in      string
		dynamic bool
		want    Forward
		bad     string
	}{
		{in: "8080:host:80", want: Forward{"localhost:8080", "host:80"}},
		{in: "0.0.0.0:8080:host:80", want: Forward{"0.0.0.0:8080", "host:80"}},
		{in: "*:8080:host:80", want: Forward{":8080", "host:80"}},
		{in: ":8080:host:80", want: Forward{":8080", "host:80"}},
		{in: "[::1]:8080:[fe80::2]:80", want: Forward{"[::1]:8080", "[fe80::2]:80"}},
		{in: "0:[::1]:22", want: Forward{"localhost:0", "[::1]:22"}},
		{in: "1080", dynamic: true, want: Forward{"localhost:1080", ""}},
		{in: "[::1]:1080", dynamic: true, want: Forward{"[::1]:1080", ""}},
		{in: "", bad: "nothing"}, {in: "8080", bad: "no target"}, {in: "8080:host", bad: "no port"}, {in: "x:host:80", bad: "a word"},
		{in: "70000:host:80", bad: "too large"}, {in: "8080:host:0", bad: "port 0"}, {in: "8080::80", bad: "no host"},
		{in: "a:b:c:d:e", bad: "too much"}, {in: "[x]:1:h:2", bad: "no address"}, {in: "[::1]1:h:2", bad: "no colon"}, {in: "[::1", dynamic: true, bad: "open"},
		{in: "8080:/run/x.sock", bad: "a socket"},
	} {
		got, err := ParseForward(c.in, c.dynamic)
		if (err != nil) != (c.bad != "") || got != c.want {
			t.Errorf("%q: %+v %v", c.in, got, err)
		}
	}
}

func FuzzParseForward(f *testing.F) {
	f.Add("[::1]:8080:[fe80::2]:80", false)
	f.Add("1080", true)
	f.Fuzz(func(t *testing.T, s string, dynamic bool) {
		w, err := ParseForward(s, dynamic)
		if err != nil {
			return
		}
		if _, _, err := net.SplitHostPort(w.Listen); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if dynamic != (w.Target == "") {
			t.Errorf("%q: %+v", s, w)
		}
	})
}

type duplex struct {
	io.Reader
	io.Writer
}

func FuzzReadSOCKS(f *testing.F) {
	f.Add([]byte{5, 1, 0, 5, 1, 0, 1, 127, 0, 0, 1, 0, 80})
	f.Add([]byte{5, 1, 0, 5, 1, 0, 3, 1, 'h', 0, 80})
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x04aaaaaaaaaaaaaaaa\x01\x02rest"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		var answer bytes.Buffer
		to, err := readSOCKS(duplex{r, &answer})
		if answer.Len() > 16 {
			t.Error("a long answer")
		}
		if err != nil {
			return
		}
		host, port, err := net.SplitHostPort(to)
		if err != nil || host == "" || port == "0" || strings.ContainsAny(to, "/ \x00\n") {
			t.Errorf("%q %v", to, err)
		}
	})
}

func TestReadSOCKSRefuses(t *testing.T) {
	for name, in := range map[string]string{
		"SOCKS4": "\x04\x01\x00\x50\x7f\x00\x00\x01\x00", "HTTP": "GET / HTTP/1.1\r\n", "a password": "\x05\x01\x02",
		"BIND": "\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x50", "a line break": "\x05\x01\x00\x05\x01\x00\x03\x03a\nb\x00\x50",
		"no host": "\x05\x01\x00\x05\x01\x00\x03\x00\x00\x50", "port 0": "\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00",
	} {
		if to, err := readSOCKS(duplex{strings.NewReader(in), io.Discard}); err == nil {
			t.Errorf("%s: %s", name, to)
		}
	}
}
