package mysql

import (
	"context"
	"errors"
	"time"

	"github.com/sallyport/sallyport/internal/database/mysql/server"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

type login = mysql.Login

// enter shakes hands with both sides: the server's greeting, so that the client sees its version and thread, the client's
// login, the gate, the login to the server.
func (c *conn) enter(ctx context.Context) error {
	s, err := server.Greeted(ctx, c.visit)
	if err != nil {
		c.client.Seq = 0
		return early(err)
	}
	l, fast, err := c.greet(s.Greeting)
	if err == nil {
		c.session, err = c.visit.Admit(ctx, l.User, l.Database)
		err = refusedLogin(err)
	}
	if err == nil {
		c.made, err = c.session.Enable(c.session.Context(), server.Maker{})
		err = refusedLogin(err)
	}
	if err != nil {
		s.Decline()
		return err
	}
	ok, err := s.Login(c.session.Context(), c.visit, l)
	c.made.Settled()
	if err != nil {
		s.Close()
		return err
	}
	c.server, c.caps, c.user, c.db = s, l.Capabilities, l.User, l.Database
	s.Watch(func() { c.client.Conn.SetReadDeadline(time.Now()) })
	return c.welcome(ok, fast)
}

// refusedLogin marks a refusal, so that clients get it as one of a login.
func refusedLogin(err error) error {
	if err == nil {
		return nil
	}
	return marked(err, server.ReasonLogin)
}

// early is an error in place of a greeting, where the protocol has no room for a state.
func early(err error) error {
	e := farewell(err)
	if e == nil {
		return err
	}
	var own *mysql.Error
	if !errors.As(err, &own) {
		e = &mysql.Error{Code: 1105, Text: line(fault.Of(err))} // ER_UNKNOWN_ERROR
	}
	e.State = ""
	return e
}

// greet gives the client the server's greeting, with a nonce of our own, and reads its login. Its certificate was
// verified before; whatever password it sends is passed over, so any plugin will do that both sides end well: fast says
// that the client, having sent a password for caching_sha2_password, waits to hear that it was found.
func (c *conn) greet(g mysql.Greeting) (l login, fast bool, err error) {
	offered := g.Capabilities&mysql.Known | mysql.PluginAuth
	g.Capabilities, g.Nonce, g.Plugin = offered, newNonce(), server.NativePassword
	if err := c.client.SendNow(g.Append(nil)); err != nil {
		return l, false, errGone
	}
	b, err := c.client.Receive()
	if err != nil {
		return l, false, errGone
	}
	if len(b) == 32 {
		return l, false, fault.New(fault.Unsupported, "TLS has ended already where this client asks for it").WithReason(server.ReasonLogin).
			WithFix("tell the client to use no TLS of its own: --skip-ssl, sslmode=disable, tls=false")
	}
	if l, err = mysql.ParseLogin(b); err != nil {
		return l, false, fault.New(fault.Invalid, "the client's login cannot be read").Wrapping(err).WithReason(server.ReasonLogin)
	}
	l.Capabilities &= offered
	if l.Database == "" {
		l.Capabilities &^= mysql.ConnectWithDB
	}
	if err := plainNames(l.Charset, l.User, l.Database); err != nil {
		return l, false, err
	}
	fast, err = c.settle(l)
	return l, fast, err
}

// settle makes an end of the client's authentication plugin. A client that has none but caching_sha2_password stays
// with it, any other is switched to mysql_native_password, which says nothing after its answer.
func (c *conn) settle(l login) (fast bool, err error) {
	if l.Capabilities&mysql.PluginAuth == 0 || l.Plugin == server.NativePassword {
		return false, nil
	}
	plugin := server.NativePassword
	if l.Plugin == server.CachingSHA2 {
		plugin = server.CachingSHA2
	}
	if err := c.client.SendNow(mysql.AppendAuthSwitch(nil, plugin, newNonce())); err != nil {
		return false, errGone
	}
	answer, err := c.client.Receive()
	if err != nil {
		return false, errGone
	}
	return plugin == server.CachingSHA2 && len(answer) > 1, nil
}

// welcome ends a login, or a change of user, well.
func (c *conn) welcome(ok []byte, fast bool) error {
	if fast {
		if err := c.client.Send([]byte{mysql.HeadMore, 3}); err != nil {
			return errGone
		}
	}
	end, err := mysql.ParseOK(ok, c.server.Tracked)
	if err != nil {
		return &server.LostError{Err: err}
	}
	if err := c.moved(end); err != nil {
		return err
	}
	if err := c.client.SendNow(c.plain(ok, end)); err != nil {
		return errGone
	}
	return nil
}

// plain is an OK packet as the client agreed to have it.
func (c *conn) plain(ok []byte, end mysql.End) []byte {
	if c.server.Tracked && c.caps&mysql.SessionTrack == 0 {
		return end.AppendPlain(nil)
	}
	return ok
}

// plainNames refuses names that the server would read as others than the gate does, because of the character set that
// the client speaks in.
func plainNames(charset byte, names ...string) error {
	for _, n := range names {
		if !mysql.PlainName(charset, n) {
			return fault.New(fault.Invalid, "the name %q is not plain in the client's character set", fault.Plain(n)).
				WithReason(server.ReasonLogin).WithFix("let the client use utf8mb4")
		}
	}
	return nil
}
