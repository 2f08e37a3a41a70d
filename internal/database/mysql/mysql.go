// Package mysql carries clients of MySQL and MariaDB: it greets them as the server would, lets them in as the database
// user that they name, logs in to the server in their place, and passes on their commands, each statement on record before
// anything of its result goes back.
package mysql

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/mysql/server"
	wire "github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// Engine speaks MySQL's protocol; it holds nothing.
type Engine struct{}

// conn is one client's connection through the door.
type conn struct {
	visit    *database.Visit
	session  *database.Session
	client   *server.Side
	server   *server.Server
	caps     wire.Capability // what the client agreed to
	user, db string
	prepared statements
	open     *statement // sent to the server and not on record yet
	torn     bool       // part of a packet has gone to the client
	made     *database.Made
	skew     byte // how many packets of this reply the client has not seen
}

// Serve implements database.Engine.
func (Engine) Serve(ctx context.Context, client net.Conn, v *database.Visit) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{visit: v, client: server.NewSide(client, 4<<10, 16<<10), prepared: statements{}}
	defer client.Close()
	// Whatever ends ctx before there is a session ends the handshake.
	stop := context.AfterFunc(ctx, func() { client.SetDeadline(time.Now()) })
	client.SetDeadline(time.Now().Add(server.HandshakeTime))
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
		c.client.Conn.SetReadDeadline(time.Now())
		c.client.Conn.SetWriteDeadline(time.Now().Add(server.PartingTime))
	})
	defer stop()
	c.server.CutBy(ended)
	err := c.commands()
	if why := c.session.Ended(); why != nil {
		return why
	}
	return err
}

// part tells the client why it ends, where it does not know, and puts down what is open.
func (c *conn) part(err error) {
	if c.server != nil {
		c.server.Close()
	}
	if c.open != nil {
		_ = c.record(c.open, "the connection ended before the server answered: "+reason(err))
	}
	if e := farewell(err); e != nil && !c.torn {
		c.client.Conn.SetWriteDeadline(time.Now().Add(server.PartingTime))
		if c.client.SendNow(e.Append(nil)) == nil {
			linger(c.client.Conn)
		}
	}
	c.client.Conn.Close()
	if c.made != nil {
		_ = c.made.Over() // what cannot be disabled now is by the next session's end
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
	c.SetReadDeadline(time.Now().Add(server.PartingTime))
	io.CopyN(io.Discard, c, 1<<20)
}

// errGone is that the client went; nobody is told.
var errGone = errors.New("the client went")

// errSaid is that the client has been told already.
var errSaid = errors.New("the client was told")

// farewell words what ends a connection as the protocol's error.
func farewell(err error) *wire.Error {
	var own *wire.Error
	var lost *server.LostError
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
	case server.ReasonLogin:
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

// newNonce is fresh and, as the protocol has it, without NUL.
func newNonce() []byte {
	n := make([]byte, wire.NonceLen)
	rand.Read(n)
	for i := range n {
		n[i] = n[i]%94 + 33
	}
	return n
}
