// Package stream carries exec, attach and port-forward sessions between a client and an API server: each side's protocol ends
// here, and what passes is shown.
//
//	exec, attach   WebSocket (RFC 6455), subprotocol v5.channel.k8s.io, v4.channel.k8s.io or channel.k8s.io: a message is
//	               one byte that says the channel, then its data: 0 stdin, 1 stdout, 2 stderr, 3 error, 4 resize;
//	               in v5, 255 and a channel's number say that the client sends no more on it
//	               SPDY/3.1, X-Stream-Protocol-Version v5 to v1: a stream each, whose header streamType says which
//	portforward    SPDY/3.1, portforward.k8s.io: for each connection a stream of streamType data and one of error, with
//	               the headers port and requestID
//	               the same in the binary messages of a WebSocket of subprotocol SPDY/3.1+portforward.k8s.io
//
// (k8s.io/kubernetes: staging/src/k8s.io/streaming, client-go/tools/remotecommand, kubelet's remotecommand and portforward.)
// Nothing is held but what a buffer takes: who reads slowly slows who sends.
package stream

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kube/frame"
)

// Stream is one direction of what a session carries.
type Stream uint8

// The streams; Error is where the server says how it ended.
const (
	Stdin Stream = iota
	Stdout
	Stderr
	Error
	resize
)

// Tape is shown what passes, each piece before it goes on and in order, by one caller at a time. It must not block, nor keep p.
// An error of Shown ends the session, ahead of that piece. Unheard says that the client no more takes what the server shows.
// Exited is called at most once, with the status that the command ended with, where the server told it; Close is called once,
// last, whatever happened.
type Tape interface {
	Shown(s Stream, p []byte) error
	Unheard()
	Resized(columns, rows uint16)
	Exited(code int)
	io.Closer
}

// Witness is told what a session does. Touch says that something passed. Forwarding is asked before a connection to a port of
// the pod begins, whose refusal ends the session; Forwarded is told when it is over.
type Witness interface {
	Touch()
	Forwarding(port uint16) error
	Forwarded(f Forward)
}

// Forward is a forwarded connection that is over.
type Forward struct {
	Port           uint16
	Sent, Received int64 // by the client
	Took           time.Duration
}

// Bounds.
const (
	chunk      = 32 << 10               // of data that is held at once in a direction
	maxMessage = 32 << 20               // of a WebSocket message, which is passed on in chunks
	maxStatus  = 64 << 10               // of the error stream, as far as it is read here
	lastWords  = 500 * time.Millisecond // for saying why a session ends
	parting    = 800 * time.Millisecond // for the other side to end a session in its own time
)

var buffers = sync.Pool{New: func() any { b := make([]byte, frame.Headroom+chunk); return &b }}

// relay is a session in one of the protocols. up carries from the client to the server until the client is done, down the
// other way; neither returns nil. When the server is over with, up goes on reading what it throws away: a connection that is
// closed with something unread may lose what the client has not read yet. farewell tells the client why it ends.
type relay interface {
	up() error
	down() error
	farewell(text string)
	partClient(wait time.Duration) // in order: the client has that long to be done
	partServer(err error)          // in order, where that is how the client ended
	close(client bool)             // the server's connection, or both
}

// Session is one that both sides agreed on.
type Session struct {
	relay relay
	taps  *taps
}

// Carry carries the session until it is over, and closes both connections. When ctx ends, so does the session, and the client
// is told the cause. It gives the status that the command ended with, where that is known, and why the session ended where
// neither side ended it in order.
func (s *Session) Carry(ctx context.Context) (exit *int, why error) {
	over, rose := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	var rising error
	all.Go(func() { s.keep(ctx, rose, over) })
	all.Go(func() {
		rising = s.relay.up()
		close(rose)
		s.relay.partServer(rising)
	})
	falling := s.relay.down()
	s.relay.close(false)
	select {
	case <-rose:
		why = verdict(ctx, rising, falling)
	default:
		why = verdict(ctx, nil, falling)
	}
	if why != nil {
		s.relay.farewell(fault.Of(why).Lines())
	}
	s.relay.partClient(parting)
	<-rose
	s.relay.close(true)
	close(over)
	all.Wait()
	return s.taps.close(), why
}

// keep closes the connections where nobody comes to it: soon after ctx ended, or after the client did.
func (s *Session) keep(ctx context.Context, rose, over <-chan struct{}) {
	wait := parting
	select {
	case <-over:
		return
	case <-rose:
	case <-ctx.Done():
		wait = lastWords
		s.relay.close(false)
	}
	select {
	case <-over:
	case <-time.After(wait):
		s.relay.close(true)
	}
}

// verdict is why a session ended out of order, fit to print; nil where a side ended it. rising is nil while the client is there.
func verdict(ctx context.Context, rising, falling error) error {
	var f *fault.Error
	switch cause := context.Cause(ctx); {
	case cause != nil:
		return cause
	case errors.As(rising, &f), errors.As(falling, &f): // what was not to happen
		return f
	case errors.Is(rising, frame.ErrMalformed):
		return fault.New(fault.Invalid, "the client's stream could not be read").WithReason("malformed").WithCause("%v", rising)
	case rising != nil, errors.Is(falling, frame.ErrParted):
		return nil
	case errors.Is(falling, frame.ErrMalformed):
		return fault.New(fault.Unavailable, "the API server's stream could not be read").WithReason("malformed").WithCause("%v", falling)
	}
	return fault.New(fault.Unavailable, "the connection to the API server was lost").WithReason("cluster_unreachable").WithFix("try again")
}
