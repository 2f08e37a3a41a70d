package proxy

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// feed gives a connection whose far end sends raw, and what it got back.
func feed(t testing.TB, raw []byte) (*peeked, chan []byte) {
	a, b := net.Pipe()
	got := make(chan []byte, 1)
	go func() {
		go func() {
			_, _ = b.Write(raw)
			time.Sleep(20 * time.Millisecond)
			b.Close()
		}()
		all, _ := io.ReadAll(b)
		got <- all
	}()
	t.Cleanup(func() { a.Close() })
	_ = a.SetDeadline(time.Now().Add(2 * time.Second))
	return newPeeked(a), got
}

func hello1(t testing.TB, sni string, alpn ...string) []byte {
	a, b := net.Pipe()
	go func() {
		_ = tls.Client(a, &tls.Config{ServerName: sni, NextProtos: alpn, InsecureSkipVerify: true}).Handshake()
	}()
	_ = b.SetReadDeadline(time.Now().Add(2 * time.Second))
	buf := make([]byte, 16<<10)
	n, err := b.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	a.Close()
	b.Close()
	return buf[:n]
}

func TestSniff(t *testing.T) {
	ch := hello1(t, "x")
	for _, c := range []struct {
		name string
		raw  []byte
		want protocol
		fail bool
	}{
		{"ssh", []byte("SSH-2.0-OpenSSH_9.2\r\n"), protoSSH, false},
		{"tls", ch, protoTLS, false},
		{"http", []byte("GET / HTTP/1.1\r\n"), protoUnknown, false},
		{"a PROXY line from anybody", []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), protoUnknown, false},
		{"S that is no SSH", []byte("SMTP"), protoUnknown, false},
		{"cancel in clear", []byte{0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2}, protoUnknown, true},
		{"bytes ahead of TLS (A61)", append(append([]byte{}, sslRequest...), "Q"...), protoUnknown, true},
		{"a startup in clear", []byte{0, 0, 0, 8, 0, 3, 0, 0}, protoUnknown, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, _ := feed(t, c.raw)
			got, err := p.sniff()
			if got != c.want || (err != nil) != c.fail {
				t.Fatalf("%d %v", got, err)
			}
		})
	}
}

func TestSSLRequestThenTLS(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	ch := hello1(t, "web.db.example.com")
	go func() {
		buf := make([]byte, 1)
		_, _ = b.Write(gssEncRequest)
		if _, _ = io.ReadFull(b, buf); buf[0] != 'N' {
			t.Errorf("GSSENCRequest was answered %q", buf)
		}
		_, _ = b.Write(sslRequest)
		if _, _ = io.ReadFull(b, buf); buf[0] != 'S' {
			t.Errorf("SSLRequest was answered %q", buf)
		}
		_, _ = b.Write(ch)
	}()
	p := newPeeked(a)
	if proto, err := p.sniff(); proto != protoTLS || err != nil {
		t.Fatal(proto, err)
	}
	if h, err := p.clientHello(); err != nil || h.sni != "web.db.example.com" {
		t.Fatal(h, err)
	}
}

func TestClientHello(t *testing.T) {
	p, _ := feed(t, hello1(t, "auth.example.com", "sallyport-auth", "h2"))
	if _, err := p.sniff(); err != nil {
		t.Fatal(err)
	}
	h, err := p.clientHello()
	if err != nil || h.sni != "auth.example.com" || len(h.alpn) != 2 || h.alpn[0] != "sallyport-auth" {
		t.Fatalf("%+v %v", h, err)
	}
}

// TestA72PROXYSources reads PROXY lines from whom the config names alone.
func TestA72PROXYSources(t *testing.T) {
	line := []byte("PROXY TCP6 2001:db8::7 ::1 5000 3080\r\nSSH-2.0-x\r\n")
	p, _ := feed(t, line)
	p.addr = netip.MustParseAddrPort("10.0.0.9:1")
	if err := p.proxyLine([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}); err != nil {
		t.Fatal(err)
	}
	if p.addr.String() != "[2001:db8::7]:5000" {
		t.Fatal(p.addr)
	}
	if proto, err := p.sniff(); proto != protoSSH || err != nil {
		t.Fatal(proto, err)
	}
	q, _ := feed(t, line)
	q.addr = netip.MustParseAddrPort("10.0.1.9:1")
	if err := q.proxyLine([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}); err != nil || q.addr.Addr().String() != "10.0.1.9" {
		t.Fatal(q.addr, err)
	}
	if proto, _ := q.sniff(); proto != protoUnknown {
		t.Fatal("a spoofed PROXY line was taken")
	}
}

func FuzzSniff(f *testing.F) {
	f.Add(hello1(f, "auth.example.com", "h2"))
	f.Add([]byte("SSH-"))
	f.Add(append(append([]byte{}, gssEncRequest...), sslRequest...))
	f.Add([]byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x01\x02\x03\x04\x05\x06\x07\x08\x00\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, b := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		go func() { _, _ = b.Write(raw); b.Close() }()
		_ = a.SetDeadline(time.Now().Add(time.Second))
		p := newPeeked(a)
		p.addr = netip.MustParseAddrPort("10.0.0.9:1")
		if p.proxyLine([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}) == nil {
			if proto, err := p.sniff(); err == nil && proto == protoTLS {
				_, _ = p.clientHello()
			}
		}
		a.Close()
	})
}

// TestHelloWithoutALPN sends a hello to a name of the cluster's own from which somebody took the protocol away.
func TestHelloWithoutALPN(t *testing.T) {
	p := New(Config{Cluster: "example.com", Log: slog.New(slog.DiscardHandler), Now: time.Now})
	for _, c := range []struct {
		sni  string
		alpn []string
		says string
	}{{"auth.example.com", nil, "no application protocol"}, {"proxy.example.com", nil, "no application protocol"},
		{"auth.example.com", []string{"h2"}, "unrecognized name"}, {"elsewhere.example.com", nil, "unrecognized name"}} {
		near, far := net.Pipe()
		go func() {
			p.tls(t.Context(), newPeeked(far), func() {})
			far.Close()
		}()
		err := tls.Client(near, &tls.Config{ServerName: c.sni, NextProtos: c.alpn}).Handshake()
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %v: %v, want %s", c.sni, c.alpn, err, c.says)
		}
		near.Close()
	}
}
