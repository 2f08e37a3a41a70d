// Package server is the door's side towards MySQL and MariaDB servers: it logs in as a database user, over TLS, and watches
// for what a server says unasked.
package server

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

// Bounds of what is waited for and kept.
const (
	HandshakeTime = 10 * time.Second // for each side to finish its handshake
	PartingTime   = 2 * time.Second  // for a side to take what ends its connection
	MaxHandshake  = 64 << 10         // bytes of a packet of a handshake
)

// ReasonLogin is the reason of faults that a client gets as a login's that failed.
const ReasonLogin = "not_let_in"

// LostError is that the server went.
type LostError struct{ Err error }

func (e *LostError) Error() string { return fmt.Sprintf("the database server's connection: %v", e.Err) }
func (e *LostError) Unwrap() error { return e.Err }

// Server is the connection to the database server.
type Server struct {
	*Side
	Raw      net.Conn // below TLS
	Greeting mysql.Greeting
	Tracked  bool // it tells of changes of the default database

	Busy    atomic.Bool // somebody waits for a reply
	wakes   chan error  // something came, or the connection ended
	again   chan struct{}
	stopped chan struct{}
	done    chan struct{} // the watcher is over; nil where there is none
	release func() bool   // lets go of what CutBy was given
}

// Greeted connects and reads the greeting.
func Greeted(ctx context.Context, v *database.Visit) (*Server, error) {
	ctx, cancel := context.WithTimeout(ctx, HandshakeTime)
	defer cancel()
	raw, err := v.Dial(ctx)
	if err != nil {
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Now().Add(HandshakeTime))
	s := &Server{Side: NewSide(raw, 16<<10, 4<<10), Raw: raw}
	b, err := s.Receive()
	if err == nil {
		s.Greeting, err = mysql.ParseGreeting(b)
	}
	if err == nil && s.Greeting.Capabilities&mysql.TLS == 0 {
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

// Decline ends a handshake that nobody is let in by, as a login that fails: a handshake that just breaks off counts
// towards the server's max_connect_errors, by which it shuts out the agent.
func (s *Server) Decline() {
	defer s.Raw.Close()
	s.Raw.SetDeadline(time.Now().Add(PartingTime))
	l := mysql.Login{Capabilities: mysql.Protocol41 | mysql.SecureConnection | mysql.PluginAuth | s.Greeting.Capabilities&mysql.LongPassword,
		MaxPacket: 1 << 24, Charset: s.Greeting.Charset, User: "sallyport-refused", Plugin: NativePassword}
	if s.SendNow(l.Append(nil)) != nil {
		return
	}
	for range 3 {
		b, err := s.Receive()
		if err != nil || len(b) == 0 || b[0] == mysql.HeadErr || b[0] == mysql.HeadOK || s.SendNow(nil) != nil {
			return
		}
	}
}

// Login begins TLS and logs in as l's user; it gives the server's OK packet. A refusal of the server's own is a
// *mysql.Error.
func (s *Server) Login(ctx context.Context, v *database.Visit, l mysql.Login) ([]byte, error) {
	stop := context.AfterFunc(ctx, s.Cut)
	defer stop()
	s.Raw.SetDeadline(time.Now().Add(HandshakeTime))
	ok, err := s.authenticate(ctx, v, l)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause
	}
	if err != nil {
		return nil, unreachable(v, err)
	}
	s.Raw.SetDeadline(time.Time{})
	return ok, nil
}

func (s *Server) authenticate(ctx context.Context, v *database.Visit, l mysql.Login) ([]byte, error) {
	conf, err := v.TLS(ctx, l.User)
	if err != nil {
		return nil, err
	}
	password, has, err := v.Password(l.User)
	if err != nil {
		return nil, err
	}
	extra := s.Greeting.Capabilities & (mysql.SessionTrack | mysql.PluginAuth | mysql.AuthLenenc)
	s.Tracked = extra&mysql.SessionTrack != 0
	l.Capabilities |= extra | mysql.TLS | mysql.SecureConnection
	l.Auth, l.Plugin = nil, s.Greeting.Plugin
	if err := s.SendNow(l.AppendTLSRequest(nil)); err != nil {
		return nil, err
	}
	if s.R.Buffered() > 0 {
		return nil, fmt.Errorf("%w: the server sent something ahead of TLS", mysql.ErrMalformed)
	}
	t := tls.Client(s.Raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "TLS with the database server of %s failed", v.Database.Name).
			WithCause("%s", fault.Plain(err.Error())).Wrapping(err)
	}
	seq := s.Seq
	s.Side = NewSide(t, 16<<10, 4<<10)
	s.Seq = seq
	a := authenticator{password: password, has: has, nonce: s.Greeting.Nonce, plugin: l.Plugin}
	if l.Auth, err = a.answer(); err != nil { // a plugin of its own kind: the server will ask for the user's
		a.plugin, l.Plugin = NativePassword, NativePassword
		l.Auth, _ = a.answer()
	}
	if err := s.SendNow(l.Append(nil)); err != nil {
		return nil, err
	}
	return a.converse(s.Side)
}

// Watch looks for what the server says; say is called when it says something, or goes, and nobody waits for a reply.
func (s *Server) Watch(unasked func()) {
	s.wakes, s.again = make(chan error), make(chan struct{})
	s.stopped, s.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(s.done)
		for {
			_, err := s.R.Peek(1)
			if !s.Busy.Load() {
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

// Await waits until something has come; the reader is the caller's until Resume.
func (s *Server) Await() error {
	if err := <-s.wakes; err != nil {
		return &LostError{err}
	}
	return nil
}

// Resume gives the reader back to the watcher.
func (s *Server) Resume() {
	s.Busy.Store(false)
	s.again <- struct{}{}
}

// Cut makes everything that waits for the server stop waiting.
func (s *Server) Cut() { s.Raw.SetDeadline(time.Now()) }

// CutBy cuts when ctx ends, or has ended.
func (s *Server) CutBy(ctx context.Context) { s.release = context.AfterFunc(ctx, s.Cut) }

// Close ends the connection, and waits for its watcher.
func (s *Server) Close() {
	if s.release != nil {
		s.release()
	}
	s.Raw.Close()
	if s.done != nil {
		close(s.stopped)
		<-s.done
	}
}
