package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/fault"
)

// upstream is a connection to the server as one user.
type upstream struct {
	net.Conn
	user     string
	raw      net.Conn      // below TLS
	done     chan struct{} // closed when its replies are over; nil before they are relayed
	replaced chan struct{} // closed by who puts another in its place
}

// connect logs in to the server. Where the agent has no password of the user the certificate must do: the server knows the
// user by it, or has the user without a password, good for who shows a certificate.
func connect(ctx context.Context, v *database.Visit, s state) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	raw, err := v.Dial(ctx)
	if err != nil {
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Now().Add(loginTime))
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Now()) })
	defer stop()
	u, err := login(ctx, v, raw, s)
	if err != nil {
		raw.Close()
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Time{})
	return u, nil
}

func unreachable(v *database.Visit, err error) error {
	var own wire.ServerError
	if errors.As(err, &own) { // the server's own words
		return err
	}
	return v.Unreachable(err)
}

func login(ctx context.Context, v *database.Visit, raw net.Conn, s state) (*upstream, error) {
	conf, err := v.TLS(ctx, s.user)
	if err != nil {
		return nil, err
	}
	password, has, err := v.Password(s.user)
	if err != nil {
		return nil, err
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "TLS with the database server of %s failed", v.Database.Name).WithReason("database_tls").
			WithCause("%s", fault.Plain(err.Error())).Wrapping(err)
	}
	u := &upstream{Conn: t, user: s.user, raw: raw, replaced: make(chan struct{})}
	known := false
	if !has {
		who, err := u.ask("ACL", "WHOAMI")
		known = err == nil && who == s.user
	}
	if !known {
		if _, err := u.ask("AUTH", s.user, password); err != nil {
			return nil, err
		}
	}
	if s.resp3 {
		if _, err := u.ask("HELLO", "3"); err != nil {
			return nil, err
		}
	}
	if s.db != 0 {
		if _, err := u.ask("SELECT", strconv.Itoa(s.db)); err != nil {
			return nil, err
		}
	}
	return u, nil
}

// ask sends a command of the door's own and gives the text of its reply.
func (u *upstream) ask(args ...string) (string, error) {
	if _, err := u.Write(wire.Append(nil, args...)); err != nil {
		return "", err
	}
	var r wire.Reply
	buf, have := make([]byte, 4096), 0
	for {
		n, err := u.Read(buf[have:])
		if err != nil {
			return "", err
		}
		have += n
		taken, done, err := r.Next(buf[:have])
		have = copy(buf, buf[taken:have])
		switch {
		case err != nil:
			return "", err
		case done && have > 0, have == len(buf):
			return "", fmt.Errorf("%w: more than one reply", wire.ErrMalformed)
		case done && r.Kind == '-':
			return "", wire.ServerError(r.Text)
		case done:
			return string(r.Text), nil
		}
	}
}

// send passes commands on.
func (u *upstream) send(b []byte) error {
	if _, err := u.Write(b); err != nil {
		return errLost.Wrapping(err)
	}
	return nil
}

// serve relays its replies in a goroutine, until close.
func (u *upstream) serve(r *replies, failed func(wire.Failure) error) {
	u.done = make(chan struct{})
	r.mu.Lock()
	r.up = u
	r.mu.Unlock()
	go func() {
		defer close(u.done)
		err := r.relay(u, failed)
		select {
		case <-u.replaced:
		default:
			r.breakOff(err)
		}
	}()
}

// close ends the connection, and waits for its replies to be over.
func (u *upstream) close() {
	u.raw.Close()
	if u.done != nil {
		<-u.done
	}
}
