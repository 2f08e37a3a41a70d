//go:build linux

package node

import (
	"bytes"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestA54LockCutsEverything locks a user who has a shell, a command, both forwards and a copy under way.
func TestA54LockCutsEverything(t *testing.T) {
	w := newWorld(t)
	c := w.client()
	var stderr [3]lockedBuffer
	var pids [2]int
	sessions := make([]*ssh.Session, 2)
	for i := range sessions {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		sessions[i] = s
		s.Stderr = &stderr[i]
		out, _ := s.StdoutPipe()
		in, _ := s.StdinPipe()
		if i == 0 {
			if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
				t.Fatal(err)
			}
			if err := s.Shell(); err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(in, "sh -c 'trap \"\" HUP TERM; echo pid=$$=; exec sleep 1000'\n")
		} else if err := s.Start("trap '' HUP TERM; echo pid=$$=; while :; do sleep 1; done"); err != nil {
			t.Fatal(err)
		}
		pids[i] = readPID(t, out)
	}
	target := echo(t)
	local, err := c.Dial("tcp", target)
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
	files, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	upload, err := files.Create("big")
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan error, 1)
	go func() { _, err := upload.ReadFrom(zeroes{}); copied <- err }()

	began := time.Now()
	w.lock()
	for i, s := range sessions {
		err := s.Wait()
		if e, ok := err.(*ssh.ExitError); !ok || e.ExitStatus() != 255 {
			t.Errorf("session %d: %v", i, err)
		}
		contains(t, stderr[i].String(), lockedLine)
	}
	if got := stderr[0].String(); !strings.Contains(got, "\r\n") || strings.Contains(strings.ReplaceAll(got, "\r\n", ""), "\n") {
		t.Errorf("a raw terminal is told %q", got)
	}
	for name, conn := range map[string]net.Conn{"-L": local, "-R": remote} {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s lives on", name)
		}
	}
	if <-copied == nil {
		t.Error("the copy ended well")
	}
	if conn, err := net.Dial("tcp", l.Addr().String()); err == nil {
		conn.Close()
		t.Error("the port still listens")
	}
	_ = c.Wait()
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("took %s", d)
	}
	for _, pid := range pids {
		await(t, "the end of process "+strconv.Itoa(pid), func() bool { return syscall.Kill(pid, 0) != nil })
	}
	await(t, "the end on record", func() bool { return len(w.recorder.of(event.SessionEnd)) == 1 })
	if e := w.recorder.of(event.SessionEnd)[0]; e.Reason != "locked" {
		t.Errorf("%+v", e.Session)
	}
}

// readPID reads pid=N= from a process's output.
func readPID(t *testing.T, r io.Reader) int {
	t.Helper()
	var got []byte
	buf := make([]byte, 256)
	for {
		n, err := r.Read(buf)
		got = append(got, buf[:n]...)
		if _, after, ok := strings.Cut(string(got), "pid="); ok {
			if digits, _, ok := strings.Cut(after, "="); ok && digits != "$$" {
				pid, err := strconv.Atoi(digits)
				if err != nil {
					t.Fatal(err)
				}
				return pid
			}
			if strings.HasPrefix(after, "$$=") {
				got = []byte(after[3:])
			}
		}
		if err != nil {
			t.Fatal(err, string(got))
		}
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestCutWithoutSession tells a client that only forwards by a global request.
func TestCutWithoutSession(t *testing.T) {
	w := newWorld(t)
	conn, err := net.Dial("tcp", w.address)
	if err != nil {
		t.Fatal(err)
	}
	_, _, reqs, err := ssh.NewClientConn(conn, "x", &ssh.ClientConfig{User: "ubuntu", Auth: []ssh.AuthMethod{ssh.PublicKeys(w.signer())},
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), HostKeyAlgorithms: []string{ssh.CertAlgoECDSA256v01}})
	if err != nil {
		t.Fatal(err)
	}
	await(t, "the session's start", func() bool { return len(w.recorder.of(event.SessionStart)) == 1 })
	w.lock()
	var said string
	for r := range reqs {
		if r.Type == cutRequest {
			said = string(r.Payload)
		}
	}
	if !strings.HasPrefix(said, lockedLine+"\n") {
		t.Errorf("told %q", said)
	}
}

// TestIdle ends a session in which nothing is typed, and none in which something is.
func TestIdle(t *testing.T) {
	r := accessRole()
	r.Options.ClientIdleTimeout = 3_000_000_000
	w := newWorld(t, r)
	c := w.client()
	s, _ := c.NewSession()
	in, _ := s.StdinPipe()
	if err := s.Start("cat >/dev/null"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 16 {
		time.Sleep(250 * time.Millisecond) // idleness is time
		if _, err := io.WriteString(in, "x"); err != nil {
			t.Fatal("ended while used", err)
		}
	}
	_ = s.Wait()
	if d := time.Since(began); d < 6*time.Second || d > 20*time.Second {
		t.Errorf("ended after %s", d)
	}
	await(t, "the reason on record", func() bool {
		e := w.recorder.of(event.SessionEnd)
		return len(e) == 1 && e[0].Reason == "idle"
	})
}
