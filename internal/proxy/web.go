package proxy

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
)

// reserved reports whether an SNI is a name of the cluster's own, which no browser is given.
func (p *Proxy) reserved(sni string) bool {
	if sni == "auth."+p.Cluster || sni == "proxy."+p.Cluster {
		return true
	}
	for _, kind := range []string{"node", "kube", "db", "app"} {
		if strings.HasSuffix(sni, "."+kind+"."+p.Cluster) {
			return true
		}
	}
	return false
}

// browser ends TLS for HTTP, with the certificates for browsers where there are any.
func (p *Proxy) browser(ctx context.Context, c *peeked, known func()) {
	config := p.server("h2", "http/1.1")
	config.MinVersion = tls.VersionTLS12
	if len(p.Web) > 0 {
		config.GetCertificate, config.Certificates = nil, p.Web
	}
	conn := tls.Server(c, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		p.Log.Debug("connection refused", "addr", c.addr, "err", err)
		return
	}
	known()
	_ = c.SetDeadline(time.Time{})
	done := make(chan struct{})
	if p.webConn.Give(ctx, &closing{Conn: conn, done: sync.OnceFunc(func() { close(done) })}) {
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
	conn.Close()
}

// CAPath is where a first contact asks for the authority that the CA pin names.
const CAPath = "/sallyport/v1/ca"

func (p *Proxy) webHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+CAPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Header().Set("Cache-Control", "no-store")
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: p.TLSHost.Raw})
	})
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte("Sallyport, cluster " + p.Cluster + "\nCA pin " + cluster.Pin(p.TLSHost) + "\n"))
	})
	return mux
}

// closing tells when the HTTP server is done with a connection. It hides that the connection is TLS, which was
// negotiated here: the server reads the protocol from it.
type closing struct {
	net.Conn
	done func()
}

// ConnectionState lets net/http see which protocol was negotiated.
func (c *closing) ConnectionState() tls.ConnectionState {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return tls.ConnectionState{}
	}
	return t.ConnectionState()
}

// Close is of net.Conn.
func (c *closing) Close() error {
	defer c.done()
	return c.Conn.Close()
}
