// Package proxy is the public port: it finds out where a connection wants to go and carries its bytes there.
//
// In this order: a PROXY line from configured sources; `SSH-`, the jump service; PostgreSQL's SSLRequest; TLS by SNI,
// then by ALPN. The table is docs/protocol/port.md.
package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/handoff"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/turnstile"
)

// halfOpen is how many connections of one address are looked at at once, before it is known what they are; queued how
// many more may wait for their turn, unread. Further ones are closed.
const (
	halfOpen = 20
	queued   = 200
)

// Pictures gives the current picture.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Changed() <-chan struct{}
}

// AuthLink opens streams to the auth server.
type AuthLink interface {
	Open(ctx context.Context, h tunnel.Header) (net.Conn, error)
}

// Config is what a proxy works with. Certificate is its host certificate, renewed meanwhile; Web are the certificates
// for browsers, the host certificate where empty; HostKey is the SSH host key with its certificate.
type Config struct {
	Cluster           string
	TLSHost           *x509.Certificate
	Certificate       func() *tls.Certificate
	HostKey           func() ssh.Signer
	Web               []tls.Certificate
	ProxyProtocolFrom []netip.Prefix
	Pictures          Pictures
	Auth              AuthLink
	Log               *slog.Logger
	Now               func() time.Time
}

// Proxy serves the public port.
type Proxy struct {
	Config
	tunnels   tunnels
	phonebook phonebook
	web       *http.Server
	unknown   *turnstile.Turnstile // connections that are not yet known
	webConn   *handoff.Listener

	mu   sync.Mutex
	open map[net.Conn]bool // guarded by mu
	wg   sync.WaitGroup
}

// New makes a proxy.
func New(c Config) *Proxy {
	p := &Proxy{Config: c, unknown: turnstile.New(turnstile.Config{AtOnce: halfOpen, Waiting: queued, Wait: sniffTime}), open: map[net.Conn]bool{}, webConn: handoff.New(&net.TCPAddr{})}
	p.tunnels.proxy = p
	p.web = &http.Server{Handler: p.webHandler(), ReadHeaderTimeout: sniffTime, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		WriteTimeout: time.Minute, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug)}
	return p
}

// Serve answers connections from l until ctx ends; then it ends what it carries and waits for it.
func (p *Proxy) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	p.wg.Go(func() { _ = p.web.Serve(p.webConn) })
	p.wg.Go(func() { p.tunnels.watch(ctx) })
	for {
		c, err := l.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			if ctx.Err() == nil && errors.Is(err, net.ErrClosed) == false {
				p.Log.Warn("accept failed", "err", err)
				time.Sleep(50 * time.Millisecond) // out of files: wait for some to be given back
				continue
			}
			p.shut()
			return nil
		}
		p.wg.Go(func() { p.handle(ctx, c) })
	}
}

func (p *Proxy) shut() {
	p.webConn.Close()
	p.web.Close()
	p.mu.Lock()
	for c := range p.open {
		c.Close()
	}
	p.mu.Unlock()
	p.tunnels.closeAll()
	p.wg.Wait()
}

func (p *Proxy) handle(ctx context.Context, raw net.Conn) {
	defer func() {
		raw.Close()
		p.mu.Lock()
		delete(p.open, raw)
		p.mu.Unlock()
	}()
	p.mu.Lock()
	p.open[raw] = true
	p.mu.Unlock()
	c := newPeeked(raw)
	known := p.unknown.Enter(ctx, c.addr.Addr())
	if known == nil {
		return
	}
	defer known()
	_ = raw.SetDeadline(p.Now().Add(sniffTime))
	if err := c.proxyLine(p.ProxyProtocolFrom); err != nil {
		p.Log.Debug("connection refused", "addr", c.addr, "err", err)
		return
	}
	proto, err := c.sniff()
	switch {
	case err != nil:
		p.Log.Debug("connection refused", "addr", c.addr, "err", err)
	case proto == protoSSH:
		p.jump(ctx, c, known)
	case proto == protoTLS:
		p.tls(ctx, c, known)
	}
}

// tls routes by SNI, then by ALPN.
func (p *Proxy) tls(ctx context.Context, c *peeked, known func()) {
	h, err := c.clientHello()
	if err != nil {
		p.Log.Debug("connection refused", "addr", c.addr, "err", err)
		return
	}
	at := p.served(h.sni)
	switch {
	case h.sni == "auth."+p.Cluster && slices.Contains(h.alpn, tunnel.ALPNAuth):
		p.toAuth(ctx, c, known)
	case h.sni == "proxy."+p.Cluster && slices.Contains(h.alpn, tunnel.ALPNDial):
		p.dial(ctx, c, known)
	case h.sni == "proxy."+p.Cluster && slices.Contains(h.alpn, tunnel.ALPNTunnel):
		p.tunnels.accept(ctx, c, known)
	case at != nil:
		p.toAgent(ctx, c, at, known)
	case p.reserved(h.sni) && len(h.alpn) == 0:
		_, _ = c.Write(noApplicationProtocol)
	case p.reserved(h.sni):
		_, _ = c.Write(unrecognizedName)
	case slices.Contains(h.alpn, "h2") || slices.Contains(h.alpn, "http/1.1"):
		p.browser(ctx, c, known)
	default:
		_, _ = c.Write(unrecognizedName)
	}
}

// toAuth passes the connection untouched to the auth server.
func (p *Proxy) toAuth(ctx context.Context, c *peeked, known func()) {
	up, err := p.Auth.Open(ctx, tunnel.Header{Client: c.addr, Door: tunnel.DoorRPC})
	if err != nil {
		p.Log.Warn("auth cannot be reached", "err", err)
		return
	}
	known()
	_ = c.SetDeadline(time.Time{})
	p.carry(ctx, c, up)
}

// carry splices two streams until they end or the proxy stops.
func (p *Proxy) carry(ctx context.Context, a, b net.Conn) {
	stop := context.AfterFunc(ctx, func() { a.Close(); b.Close() })
	defer stop()
	tunnel.Splice(a, b)
}

// server is the TLS configuration of what ends here, for one ALPN protocol.
func (p *Proxy) server(alpn ...string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: alpn, SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Certificate(), nil },
	}
}
