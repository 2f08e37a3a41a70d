package stream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"

	"github.com/sallyport/sallyport/internal/kube/frame"
)

// Bounds of an opening.
const (
	openTime  = 30 * time.Second // the API server reaches for a kubelet meanwhile
	headBytes = 64 << 10
	bodyBytes = 1 << 20 // of an answer that is no switch
	readAhead = 16 << 10
)

var writeBuffers sync.Pool

// Opened is an API server's word that it will.
type Opened struct {
	offer    Offer
	protocol string
	socket   *websocket.Conn
	conn     net.Conn
	in       *bufio.Reader
}

// Refused is the answer of an API server that did not switch.
type Refused struct {
	Code int
	Type string // the body's
	Body []byte
}

// Error is of error.
func (r *Refused) Error() string { return fmt.Sprintf("the API server answers %d", r.Code) }

// opening is a connection on which the head of an answer is still to come: it is bounded, and what was read is kept.
type opening struct {
	net.Conn
	over bool
	kept []byte
}

// Read is of net.Conn.
func (o *opening) Read(p []byte) (int, error) {
	if o.over {
		return o.Conn.Read(p)
	}
	left := headBytes - len(o.kept)
	if left <= 0 {
		return 0, frame.Malformed("an answer whose head has no end")
	}
	n, err := o.Conn.Read(p[:min(len(p), left)])
	o.kept = append(o.kept, p[:n]...)
	return n, err
}

// Close is of net.Conn; while the answer is to come Open closes.
func (o *opening) Close() error {
	if o.over {
		return o.Conn.Close()
	}
	return nil
}

// Open asks a server to switch, over a connection of its own, which it keeps or closes: req is the request, with all that is
// to be said but the offer. An answer that is no switch is a *Refused.
func (o Offer) Open(ctx context.Context, conn net.Conn, req *http.Request) (*Opened, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	at := &opening{Conn: conn}
	opened, err := o.ask(ctx, at, req)
	if err == nil && !stop() {
		err = context.Cause(ctx)
	}
	if err != nil {
		conn.Close()
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	at.over, at.kept = true, nil
	return opened, nil
}

func (o Offer) ask(ctx context.Context, at *opening, req *http.Request) (*Opened, error) {
	out := &Opened{offer: o, conn: at}
	name, _ := o.spoken()
	var res *http.Response
	var err error
	if o.WebSocket {
		req.Header.Set(name, strings.Join(o.Protocols, ", "))
		d := websocket.Dialer{NetDialContext: func(context.Context, string, string) (net.Conn, error) { return at, nil },
			ReadBufferSize: readAhead, WriteBufferSize: chunk + 1, WriteBufferPool: &writeBuffers}
		u := *req.URL
		u.Scheme = "ws" // the connection is made, its TLS with it
		out.socket, res, err = d.DialContext(ctx, u.String(), req.Header)
		if errors.Is(err, websocket.ErrBadHandshake) && len(at.kept) > 0 {
			res, err = http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(string(at.kept)), at.Conn)), req)
			if err == nil && res.StatusCode == http.StatusSwitchingProtocols {
				return nil, frame.Malformed("a switch to something else")
			}
		}
	} else {
		req.Header.Set("Upgrade", spdyUpgrade)
		req.Header.Set("Connection", "Upgrade")
		req.Header[name] = o.Protocols
		if err = req.Write(at); err == nil {
			out.in = bufio.NewReaderSize(at, readAhead)
			res, err = http.ReadResponse(out.in, req)
		}
	}
	if err != nil {
		return nil, err
	}
	if res.StatusCode < 200 && res.StatusCode != http.StatusSwitchingProtocols {
		return nil, frame.Malformed("an answer of status %d", res.StatusCode)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, err := io.ReadAll(io.LimitReader(res.Body, bodyBytes))
		if err != nil {
			return nil, err
		}
		return nil, &Refused{Code: res.StatusCode, Type: res.Header.Get("Content-Type"), Body: body}
	}
	if !o.WebSocket && !strings.EqualFold(res.Header.Get("Upgrade"), spdyUpgrade) {
		return nil, frame.Malformed("a switch to something else")
	}
	if out.protocol = res.Header.Get(name); !slices.Contains(o.Protocols, out.protocol) {
		return nil, frame.Malformed("a switch to a protocol that was not offered")
	}
	return out, nil
}

// Close ends what was opened and not carried.
func (o *Opened) Close() { o.conn.Close() }

// Accept lets the client switch too, to what the server chose. The session's tape, which may be nil, is closed by Carry.
func (o *Opened) Accept(w http.ResponseWriter, r *http.Request, witness Witness, tape Tape) (*Session, error) {
	t := &taps{witness: witness, tape: tape, exits: strings.HasPrefix(o.protocol, "v4.") || strings.HasPrefix(o.protocol, "v5.")}
	if o.offer.WebSocket {
		return o.acceptSocket(w, r, t)
	}
	client, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	_ = client.SetWriteDeadline(time.Now().Add(lastWords + parting))
	_, err = io.WriteString(client, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+spdyUpgrade+"\r\n"+protocolHeader+": "+o.protocol+"\r\n\r\n")
	_ = client.SetWriteDeadline(time.Time{})
	if err == nil {
		var s *Session
		// What is buffered is copied: reading on through rw would tell the request's context of the connection's end.
		ahead, _ := rw.Peek(rw.Reader.Buffered())
		in := bufio.NewReaderSize(io.MultiReader(strings.NewReader(string(ahead)), client), readAhead)
		if s, err = o.carries(client, in, t); err == nil {
			return s, nil
		}
	}
	client.Close()
	return nil, err
}

func (o *Opened) acceptSocket(w http.ResponseWriter, r *http.Request, t *taps) (*Session, error) {
	u := websocket.Upgrader{HandshakeTimeout: lastWords + parting, ReadBufferSize: readAhead, WriteBufferSize: chunk + 1, WriteBufferPool: &writeBuffers}
	client, err := u.Upgrade(w, r, http.Header{socketHeader: {o.protocol}})
	if err != nil {
		return nil, err
	}
	client.SetReadLimit(maxMessage)
	o.socket.SetReadLimit(maxMessage)
	if !o.offer.Forward {
		return &Session{&sockets{client: client, server: o.socket, taps: t, v5: strings.HasPrefix(o.protocol, "v5.")}, t}, nil
	}
	o.conn = &frame.Tunnel{Conn: o.socket}
	o.in = bufio.NewReaderSize(o.conn, readAhead)
	to := &frame.Tunnel{Conn: client}
	s, err := o.carries(to, bufio.NewReaderSize(to, readAhead), t)
	if err != nil {
		client.Close()
	}
	return s, err
}

// carries is a session of SPDY.
func (o *Opened) carries(client net.Conn, in *bufio.Reader, t *taps) (*Session, error) {
	a, err := frame.NewWire(client, in)
	if err != nil {
		return nil, err
	}
	b, err := frame.NewWire(o.conn, o.in)
	if err != nil {
		return nil, err
	}
	return &Session{&frames{client: a, server: b, taps: t, forward: o.offer.Forward, lanes: map[spdy.StreamId]*lane{}}, t}, nil
}
