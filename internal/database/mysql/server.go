package mysql

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// server is the connection to the database server.
type server struct {
	*side
	raw      net.Conn // below TLS
	greeting mysql.Greeting
	tracked  bool // it tells of changes of the default database

	busy    atomic.Bool // somebody waits for a reply
	wakes   chan error  // something came, or the connection ended
	again   chan struct{}
	stopped chan struct{}
	done    chan struct{} // the watcher is over; nil where there is none
}

// greeted connects and reads the greeting.
func greeted(ctx context.Context, v *database.Visit) (*server, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	raw, err := v.Dial(ctx)
	if err != nil {
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Now().Add(handshakeTime))
	s := &server{side: newSide(raw, 16<<10, 4<<10), raw: raw}
	b, err := s.receive()
	if err == nil {
		s.greeting, err = mysql.ParseGreeting(b)
	}
	if err == nil && s.greeting.Capabilities&mysql.TLS == 0 {
		err = fault.New(fault.Unavailable, "the database server of %s does not offer TLS", v.Database.Name).
			WithFix("give it a certificate: tctl auth sign --db=%s prints what its configuration needs", v.Database.Name)
	}
	if err != nil {
		raw.Close()
		return nil, unreachable(v, err)
	}
	return s, nil
}

func unreachable(v *database.Visit, err error) error {
	var own *mysql.Error
	var f *fault.Error
	if errors.As(err, &own) || errors.As(err, &f) {
		return err
	}
	return fault.New(fault.Unavailable, "the database server of %s cannot be reached", v.Database.Name).Wrapping(err)
}

// decline ends a handshake that nobody is let in by, as a login that fails: a handshake that just breaks off counts
// towards the server's max_connect_errors, by which it shuts out the agent.
func (s *server) decline() {
	defer s.raw.Close()
	s.raw.SetDeadline(time.Now().Add(partingTime))
	l := login{Capabilities: mysql.Protocol41 | mysql.SecureConnection | mysql.PluginAuth | s.greeting.Capabilities&mysql.LongPassword,
		MaxPacket: 1 << 24, Charset: s.greeting.Charset, User: "sallyport-refused", Plugin: nativePassword}
	if s.sendNow(l.Append(nil)) != nil {
		return
	}
	for range 3 {
		b, err := s.receive()
		if err != nil || len(b) == 0 || b[0] == mysql.HeadErr || b[0] == mysql.HeadOK || s.sendNow(nil) != nil {
			return
		}
	}
}

// login begins TLS and logs in as l's user; it gives the server's OK packet. A refusal of the server's own is a
// *mysql.Error.
func (s *server) login(ctx context.Context, v *database.Visit, l login) ([]byte, error) {
	stop := context.AfterFunc(ctx, s.cut)
	defer stop()
	s.raw.SetDeadline(time.Now().Add(handshakeTime))
	ok, err := s.authenticate(ctx, v, l)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, unreachable(v, err)
	}
	s.raw.SetDeadline(time.Time{})
	return ok, nil
}

func (s *server) authenticate(ctx context.Context, v *database.Visit, l login) ([]byte, error) {
	conf, err := v.TLS(ctx, l.User)
	if err != nil {
		return nil, err
	}
	password, has, err := v.Password(l.User)
	if err != nil {
		return nil, err
	}
	extra := s.greeting.Capabilities & (mysql.SessionTrack | mysql.PluginAuth | mysql.AuthLenenc)
	s.tracked = extra&mysql.SessionTrack != 0
	l.Capabilities |= extra | mysql.TLS | mysql.SecureConnection
	l.Auth, l.Plugin = nil, s.greeting.Plugin
	if err := s.sendNow(l.AppendTLSRequest(nil)); err != nil {
		return nil, err
	}
	if s.r.Buffered() > 0 {
		return nil, fmt.Errorf("%w: the server sent something ahead of TLS", mysql.ErrMalformed)
	}
	t := tls.Client(s.raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "TLS with the database server of %s failed", v.Database.Name).
			WithCause("%s", fault.Plain(err.Error())).Wrapping(err)
	}
	seq := s.seq
	s.side = newSide(t, 16<<10, 4<<10)
	s.seq = seq
	a := authenticator{password: password, has: has, nonce: s.greeting.Nonce, plugin: l.Plugin}
	if l.Auth, err = a.answer(); err != nil { // a plugin of its own kind: the server will ask for the user's
		a.plugin, l.Plugin = nativePassword, nativePassword
		l.Auth, _ = a.answer()
	}
	if err := s.sendNow(l.Append(nil)); err != nil {
		return nil, err
	}
	return a.converse(s.side)
}

// watch looks for what the server says; say is called when it says something, or goes, and nobody waits for a reply.
func (s *server) watch(unasked func()) {
	s.wakes, s.again = make(chan error), make(chan struct{})
	s.stopped, s.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.done)
		for {
			_, err := s.r.Peek(1)
			if !s.busy.Load() {
				unasked()
			}
			select {
			case s.wakes <- err:
			case <-s.stopped:
				return
			}
			select {
			case <-s.again:
			case <-s.stopped:
				return
			}
		}
	}()
}

// await waits until something has come; the reader is the caller's until resume.
func (s *server) await() error {
	if err := <-s.wakes; err != nil {
		return &lostError{err}
	}
	return nil
}

// resume gives the reader back to the watcher.
func (s *server) resume() {
	s.busy.Store(false)
	s.again <- struct{}{}
}

// cut makes everything that waits for the server stop waiting.
func (s *server) cut() { s.raw.SetDeadline(time.Now()) }

func (s *server) close() {
	s.raw.Close()
	if s.done != nil {
		close(s.stopped)
		<-s.done
	}
}
