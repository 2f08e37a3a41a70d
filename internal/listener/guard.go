package listener

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/listener/refusal"
	"github.com/sallyport/sallyport/internal/target"
)

// guardFor lets in over TLS who has this user's local certificate, in the way of a protocol.
func guardFor(p target.Protocol, config *tls.Config) guard {
	shake := func(c net.Conn) (net.Conn, error) {
		conn := tls.Server(c, config)
		return conn, conn.Handshake()
	}
	if p == target.MySQL {
		return open
	}
	if p == target.PostgreSQL {
		return func(c net.Conn) (net.Conn, error) { return postgresGuard(c, shake) }
	}
	return shake
}

// The first messages of PostgreSQL's protocol, length and code.
var (
	sslRequest    = []byte{0, 0, 0, 8, 4, 210, 22, 47}
	gssEncRequest = []byte{0, 0, 0, 8, 4, 210, 22, 48}
)

// cancelRequest is the code of a CancelRequest, which clients send in clear; it says nothing that another could use.
const cancelRequest = 80877102

// postgresGuard takes direct TLS, SSLRequest and then TLS, and a CancelRequest; a startup in clear is refused, for it says
// nothing of who sends it.
func postgresGuard(c net.Conn, shake guard) (net.Conn, error) {
	for range 3 {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return nil, err
		}
		if head[0] == 22 {
			return shake(&unread{c, bytes.NewReader(head[:1])})
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(head[:], sslRequest):
			if _, err := c.Write([]byte{'S'}); err != nil {
				return nil, err
			}
			return shake(c)
		case bytes.Equal(head[:], gssEncRequest):
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case binary.BigEndian.Uint32(head[4:]) == cancelRequest && binary.BigEndian.Uint32(head[:4]) <= 64:
			return &unread{c, bytes.NewReader(head[:])}, nil
		default:
			_, _ = c.Write(refusal.Postgres(fault.New(fault.Unauthenticated, "this port wants TLS with the certificate that tsh made for it").
				WithFix("tsh db config NAME")))
			drain(c)
			return nil, errors.New("startup in clear")
		}
	}
	return nil, errors.New("no startup")
}

// unread is a connection of which some was read ahead.
type unread struct {
	net.Conn
	ahead *bytes.Reader
}

// Read reads what was read ahead first.
func (u *unread) Read(p []byte) (int, error) {
	if u.ahead.Len() > 0 {
		return u.ahead.Read(p)
	}
	return u.Conn.Read(p)
}
