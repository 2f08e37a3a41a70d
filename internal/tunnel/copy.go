package tunnel

import (
	"io"
	"net"
	"sync"
)

type group struct{ wg sync.WaitGroup }

func (g *group) run(f func()) { g.wg.Go(f) }
func (g *group) wait()        { g.wg.Wait() }

// buffers are what copying uses; 64 KiB carries bulk, and little waits in them.
var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

type halfCloser interface{ CloseWrite() error }

// Splice copies both ways between two streams until both directions are over, and closes both. An end that is told of
// in one direction is passed on where the stream can do that.
func Splice(a, b net.Conn) {
	var wg sync.WaitGroup
	one := func(dst, src net.Conn) {
		buf, _ := buffers.Get().(*[]byte)
		_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, *buf)
		buffers.Put(buf)
		if h, ok := dst.(halfCloser); ok && err == nil {
			_ = h.CloseWrite()
			return
		}
		dst.Close()
		if err != nil {
			src.Close()
		}
	}
	wg.Go(func() { one(a, b) })
	wg.Go(func() { one(b, a) })
	wg.Wait()
	a.Close()
	b.Close()
}
