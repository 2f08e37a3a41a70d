package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream"

	"github.com/sallyport/sallyport/internal/kube/upstream"
	"github.com/sallyport/sallyport/internal/peer/kubeserver"
	"github.com/sallyport/sallyport/internal/target"
)

// secured are a place and a relay that only copies, in front of one server, TLS on both sides of both.
type secured struct {
	*place
	server   *httptest.Server
	up       *upstream.Server
	listener net.Listener
}

func newSecured(b *testing.B, answer http.HandlerFunc) *secured {
	b.Helper()
	s := &secured{place: newPlace(b, answer), server: httptest.NewUnstartedServer(answer)}
	s.server.EnableHTTP2 = true
	s.server.StartTLS()
	b.Cleanup(s.server.Close)
	at, err := url.Parse(s.server.URL)
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	s.up = upstream.New(at, &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12})
	b.Cleanup(s.up.Close)
	visit := s.visit
	s.visit = func() Visit {
		v := visit()
		v.Server = func() (*upstream.Server, error) { return s.up, nil }
		return v
	}
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.listener.Close() })
	return s
}

// serve accepts by TLS, and gives what was accepted to a door or to a relay.
func (s *secured) serve(protocols []string, take func(net.Conn)) func() (net.Conn, error) {
	conf := &tls.Config{Certificates: s.server.TLS.Certificates, NextProtos: protocols, SessionTicketsDisabled: true}
	go func() {
		for {
			c, err := s.listener.Accept()
			if err != nil {
				return
			}
			go func() {
				t := tls.Server(c, conf)
				if t.Handshake() == nil {
					take(t)
				}
			}()
		}
	}()
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	return func() (net.Conn, error) {
		return tls.Dial("tcp", s.listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: protocols})
	}
}

// relays copies.
func (s *secured) relays(c net.Conn) {
	up, err := s.up.Dial(context.Background())
	if err != nil {
		c.Close()
		return
	}
	one := func(to, from net.Conn) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
		to.Close()
		from.Close()
	}
	go one(up, c)
	one(c, up)
}

// way is how clients come to the server: direct, through a relay that only copies, or through the door.
func (s *secured) way(name string) func() (net.Conn, error) {
	protocols := []string{"http/1.1"}
	switch name {
	case "relay":
		return s.serve(protocols, s.relays)
	case "door":
		return s.serve(protocols, func(c net.Conn) { s.door.Serve(c, s.visit()) })
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.server.Certificate())
	return func() (net.Conn, error) {
		return tls.Dial("tcp", s.server.Listener.Addr().String(), &tls.Config{RootCAs: roots, ServerName: "example.com", NextProtos: protocols})
	}
}

var ways = []string{"direct", "relay", "door"}

// pours is an API server whose commands pour out bytes, or take them.
func pours(t testing.TB, size int) http.HandlerFunc {
	piece := make([]byte, 32<<10)
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "websocket" {
			u := websocket.Upgrader{Subprotocols: []string{"v5.channel.k8s.io"}, WriteBufferSize: 33 << 10}
			c, err := u.Upgrade(w, r, nil)
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			piece := append([]byte{1}, piece...)
			for sent := 0; sent < size; sent += len(piece) - 1 {
				if c.WriteMessage(websocket.BinaryMessage, piece) != nil {
					return
				}
			}
			_ = c.WriteMessage(websocket.BinaryMessage, []byte("\x03{\"status\":\"Success\"}"))
			_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(1000, ""), time.Now().Add(time.Second))
			_, _, _ = c.ReadMessage()
			return
		}
		p := &pod{}
		nc := p.hijack(w, "v4.channel.k8s.io")
		defer nc.Close()
		conn, err := spdystream.NewConnection(nc, true)
		if err != nil {
			t.Error(err)
			return
		}
		conn.Serve(func(s *spdystream.Stream) {
			_ = s.SendReply(http.Header{}, false)
			go func() {
				if s.Headers().Get("streamType") == "stdout" {
					for sent := 0; sent < size; sent += len(piece) {
						if _, err := s.Write(piece); err != nil {
							return
						}
					}
				}
				_ = s.Close()
			}()
		})
	}
}

func drink(b *testing.B, dial func() (net.Conn, error)) {
	d := websocket.Dialer{NetDialTLSContext: func(context.Context, string, string) (net.Conn, error) { return dial() }, Subprotocols: []string{"v5.channel.k8s.io"}, ReadBufferSize: 16 << 10}
	c, _, err := d.Dial("wss://example.com"+podPath+"exec?stdout=1&command=x", nil)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	for {
		_, r, err := c.NextReader()
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r)
	}
}

func drinkSPDY(b *testing.B, dial func() (net.Conn, error)) {
	c, err := dial()
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	_, _ = fmt.Fprintf(c, "POST %sexec?stdout=1&command=x HTTP/1.1\r\nHost: example.com\r\nUpgrade: SPDY/3.1\r\nConnection: Upgrade\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n", podPath)
	var head []byte
	for one := make([]byte, 1); !strings.HasSuffix(string(head), "\r\n\r\n"); head = append(head, one...) {
		if _, err := io.ReadFull(c, one); err != nil {
			b.Fatalf("%q %v", head, err)
		}
	}
	conn, err := spdystream.NewConnection(c, false)
	if err != nil {
		b.Fatal(err)
	}
	go conn.Serve(spdystream.NoOpStreamHandler)
	for _, kind := range []string{"error", "stdout"} {
		s, err := conn.CreateStream(http.Header{"streamType": {kind}}, nil, false)
		if err != nil {
			b.Fatal(err)
		}
		if kind == "stdout" {
			_, _ = io.Copy(io.Discard, s)
		}
	}
}

// BenchmarkBulk is what a command pours out, through the door and through a relay that only copies, TLS on both sides.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 20
	for name, drinks := range map[string]func(*testing.B, func() (net.Conn, error)){"websocket": drink, "spdy": drinkSPDY} {
		for _, way := range ways {
			b.Run(name+"/"+way, func(b *testing.B) {
				s := newSecured(b, pours(b, size))
				dial := s.way(way)
				b.SetBytes(size)
				for b.Loop() {
					drinks(b, dial)
				}
			})
		}
	}
}

// BenchmarkStart is a command that does nothing, from the connection to its end. cpu-ms/op is of the whole process, client
// and server with it.
func BenchmarkStart(b *testing.B) {
	for _, way := range ways {
		b.Run(way, func(b *testing.B) {
			s := newSecured(b, pours(b, 0))
			dial := s.way(way)
			began := spent()
			for b.Loop() {
				drink(b, dial)
			}
			b.ReportMetric(float64((spent()-began).Microseconds())/1000/float64(b.N), "cpu-ms/op")
		})
	}
}

// spent is the processor's time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// gets asks for an object again and again, on connections that stay.
func gets(b *testing.B, conns int, dial func() (net.Conn, error), path string, header http.Header) {
	b.SetParallelism(max(1, conns/2))
	began := spent()
	b.RunParallel(func(pb *testing.PB) {
		t := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return dial() }, DisableCompression: true}
		defer t.CloseIdleConnections()
		for pb.Next() {
			req, _ := http.NewRequest(http.MethodGet, "https://example.com"+path, nil)
			maps.Copy(req.Header, header)
			res, err := t.RoundTrip(req)
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
			if res.StatusCode != http.StatusOK {
				b.Errorf("%d", res.StatusCode)
				return
			}
		}
	})
	b.ReportMetric(float64((spent()-began).Microseconds())/float64(b.N), "cpu-µs/op")
}

// BenchmarkGet is a small object. cpu-µs/op is of the whole process, client and server with it.
func BenchmarkGet(b *testing.B) {
	body := `{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"web","namespace":"dev"},"data":{"key":"` + strings.Repeat("x", 500) + `"}}`
	answer := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body)
	}
	for _, conns := range []int{1, 16} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("%s/%d", way, conns), func(b *testing.B) {
				gets(b, conns, newSecured(b, answer).way(way), "/api/v1/namespaces/dev/configmaps/web", nil)
			})
		}
	}
}

// BenchmarkGetReal is a small object of a real API server, asked for as the same agent in the same person's name whichever way;
// cpu-µs/op is of the client and the agent, without the server.
func BenchmarkGetReal(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	api, err := kubeserver.Start(ctx)
	if err != nil {
		b.Fatal(err)
	}
	defer api.Stop()
	if err := api.Grant(ctx, "devs", "dev"); err != nil {
		b.Fatal(err)
	}
	const path = "/api/v1/namespaces/dev/configmaps"
	if _, err := api.Do(ctx, http.MethodPost, path, `{"metadata":{"name":"web"},"data":{"key":"`+strings.Repeat("x", 500)+`"}}`); err != nil {
		b.Fatal(err)
	}
	config, err := api.Kubeconfig(kubeserver.AgentToken)
	if err != nil {
		b.Fatal(err)
	}
	for _, conns := range []int{1, 16} {
		for _, way := range ways {
			b.Run(fmt.Sprintf("%s/%d", way, conns), func(b *testing.B) {
				s := newSecured(b, func(http.ResponseWriter, *http.Request) {})
				if s.up, err = upstream.Open(&target.KubeCluster{Name: "dev", Kubeconfig: config}); err != nil {
					b.Fatal(err)
				}
				defer s.up.Close()
				dial := s.way(way)
				if way == "direct" {
					dial = func() (net.Conn, error) { return s.up.Dial(context.Background()) }
				}
				same := http.Header{"Authorization": {"Bearer " + kubeserver.AgentToken}, "Impersonate-User": {"alice"}, "Impersonate-Group": {"devs", "readers"}}
				gets(b, conns, dial, path+"/web", same)
			})
		}
	}
}
