package turnstile

import (
	"errors"
	"net"
	"sync/atomic"
)

// Bounded is a connection that reads a bounded number of bytes until it is let through.
type Bounded struct {
	net.Conn
	left    atomic.Int64
	through atomic.Bool
}

// Bound lets at most n bytes be read from c before LetThrough.
func Bound(c net.Conn, n int64) *Bounded {
	b := &Bounded{Conn: c}
	b.left.Store(n)
	return b
}

// LetThrough takes the bound away.
func (b *Bounded) LetThrough() { b.through.Store(true) }

// Read is of net.Conn.
func (b *Bounded) Read(p []byte) (int, error) {
	if b.through.Load() {
		return b.Conn.Read(p)
	}
	left := b.left.Load()
	if left <= 0 {
		return 0, errors.New("too much ahead of authentication")
	}
	n, err := b.Conn.Read(p[:min(int64(len(p)), left)])
	b.left.Add(-int64(n))
	return n, err
}
