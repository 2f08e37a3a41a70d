package kube

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
)

// visited is a connection with whose it is.
type visited struct {
	net.Conn
	visit  Visit
	once   sync.Once
	closed chan struct{}
}

// Close is of net.Conn.
func (v *visited) Close() error {
	err := v.Conn.Close()
	v.once.Do(func() { close(v.closed) })
	return err
}

// streams are those that are open: their connections are theirs, and no HTTP server's.
type streams struct {
	ctx    context.Context
	cancel context.CancelFunc

	mu      sync.Mutex // orders enter and close
	running sync.WaitGroup
}

func newStreams() *streams {
	ctx, cancel := context.WithCancel(context.Background())
	return &streams{ctx: ctx, cancel: cancel}
}

// enter takes a session among them, until leave; where they are closed it is cut at once.
func (s *streams) enter(session *gate.Session) (leave func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stopping := func() {
		session.Cut(fault.New(fault.Unavailable, "this agent is stopping").WithReason("stopping").WithFix("try again"))
	}
	if s.ctx.Err() != nil {
		stopping()
		return func() {}
	}
	s.running.Add(1)
	stop := context.AfterFunc(s.ctx, stopping)
	return func() {
		stop()
		s.running.Done()
	}
}

// close cuts all and waits for them.
func (s *streams) close() {
	s.mu.Lock()
	s.cancel()
	s.mu.Unlock()
	s.running.Wait()
}

// buffers are what answers are copied in.
type buffers struct{}

var pool = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// Get is of httputil.BufferPool.
func (buffers) Get() []byte {
	b, _ := pool.Get().(*[]byte)
	return *b
}

// Put is of httputil.BufferPool.
func (buffers) Put(b []byte) { pool.Put(&b) }

// cutBody is an answer's body that ends, when the gate ends its session, with the reason: in a watch as the protocol's own
// ERROR event.
type cutBody struct {
	io.ReadCloser
	exchange *exchange
	json     bool
	last     []byte
	over     bool
}

// Read is of io.Reader.
func (b *cutBody) Read(p []byte) (int, error) {
	if len(b.last) > 0 {
		n := copy(p, b.last)
		b.last = b.last[n:]
		return n, nil
	}
	if b.over {
		return 0, io.EOF
	}
	n, err := b.ReadCloser.Read(p)
	cause := context.Cause(b.exchange.session.Context())
	if err == nil || errors.Is(err, io.EOF) && cause == nil || cause == nil {
		if n > 0 {
			b.exchange.session.Touch()
		}
		return n, err
	}
	if b.exchange.request.Verb != "watch" || !b.json {
		return n, err
	}
	raw, merr := json.Marshal(map[string]any{"type": "ERROR", "object": statusOf(http.StatusForbidden, fault.Of(cause))})
	if merr != nil {
		return n, err
	}
	b.last, b.over = append(raw, '\n'), true
	return n, nil
}

// liveBody is a stream's connection to the server, on which what passes says that its person is there.
type liveBody struct {
	io.ReadWriteCloser
	exchange *exchange
}

// Read is of io.Reader.
func (b *liveBody) Read(p []byte) (int, error) {
	n, err := b.ReadWriteCloser.Read(p)
	if n > 0 {
		b.exchange.session.Touch()
	}
	return n, err
}

// Write is of io.Writer.
func (b *liveBody) Write(p []byte) (int, error) {
	b.exchange.session.Touch()
	return b.ReadWriteCloser.Write(p)
}
