// Package mongo carries clients of MongoDB: it answers their hellos, lets them in as the user that they authenticate as,
// speaks to the server as that user, and passes on commands, each on record before its reply.
package mongo

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/mongo"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of what is waited for and looked at.
const (
	loginTime   = 10 * time.Second // for a client's first message, and for a server's login
	partingTime = 2 * time.Second  // for a client to take the error that ends its connection
	recordTime  = 10 * time.Second
	maxJudged   = 1 << 20  // bytes of a reply whose outcome is looked at
	maxRefused  = 10       // logins that a connection may be refused
	maxUnknown  = 64 << 10 // bytes of a message that are held of who was not let in: hellos and logins are far shorter
)

// Engine speaks MongoDB's protocol. It remembers what servers said of themselves, by database.
type Engine struct {
	mu    sync.Mutex
	facts map[string]facts // guarded by mu
}

// New makes an engine.
func New() *Engine { return &Engine{facts: map[string]facts{}} }

// facts are what a server's hello says that clients must know.
type facts struct{ maxWire, sessionMinutes int }

// unknown is what every server since 4.4 can do.
var unknown = facts{maxWire: 9, sessionMinutes: 30}

func (e *Engine) about(name string) facts {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f, has := e.facts[name]; has {
		return f
	}
	return unknown
}

func (e *Engine) learn(name string, f facts) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.facts[name] = f
}

// conn is one client's connection through the door.
type conn struct {
	ctx     context.Context
	engine  *Engine
	visit   *database.Visit
	client  net.Conn
	r       *bufio.Reader
	session *database.Session // nil before the first command that needs a user
	up      *upstream         // nil as long
	user    string
	sasl    exchange
	refused int
	open    *statement // sent to the server and not on record yet
	torn    bool       // part of a reply has gone to the client
}

// Serve implements database.Engine.
func (e *Engine) Serve(ctx context.Context, client net.Conn, v *database.Visit) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{ctx: ctx, engine: e, visit: v, client: client, r: bufio.NewReaderSize(client, 4<<10)}
	stop := context.AfterFunc(ctx, func() { cutClient(client) })
	defer stop()
	client.SetDeadline(time.Now().Add(loginTime)) // also for who does not read
	var err error
	for err == nil {
		err = c.next()
	}
	if c.session != nil {
		if why := c.session.Ended(); why != nil {
			err = why
		}
	}
	c.part(err)
}

// cutClient makes what waits for a client stop waiting.
func cutClient(client net.Conn) {
	client.SetReadDeadline(time.Now())
	client.SetWriteDeadline(time.Now().Add(partingTime))
}

// errGone is that the client went; errLost is that the server went.
var (
	errGone = errors.New("the client went")
	errLost = fault.New(fault.Unavailable, "the connection to the database server is lost").WithReason("server_lost")
)

// part answers a command that waits, records it, and puts down what is open. The protocol has no word for a client that
// waits for nothing: it sees its connection close, and hears why at its next.
func (c *conn) part(err error) {
	if st := c.open; st != nil {
		_ = c.record(st, "the connection ended before the server answered")
		if err != nil && !errors.Is(err, errGone) && !c.torn {
			c.client.SetWriteDeadline(time.Now().Add(partingTime))
			_, _ = c.client.Write(st.message.Reply(failure(err)))
		}
	}
	c.client.Close()
	if c.up != nil {
		c.up.close()
	}
	if c.session != nil {
		c.session.End(nil)
	}
}

// failure words a fault as a command's failure, under a code by which drivers do not try again what a rule refused.
func failure(err error) wire.Doc {
	f := fault.Of(err)
	var own serverError
	switch {
	case errors.As(err, &own):
		return wire.Doc(own)
	case f.Reason == errLost.Reason:
		return wire.Error(6, "HostUnreachable", f.Lines())
	case f.Kind == fault.Unavailable:
		return wire.Error(8000, "Unavailable", f.Lines())
	}
	return wire.Error(13, "Unauthorized", f.Lines())
}

// next carries out one message.
func (c *conn) next() error {
	header, err := c.header()
	if err != nil {
		return err
	}
	if c.session == nil && header.Length > maxUnknown {
		if in, err := c.admitLong(header); !in || err != nil {
			return err
		}
	}
	b, err := c.read(header)
	if err != nil {
		return err
	}
	m, err := wire.Parse(b)
	if err != nil {
		if h, herr := wire.ParseHeader(b); herr == nil && h.Opcode == wire.OpMsg {
			_ = c.reply(&wire.Message{Header: h}, wire.Error(9, "FailedToParse", err.Error()))
		}
		return errGone
	}
	return c.do(m)
}

// header looks at the next message's.
func (c *conn) header() (wire.Header, error) {
	h, err := c.r.Peek(wire.HeaderLen)
	if err != nil {
		return wire.Header{}, c.unasked(err)
	}
	header, err := wire.ParseHeader(h)
	if err != nil {
		return header, errGone
	}
	return header, nil
}

// admitLong lets in, before the message is read, who begins with one that is no login: such a client is the user of the
// login's own name, as if it were a short one. Of who is not let in the message is passed over, and answered.
func (c *conn) admitLong(h wire.Header) (bool, error) {
	head, err := c.r.Peek(wire.HeaderLen + 4)
	if err != nil {
		return false, c.unasked(err)
	}
	m := &wire.Message{Header: h, Flags: binary.LittleEndian.Uint32(head[wire.HeaderLen:])}
	if h.Opcode != wire.OpMsg {
		return false, errGone
	}
	refused := c.login(c.visit.User.Name)
	if refused == nil {
		return true, nil
	}
	if _, err := c.r.Discard(h.Length); err != nil { // a client that writes does not read
		return false, c.unasked(err)
	}
	return false, c.notIn(m, refused)
}

// read reads a whole message; its buffer grows with what has come.
func (c *conn) read(header wire.Header) ([]byte, error) {
	b := make([]byte, 0, min(header.Length, 64<<10))
	for len(b) < header.Length {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(2*cap(b), header.Length)), b...)
		}
		n, err := c.r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if c.session != nil {
			c.session.Touch()
		}
		if err != nil {
			return nil, c.unasked(err)
		}
	}
	return b, nil
}

// unasked is why the client could not be read: it went, or its reader was woken because the server went.
func (c *conn) unasked(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) || c.up == nil {
		return errGone
	}
	if err := c.up.await(); err != nil {
		return err
	}
	return errLost // it said what nobody asked for
}

func (c *conn) reply(m *wire.Message, d wire.Doc) error {
	if m.Flags&wire.FlagMoreToCome != 0 {
		return nil // the client wants none
	}
	if _, err := c.client.Write(m.Reply(d)); err != nil {
		return errGone
	}
	return nil
}

// statement is a command that the client sent.
type statement struct {
	message *wire.Message
	db      string
	text    string
	secret  bool
}

func (c *conn) record(st *statement, failed string) error {
	c.open = nil
	if failed != "" && st.secret {
		failed = "it failed; the error is left out, for it may cite a secret"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.session.Context()), recordTime)
	defer cancel()
	return c.session.Record(ctx, database.Statement{DBName: st.db, Query: st.text, Failed: failed != "", Message: failed})
}

// forward sends a command and passes its reply on.
func (c *conn) forward(st *statement) error {
	m := st.message
	if m.Flags&wire.FlagMoreToCome != 0 { // there is no reply: what became of it nobody hears
		if err := c.record(st, ""); err != nil {
			return err
		}
		_, err := c.up.Write(m.Forward(nil))
		return lost(err)
	}
	c.open = st
	c.up.busy.Store(true)
	if _, err := c.up.Write(m.Forward(nil)); err != nil {
		return lost(err)
	}
	if err := c.up.await(); err != nil {
		return err
	}
	if err := c.relay(st); err != nil {
		return err
	}
	c.up.resume()
	return nil
}

func lost(err error) error {
	if err == nil {
		return nil
	}
	return errLost.Wrapping(err)
}

// relay passes on the reply to a command.
func (c *conn) relay(st *statement) error {
	b, err := c.up.r.Peek(wire.HeaderLen + 4)
	if err != nil {
		return lost(err)
	}
	h, err := wire.ParseHeader(b)
	if err != nil || h.Opcode != wire.OpMsg || h.To != st.message.ID || binary.LittleEndian.Uint32(b[wire.HeaderLen:])&wire.FlagMoreToCome != 0 {
		return errLost.Wrapping(errors.Join(errors.New("a reply to something else"), err))
	}
	head := make([]byte, min(h.Length, maxJudged))
	if _, err := io.ReadFull(c.up.r, head); err != nil {
		return lost(err)
	}
	failed := ""
	if len(head) == h.Length {
		m, err := wire.Parse(head)
		if err != nil {
			return lost(err)
		}
		failed = wire.Outcome(m.Body)
	} else {
		failed = st.message.Begun(head)
	}
	if err := c.record(st, failed); err != nil {
		return err
	}
	c.torn = true
	if _, err := c.client.Write(head); err != nil {
		return errGone
	}
	for rest := h.Length - len(head); rest > 0; {
		b, err := c.up.r.Peek(min(rest, max(c.up.r.Buffered(), 1)))
		if err != nil {
			return lost(err)
		}
		if _, err := c.client.Write(b); err != nil {
			return errGone
		}
		c.up.r.Discard(len(b))
		rest -= len(b)
	}
	c.torn = false
	return nil
}
