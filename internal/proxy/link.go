package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// Link is a proxy's connection to auth, kept up by Run.
type Link struct {
	addr client.Address
	cert func() *tls.Certificate
	log  *slog.Logger

	mu  sync.Mutex
	mux *tunnel.Tunnel // guarded by mu; nil while there is none
	up  chan struct{}  // guarded by mu; closed once there is one
}

// NewLink makes a link to auth's own listener; cert is the proxy's host certificate, renewed meanwhile.
func NewLink(addr client.Address, cert func() *tls.Certificate, log *slog.Logger) *Link {
	return &Link{addr: addr, cert: cert, log: log, up: make(chan struct{})}
}

// Run keeps the link until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		mux, err := l.addr.Link(ctx, l.cert())
		if err != nil {
			l.log.Warn("auth cannot be reached", "err", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			pause = min(2*pause, 5*time.Second)
			continue
		}
		pause = 50 * time.Millisecond
		l.set(mux)
		stop := context.AfterFunc(ctx, func() { mux.Close() })
		// Auth opens no streams of its own.
		_ = mux.Serve(func(s *tunnel.Stream) { s.Close() })
		stop()
		mux.Close()
		l.set(nil)
	}
	return nil
}

func (l *Link) set(m *tunnel.Tunnel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mux = m
	if m != nil {
		close(l.up)
		return
	}
	l.up = make(chan struct{})
}

// Open waits shortly for the link and opens a stream.
func (l *Link) Open(ctx context.Context, h tunnel.Header) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		l.mu.Lock()
		mux, up := l.mux, l.up
		l.mu.Unlock()
		if mux != nil {
			c, err := mux.Open(ctx, h)
			if err == nil {
				return c, nil
			}
			select {
			case <-mux.Done(): // it broke: wait for the next one
				up = make(chan struct{})
				time.AfterFunc(50*time.Millisecond, func() { close(up) })
			default:
				return nil, err
			}
		}
		select {
		case <-up:
		case <-ctx.Done():
			return nil, fault.New(fault.Unavailable, "the auth server cannot be reached").WithReason("no_auth")
		}
	}
}
