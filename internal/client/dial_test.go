package client

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/outbound"
)

// authority is a cluster's, of the test's own.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key}
	a.cert = a.sign(&x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "example.com"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, nil)
	return a
}

func (a *authority) sign(c, parent *x509.Certificate) *x509.Certificate {
	a.t.Helper()
	if parent == nil {
		parent = c
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, a.key.Public(), a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	out, err := x509.ParseCertificate(raw)
	if err != nil {
		a.t.Fatal(err)
	}
	return out
}

// host is a server's certificate of a role, valid between two times from now.
func (a *authority) host(role identity.HostRole, begins, ends time.Duration) tls.Certificate {
	a.t.Helper()
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(begins), NotAfter: time.Now().Add(ends),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	if err := (identity.Host{ID: uuid.NewString(), Role: role, Cluster: "example.com"}).X509(c); err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{a.sign(c, a.cert).Raw}, PrivateKey: a.key}
}

// serve answers every connection with a TLS handshake, and returns the address.
func serve(t *testing.T, config *tls.Config) string {
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
			go func() {
				defer c.Close()
				s := tls.Server(c, config)
				if s.Handshake() == nil {
					_, _ = s.Read(make([]byte, 1))
				}
			}()
		}
	}()
	return l.Addr().String()
}

// TestWhatAnswers is what a connection may meet in place of the cluster's auth server.
func TestWhatAnswers(t *testing.T) {
	own, other := newAuthority(t), newAuthority(t)
	h2 := []string{"h2"}
	for _, c := range []struct {
		name   string
		config *tls.Config
		reason string
		says   string
	}{
		{"auth", &tls.Config{Certificates: []tls.Certificate{own.host("auth", -time.Hour, time.Hour)}, NextProtos: h2}, "", ""},
		{"a middlebox with its own authority", &tls.Config{Certificates: []tls.Certificate{other.host("auth", -time.Hour, time.Hour)}, NextProtos: h2},
			"intercepted", "the connection to 127.0.0.1 is being intercepted"},
		{"one that answers without ALPN", &tls.Config{Certificates: []tls.Certificate{own.host("auth", -time.Hour, time.Hour)}},
			"intercepted", "the connection to 127.0.0.1 is being intercepted"},
		{"one that lets no ALPN through", &tls.Config{Certificates: []tls.Certificate{own.host("auth", -time.Hour, time.Hour)}, NextProtos: []string{"other"}},
			"intercepted", "the connection to 127.0.0.1 is being intercepted"},
		{"another role", &tls.Config{Certificates: []tls.Certificate{own.host("proxy", -time.Hour, time.Hour)}, NextProtos: h2}, "intercepted", ""},
		{"a certificate that is over", &tls.Config{Certificates: []tls.Certificate{own.host("auth", -2*time.Hour, -90*time.Minute)}, NextProtos: h2},
			"certificate_time", "it ended 1h30m"},
		{"a clock that is behind", &tls.Config{Certificates: []tls.Certificate{own.host("auth", 10*time.Minute, time.Hour)}, NextProtos: h2},
			"certificate_time", "it begins in 9m5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := Address{Addr: serve(t, c.config), Cluster: "example.com", Authority: own.cert}
			conn, err := a.tls(t.Context(), wanted{role: identity.RoleAuth, alpn: h2})
			if err == nil {
				conn.Close()
			}
			if c.reason == "" && err == nil {
				return
			}
			if f := fault.Of(err); f.Reason != c.reason || !strings.Contains(f.Text+" "+f.Cause, c.says) {
				t.Fatalf("%+v", f)
			}
		})
	}
}

// TestHTTPProxy dials through HTTPS_PROXY, around it, and through what is none.
func TestHTTPProxy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	asked := make(chan *http.Request, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				asked <- r
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
			}
			c.Close()
		}
	}()
	t.Setenv("NO_PROXY", "direct.example.com")
	t.Setenv("HTTPS_PROXY", "http://me:topsecret@"+l.Addr().String())
	conn, err := outbound.Dial(t.Context(), "proxy.example.com:3080")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if r := <-asked; r.Method != http.MethodConnect || r.Host != "proxy.example.com:3080" || r.Header.Get("Proxy-Authorization") != "Basic bWU6dG9wc2VjcmV0" {
		t.Fatalf("%s %s %v", r.Method, r.Host, r.Header)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is looked up; the error is that of a direct connection
	if _, err := outbound.Dial(ctx, "direct.example.com:3080"); !fault.Because(err, "unreachable") || strings.Contains(fault.Of(err).Cause, "HTTPS_PROXY") {
		t.Fatal(err)
	}
	for _, bad := range []string{"https://me:topsecret@" + l.Addr().String(), "socks5://me:topsecret@" + l.Addr().String(), "://me:topsecret@h", "http://me:top%zzsecret@h:1/"} {
		t.Setenv("HTTPS_PROXY", bad)
		_, err := outbound.Dial(t.Context(), "proxy.example.com:3080")
		if !strings.Contains(bad, "%zz") && !fault.Because(err, "http_proxy") || err == nil || strings.Contains(fault.Of(err).Lines()+err.Error(), "topsecret") {
			t.Errorf("%v", err)
		}
	}
	select {
	case r := <-asked:
		t.Errorf("a proxy of another scheme was asked %v", r.Header)
	default:
	}
}
