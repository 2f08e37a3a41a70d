package mongo

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/mongo"
	"github.com/sallyport/sallyport/internal/fault"
)

// maxLogin bounds what a server says while logging in.
const maxLogin = 64 << 10

// upstream is a connection to the server as one user.
type upstream struct {
	net.Conn
	raw net.Conn // below TLS
	r   *bufio.Reader

	busy    atomic.Bool // somebody waits for a reply
	wakes   chan error  // something came, or the connection ended
	again   chan struct{}
	stopped chan struct{}
	done    chan struct{} // the watcher is over
}

// serverError is a refusal of the server's own.
type serverError wire.Doc

func (e serverError) Error() string { return wire.Outcome(wire.Doc(e)) }

// connect logs in to the server as a user: by SCRAM-SHA-256 where the agent has a password, else by the certificate.
func connect(ctx context.Context, e *Engine, v *database.Visit, user string) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	raw, err := v.Dial(ctx)
	if err != nil {
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Now().Add(loginTime))
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Now()) })
	defer stop()
	u, err := login(ctx, e, v, raw, user)
	if err != nil {
		raw.Close()
		return nil, unreachable(v, err)
	}
	raw.SetDeadline(time.Time{})
	return u, nil
}

func unreachable(v *database.Visit, err error) error {
	var own serverError
	if errors.As(err, &own) { // the server's own words
		return err
	}
	return v.Unreachable(err)
}

func login(ctx context.Context, e *Engine, v *database.Visit, raw net.Conn, user string) (*upstream, error) {
	conf, err := v.TLS(ctx, user)
	if err != nil {
		return nil, err
	}
	password, has, err := v.Password(user)
	if err != nil {
		return nil, err
	}
	t := tls.Client(raw, conf)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fault.New(fault.Unavailable, "TLS with the database server of %s failed", v.Database.Name).WithReason("database_tls").
			WithCause("%s", fault.Plain(err.Error())).Wrapping(err)
	}
	u := &upstream{Conn: t, raw: raw, r: bufio.NewReaderSize(t, 16<<10)}
	hello, err := u.ask(wire.Build(wire.Field{Name: "hello", Value: 1}, wire.Field{Name: "$db", Value: "admin"}))
	if err != nil {
		return nil, err
	}
	maxWire, _ := hello.Get("maxWireVersion")
	minutes, _ := hello.Get("logicalSessionTimeoutMinutes")
	e.learn(v.Database.Name, facts{int(maxWire.Number()), int(minutes.Number())})
	if has {
		return u, u.scram(user, password)
	}
	_, err = u.ask(wire.Build(wire.Field{Name: "authenticate", Value: 1}, wire.Field{Name: "mechanism", Value: x509}, wire.Field{Name: "$db", Value: "$external"}))
	return u, err
}

// scram authenticates by a password of the admin database.
func (u *upstream) scram(user, password string) error {
	s, first := wire.NewScramClient(user, password, rand.Text())
	admin := wire.Field{Name: "$db", Value: "admin"}
	d, err := u.ask(wire.Build(wire.Field{Name: "saslStart", Value: 1}, wire.Field{Name: "mechanism", Value: scram}, wire.Field{Name: "payload", Value: []byte(first)}, admin))
	for step := 0; err == nil && step < 4; step++ {
		payload, _ := d.Get("payload")
		id, _ := d.Get("conversationId")
		done, _ := d.Get("done")
		var answer string
		switch step {
		case 0:
			answer, err = s.Answer(string(payload.Bytes()))
		case 1:
			err = s.Verify(string(payload.Bytes()))
		}
		if err != nil || step > 0 && done.Number() != 0 {
			return err
		}
		d, err = u.ask(wire.Build(wire.Field{Name: "saslContinue", Value: 1}, wire.Field{Name: "conversationId", Value: int(id.Number())},
			wire.Field{Name: "payload", Value: []byte(answer)}, admin))
	}
	if err == nil {
		err = fmt.Errorf("%w: authentication without end", wire.ErrMalformed)
	}
	return err
}

// ask sends a command of the door's own and gives its reply; one that failed is a serverError.
func (u *upstream) ask(d wire.Doc) (wire.Doc, error) {
	if _, err := u.Write(wire.AppendCommand(nil, 1, d)); err != nil {
		return nil, err
	}
	b, err := u.r.Peek(wire.HeaderLen)
	if err != nil {
		return nil, err
	}
	h, err := wire.ParseHeader(b)
	if err != nil {
		return nil, err
	}
	if h.Length > maxLogin || h.Opcode != wire.OpMsg {
		return nil, fmt.Errorf("%w: while logging in", wire.ErrMalformed)
	}
	whole := make([]byte, h.Length)
	if _, err := io.ReadFull(u.r, whole); err != nil {
		return nil, err
	}
	m, err := wire.Parse(whole)
	if err != nil {
		return nil, err
	}
	if ok, has := m.Body.Get("ok"); !has || ok.Number() == 0 {
		return nil, serverError(m.Body)
	}
	return m.Body, nil
}

// watch looks for what the server says; unasked is called when it says something, or goes, and nobody waits for a reply.
func (u *upstream) watch(unasked func()) {
	u.wakes, u.again = make(chan error), make(chan struct{})
	u.stopped, u.done = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(u.done)
		for {
			_, err := u.r.Peek(1)
			if !u.busy.Load() {
				unasked()
			}
			select {
			case u.wakes <- err:
			case <-u.stopped:
				return
			}
			select {
			case <-u.again:
			case <-u.stopped:
				return
			}
		}
	}()
}

// await waits until something has come; the reader is the caller's until resume.
func (u *upstream) await() error { return lost(<-u.wakes) }

// resume gives the reader back to the watcher.
func (u *upstream) resume() {
	u.busy.Store(false)
	u.again <- struct{}{}
}

func (u *upstream) close() {
	u.raw.Close()
	close(u.stopped)
	<-u.done
}
