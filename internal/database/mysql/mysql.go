// Package mysql carries clients of MySQL and MariaDB: it greets them as the server would, lets them in as the database
// user that they name, logs in to the server in their place, and passes on their commands, each statement on record before
// anything of its result goes back.
package mysql

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of what is waited for and kept.
const (
	handshakeTime = 10 * time.Second // for each side to finish its handshake
	partingTime   = 2 * time.Second  // for a client to take the error that ends its connection
	maxHandshake  = 64 << 10         // bytes of a packet of a handshake
)

// Engine speaks MySQL's protocol; it holds nothing.
type Engine struct{}

// side is one of a connection's two ends.
type side struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	seq  byte // of the next packet to or from it, while it shakes hands
}

func newSide(c net.Conn, in, out int) *side {
	return &side{conn: c, r: bufio.NewReaderSize(c, in), w: bufio.NewWriterSize(c, out)}
}

// send writes one short payload; flush is the caller's.
func (s *side) send(payload []byte) error {
	_, err := s.w.Write(wire.Append(nil, payload, s.seq))
	s.seq++
	return err
}

func (s *side) sendNow(payload []byte) error {
	if err := s.send(payload); err != nil {
		return err
	}
	return s.w.Flush()
}

// receive reads one payload of a handshake.
func (s *side) receive() ([]byte, error) {
	b, seq, err := wire.Read(s.r, maxHandshake)
	s.seq = seq + 1
	return b, err
}

// conn is one client's connection through the door.
type conn struct {
	visit    *database.Visit
	session  *database.Session
	client   *side
	server   *server
	caps     wire.Capability // what the client agreed to
	charset  byte
	user, db string
	prepared statements
	open     *statement // sent to the server and not on record yet
	torn     bool       // part of a packet has gone to the client
	skew     byte       // how many packets of this reply the client has not seen
}

// Serve implements database.Engine.
func (Engine) Serve(ctx context.Context, client net.Conn, v *database.Visit) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{visit: v, client: newSide(client, 4<<10, 16<<10), prepared: statements{}}
	defer client.Close()
	// Whatever ends ctx before there is a session ends the handshake.
	stop := context.AfterFunc(ctx, func() { client.SetDeadline(time.Now()) })
	client.SetDeadline(time.Now().Add(handshakeTime))
	err := c.enter(ctx)
	stop()
	if err == nil {
		client.SetDeadline(time.Time{})
		err = c.run()
	}
	c.part(err)
}

// run carries commands until the connection is over; ending the session wakes whatever waits.
func (c *conn) run() error {
	ended := c.session.Context()
	stop := context.AfterFunc(ended, func() {
		c.client.conn.SetReadDeadline(time.Now())
		c.client.conn.SetWriteDeadline(time.Now().Add(partingTime))
		c.server.cut()
	})
	defer stop()
	err := c.commands()
	if cause := context.Cause(ended); cause != nil {
		return cause
	}
	return err
}

// part tells the client why it ends, where it does not know, and puts down what is open.
func (c *conn) part(err error) {
	if c.open != nil {
		_ = c.record(c.open, "the connection ended before the server answered: "+reason(err))
	}
	if e := farewell(err); e != nil && !c.torn {
		c.client.conn.SetWriteDeadline(time.Now().Add(partingTime))
		if c.client.sendNow(e.Append(nil)) == nil {
			linger(c.client.conn)
		}
	}
	c.client.conn.Close()
	if c.server != nil {
		c.server.close()
	}
	if c.session != nil {
		c.session.End(nil)
	}
}

// linger lets a client read its error: what it sent meanwhile, left unread, would reset the connection.
func linger(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	c.SetReadDeadline(time.Now().Add(partingTime))
	io.CopyN(io.Discard, c, 1<<20)
}

// errGone is that the client went; nobody is told.
var errGone = errors.New("the client went")

// errSaid is that the client has been told already.
var errSaid = errors.New("the client was told")

// farewell words what ends a connection as the protocol's error.
func farewell(err error) *wire.Error {
	var own *wire.Error
	var lost *lostError
	switch {
	case err == nil, errors.Is(err, errGone), errors.Is(err, errSaid):
		return nil
	case errors.As(err, &own):
		return own
	case errors.As(err, &lost):
		return &wire.Error{Code: 1927, State: "70100", Text: "the connection to the database server is lost"}
	}
	f := fault.Of(err)
	code, state := uint16(1927), "70100" // ER_CONNECTION_KILLED
	switch f.Reason {
	case reasonLogin:
		code, state = 1045, "28000"
	case reasonDB:
		code, state = 1044, "42000"
	case reasonRefused:
		code, state = 1227, "42000"
	}
	return &wire.Error{Code: code, State: state, Text: line(f)}
}

// Reasons of our own.
const (
	reasonLogin   = "not_let_in"
	reasonRefused = "not_carried"
	reasonDB      = "database_refused"
)

// line is a fault as one line, for clients that show an error as one.
func line(f *fault.Error) string { return strings.ReplaceAll(f.Lines(), "\n  ", "; ") }

func reason(err error) string {
	if err == nil || errors.Is(err, errGone) {
		return "the client went"
	}
	if own := (*wire.Error)(nil); errors.As(err, &own) {
		return own.Error()
	}
	return fault.Of(err).Text
}

// lostError is that the server went.
type lostError struct{ err error }

func (e *lostError) Error() string { return fmt.Sprintf("the database server's connection: %v", e.err) }
func (e *lostError) Unwrap() error { return e.err }

// newNonce is fresh and, as the protocol has it, without NUL.
func newNonce() []byte {
	n := make([]byte, wire.NonceLen)
	rand.Read(n)
	for i := range n {
		n[i] = n[i]%94 + 33
	}
	return n
}
