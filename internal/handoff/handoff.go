// Package handoff is a listener of connections that were accepted elsewhere.
package handoff

import (
	"context"
	"net"
	"sync"
)

// Listener is a net.Listener of the connections that Give hands over.
type Listener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// New makes one that says it is at an address.
func New(addr net.Addr) *Listener {
	return &Listener{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// Give hands a connection to Accept. False where the listener was closed, or ctx ended, before anybody took it: it is the
// caller's then, as before.
func (l *Listener) Give(ctx context.Context, c net.Conn) bool {
	select {
	case l.conns <- c:
		return true
	case <-l.done:
	case <-ctx.Done():
	}
	return false
}

// Accept is of net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close is of net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return nil
}

// Addr is of net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }
