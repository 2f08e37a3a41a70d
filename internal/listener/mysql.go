package listener

import (
	"bytes"
	"crypto/tls"
	"errors"
	"net"

	"github.com/sallyport/sallyport/internal/dbwire/mysql"
)

// maxLogin bounds a packet of MySQL's handshake, in bytes.
const maxLogin = 64 << 10

// mysqlTLS puts TLS between a local client and a MySQL door, which speaks first: the door's greeting, offering TLS, is all
// that somebody without this user's local certificate gets. Inside TLS the client's packets count one more than the
// door's, until the login is over.
func mysqlTLS(c, up net.Conn, config *tls.Config) (net.Conn, error) {
	raw, _, err := mysql.Read(up, maxLogin)
	if err != nil {
		return nil, err
	}
	g, err := mysql.ParseGreeting(raw)
	if err != nil { // an error in its place goes on as it is
		_, _ = c.Write(mysql.Append(nil, raw, 0))
		drain(c)
		return nil, err
	}
	g.Capabilities |= mysql.TLS
	if _, err := c.Write(mysql.Append(nil, g.Append(nil), 0)); err != nil {
		return nil, err
	}
	asked, _, err := mysql.Read(c, maxLogin)
	if err != nil {
		return nil, err
	}
	if len(asked) != 32 || asked[1]&byte(mysql.TLS>>8) == 0 {
		refusal := append([]byte{mysql.HeadErr, 0x15, 0x04}, "#28000this port wants TLS with the certificate that tsh made for it (to fix: tsh db config NAME)"...)
		_, _ = c.Write(mysql.Append(nil, refusal, 2))
		drain(c)
		return nil, errors.New("login in clear")
	}
	conn := tls.Server(c, config)
	if err := conn.Handshake(); err != nil {
		return nil, err
	}
	return conn, mysqlLogin(conn, up)
}

// mysqlLogin carries a login inside TLS to a door that knows of no TLS.
func mysqlLogin(c, up net.Conn) error {
	login, seq, err := mysql.Read(c, maxLogin)
	if err != nil {
		return err
	}
	if len(login) < 32 {
		return errors.New("short login")
	}
	login[1] &^= byte(mysql.TLS >> 8)
	if _, err := up.Write(mysql.Append(nil, login, seq-1)); err != nil {
		return err
	}
	for range 16 {
		b, seq, err := mysql.Read(up, maxLogin)
		if err != nil {
			return err
		}
		if _, err := c.Write(mysql.Append(nil, b, seq+1)); err != nil {
			return err
		}
		switch {
		case len(b) == 0 || b[0] == 0 || b[0] == mysql.HeadErr:
			return nil
		case bytes.Equal(b, []byte{mysql.HeadMore, 3}): // the password was found: OK follows
			continue
		}
		answer, seq, err := mysql.Read(c, maxLogin)
		if err != nil {
			return err
		}
		if _, err := up.Write(mysql.Append(nil, answer, seq-1)); err != nil {
			return err
		}
	}
	return errors.New("a login without end")
}
