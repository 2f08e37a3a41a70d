package tunnel

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/peer/authority"
)

// TestVectors are those of docs/protocol/port.md.
func TestVectors(t *testing.T) {
	for _, c := range []struct {
		v    any
		want string
	}{
		{Status{OK: true}, "000b" + hex.EncodeToString([]byte(`{"ok":true}`))},
		{Dial{Target: "web", Door: DoorSSH, Ticket: "t"}, "002a" + hex.EncodeToString([]byte(`{"target":"web","door":"ssh","ticket":"t"}`))},
		{Header{Client: netip.MustParseAddrPort("203.0.113.7:50122"), Target: "id", Door: DoorSSH}, "003d" + hex.EncodeToString([]byte(`{"client":"203.0.113.7:50122","target":"id","door":"ssh"}`))},
	} {
		var b bytes.Buffer
		if err := WriteFrame(&b, c.v); err != nil {
			t.Fatal(err)
		}
		want, _ := hex.DecodeString(c.want)
		if got := b.Bytes(); !bytes.Equal(got[2:], want[2:]) || int(got[0])<<8+int(got[1]) != len(got)-2 {
			t.Errorf("got %x", got)
		}
	}
}

func TestReadFrameRefuses(t *testing.T) {
	for name, raw := range map[string]string{
		"empty": "", "truncated length": "\x00", "truncated body": "\x00\x05{}", "oversized": "\xff\xff{}", "no JSON": "\x00\x02xx",
		"an unknown field": "\x00\x0e{\"okay\":false}x",
	} {
		var s Status
		if err := ReadFrame(strings.NewReader(raw), &s); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if err := WriteFrame(io.Discard, strings.Repeat("x", maxFrame)); err == nil {
		t.Error("an oversized frame was written")
	}
}

func TestStatusCarriesFaults(t *testing.T) {
	f := fault.New(fault.NotFound, "node %q not found", "x").WithReason("not_found").WithFix("tsh ls")
	got := fault.Of(StatusOf(f).Err())
	if got.Kind != fault.NotFound || got.Reason != "not_found" || got.Text != f.Text || got.Fix != "tsh ls" {
		t.Fatalf("%+v", got)
	}
	if (Status{}).Err() == nil {
		t.Fatal("an empty status is no OK")
	}
}

func TestStreams(t *testing.T) {
	a, b := net.Pipe()
	server := make(chan *Tunnel, 1)
	go func() {
		s, err := Server(b)
		if err != nil {
			t.Error(err)
		}
		server <- s
	}()
	c, err := Client(a)
	if err != nil {
		t.Fatal(err)
	}
	s := <-server
	ended := make(chan error, 1)
	go func() {
		ended <- s.Serve(func(st *Stream) {
			defer st.Close()
			if st.RemoteAddr().String() != "[2001:db8::1]:7" || st.Header.Target != "t" {
				t.Errorf("%+v", st.Header)
			}
			_, _ = io.Copy(st, st)
		})
	}()
	st, err := c.Open(t.Context(), Header{Client: netip.MustParseAddrPort("[2001:db8::1]:7"), Target: "t", Door: DoorSSH})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 5)
	if _, err := io.ReadFull(st, buf); err != nil || string(buf) != "hello" {
		t.Fatalf("%q %v", buf, err)
	}
	st.Close()
	c.Close()
	if err := <-ended; err != nil && !errors.Is(err, io.EOF) {
		t.Log(err)
	}
	<-s.Done()
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x00\x0b{\"ok\":true}"))
	f.Add([]byte("\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d Dial
		r := bytes.NewReader(raw)
		if ReadFrame(r, &d) == nil && len(raw)-r.Len() > maxFrame+2 {
			t.Fatal("read more than a frame")
		}
	})
}

// TestLateRead: TLS over a stream outlives a read that was late, which is how an HTTP server takes a connection back from
// its reader when it is upgraded.
func TestLateRead(t *testing.T) {
	a, b := net.Pipe()
	near, far := ends(t, a, b)
	ca := authority.New("test")
	got := make(chan error, 1)
	go func() {
		_ = far.Serve(func(s *Stream) {
			defer s.Close()
			conn := tls.Server(s, &tls.Config{Certificates: []tls.Certificate{ca.Server()}, MinVersion: tls.VersionTLS13})
			if err := conn.Handshake(); err != nil {
				got <- err
				return
			}
			_ = conn.SetReadDeadline(time.Unix(1, 0))
			var late net.Error
			if _, err := conn.Read(make([]byte, 1)); !errors.As(err, &late) || !late.Timeout() {
				got <- fmt.Errorf("a late read: %w", err)
				return
			}
			_ = conn.SetReadDeadline(time.Time{})
			if _, err := conn.Write([]byte("!")); err != nil {
				got <- err
				return
			}
			_, err := io.ReadFull(conn, make([]byte, 2))
			got <- err
		})
	}()
	s, err := near.Open(t.Context(), Header{Client: netip.MustParseAddrPort("203.0.113.7:1"), Door: DoorKube})
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(s, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost", MinVersion: tls.VersionTLS13})
	if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("ok")); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

// writes counts what goes to a connection.
type writes struct {
	net.Conn
	n atomic.Int64
}

func (w *writes) Write(b []byte) (int, error) {
	w.n.Add(1)
	return w.Conn.Write(b)
}

// TestOneWrite: a message of a stream is one write, and long ones come through whole.
func TestOneWrite(t *testing.T) {
	a, b := pair(t)
	counted := &writes{Conn: a}
	near, far := ends(t, counted, b)
	go far.Serve(func(s *Stream) { _, _ = io.Copy(s, s) })
	s, err := near.Open(t.Context(), Header{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_ = s.SetDeadline(time.Now().Add(20 * time.Second))
	for _, size := range []int{1, 12, 13, 4096, 70_000, 2} {
		sent := bytes.Repeat([]byte{0, 0, byte(size)}, size)[:size]
		before := counted.n.Load()
		if _, err := s.Write(sent); err != nil {
			t.Fatal(err)
		}
		if n := counted.n.Load() - before; n != 1 && size < 70_000 {
			t.Errorf("%d bytes are %d writes", size, n)
		}
		got := make([]byte, size)
		if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
}

// ends are a tunnel's over a connection, for as long as the test runs.
func ends(t testing.TB, a, b net.Conn) (near, far *Tunnel) {
	t.Helper()
	near, err := Client(a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	if far, err = Server(b); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	return near, far
}

// pair is a connection over loopback.
func pair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

// BenchmarkMessages sends small messages there and back, one after another, in TLS.
func BenchmarkMessages(b *testing.B) {
	ca := authority.New("test")
	cert := ca.Server("localhost")
	x, y := pair(b)
	near, far := ends(b, tls.Client(x, &tls.Config{RootCAs: ca.Pool, ServerName: "localhost"}), tls.Server(y, &tls.Config{Certificates: []tls.Certificate{cert}}))
	go far.Serve(func(s *Stream) { _, _ = io.Copy(s, s) })
	s, err := near.Open(b.Context(), Header{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	buf := make([]byte, 100)
	for b.Loop() {
		if _, err := s.Write(buf); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, buf); err != nil {
			b.Fatal(err)
		}
	}
}
