package postgres

import (
	"fmt"
	"net"
	"sync"

	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
)

// Sizes of what a direction reads into: little while little comes, more for a stream.
const (
	calmSize   = 4 << 10
	streamSize = 32 << 10
)

var streamBuffers = sync.Pool{New: func() any { b := make([]byte, streamSize); return &b }}

// inbox is what came from one side and is not passed on yet.
type inbox struct {
	conn     net.Conn
	buf      []byte
	from, to int // what is in buf
	pooled   *[]byte
	skip     int  // of a message that is passed on piece by piece: what is still to come
	filled   bool // the last read filled the buffer
}

func newInbox(c net.Conn) *inbox { return &inbox{conn: c, buf: make([]byte, calmSize)} }

// read reads once, with room for at least need bytes in all from the beginning of the message under way.
func (b *inbox) read(need int) error {
	b.room(need)
	n, err := b.conn.Read(b.buf[b.to:])
	b.to += n
	b.filled = b.to == len(b.buf)
	if n > 0 {
		return nil // an error comes again
	}
	return err
}

// room makes the buffer fit for what comes: larger where the last read filled it, small again once little came.
func (b *inbox) room(need int) {
	has := b.to - b.from
	switch {
	case need > streamSize && need > len(b.buf) && 2*has >= len(b.buf): // as it comes: a length alone costs nothing
		b.move(make([]byte, min(need, max(2*len(b.buf), 2*streamSize))), nil)
	case len(b.buf) > streamSize && need <= streamSize && has < calmSize, len(b.buf) < streamSize && (b.filled || need > len(b.buf)):
		p, _ := streamBuffers.Get().(*[]byte)
		b.move(*p, p)
	case len(b.buf) == streamSize && has == 0 && b.to < calmSize/2 && !b.filled:
		b.move(make([]byte, calmSize), nil)
	case b.from > 0:
		copy(b.buf, b.buf[b.from:b.to])
		b.from, b.to = 0, has
	}
}

func (b *inbox) move(to []byte, pooled *[]byte) {
	n := copy(to, b.buf[b.from:b.to])
	b.release()
	b.buf, b.pooled, b.from, b.to = to, pooled, 0, n
}

func (b *inbox) release() {
	if b.pooled != nil {
		streamBuffers.Put(b.pooled)
		b.pooled = nil
	}
}

// message is a message, whole or, where it is longer than is waited for, what there is of it.
type message struct {
	kind  byte
	body  []byte
	bytes []byte // all of it, with its head
	whole bool
}

// next takes the next message. Where it is not all there, need says how much must be; a message longer than whole allows is
// given with at least enough of it, and the rest is skip.
func (b *inbox) next(whole func(kind byte) (most, enough int)) (m message, need int, err error) {
	p := b.buf[b.from:b.to]
	kind, body, ok, err := wire.Head(p)
	if err != nil {
		return m, 0, err
	}
	if !ok {
		return m, wire.HeadSize, nil
	}
	size := wire.HeadSize + body
	most, enough := whole(kind)
	switch {
	case len(p) >= size:
		b.from += size
		return message{kind, p[wire.HeadSize:size], p[:size], true}, 0, nil
	case size <= most:
		return m, size, nil
	case enough < 0:
		return m, 0, fmt.Errorf("message %q of %d bytes", kind, size)
	case len(p) < enough:
		return m, enough, nil
	}
	b.from = b.to
	b.skip = size - len(p)
	return message{kind, p[wire.HeadSize:], p, false}, 0, nil
}

// passing takes what there is of a message that is passed on piece by piece.
func (b *inbox) passing() []byte {
	n := min(b.skip, b.to-b.from)
	p := b.buf[b.from : b.from+n]
	b.from, b.skip = b.from+n, b.skip-n
	return p
}
