// Package redis carries clients of Redis: it lets them in as the user that their AUTH names, speaks to the server as that
// user, and passes on commands in bulk, each on record before it goes to the server.
package redis

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of what is waited for and kept.
const (
	loginTime   = 10 * time.Second // for a client's first command, and for a server's login
	partingTime = 2 * time.Second  // for a client to take the error that ends its connection
	bufferSize  = 16 << 10
	maxRefused  = 10 // logins that a connection may be refused
)

// Engine speaks Redis' protocol; it holds nothing.
type Engine struct{}

// conn is one client's connection through the door.
type conn struct {
	ctx     context.Context
	visit   *database.Visit
	client  net.Conn
	session *database.Session // nil before the first command that needs a user
	up      *upstream         // nil as long
	replies *replies
	state
	batch   batch
	in      []byte // what was read and not yet carried
	refused int
	stop    func() bool // lets go of the session's context
}

// state is what earlier commands have made of the connection.
type state struct {
	user     string
	db       int
	admitted bool // user was let in to db
	multi    bool
	resp3    bool
}

// Serve implements database.Engine.
func (Engine) Serve(ctx context.Context, client net.Conn, v *database.Visit) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &conn{ctx: ctx, visit: v, client: client, replies: newReplies(client), in: make([]byte, 0, bufferSize)}
	stop := context.AfterFunc(ctx, c.cut) // with it the session's context ends too
	defer stop()
	client.SetDeadline(time.Now().Add(loginTime)) // also for who does not read
	err := c.commands()
	if c.session != nil {
		if why := c.session.Ended(); why != nil {
			err = why
		}
	}
	c.part(err)
	if c.stop != nil {
		c.stop()
	}
}

// cut makes everything that waits stop waiting.
func (c *conn) cut() {
	c.client.SetReadDeadline(time.Now())
	c.client.SetWriteDeadline(time.Now().Add(partingTime))
	c.replies.cut()
}

// errGone is that the client went, or has been told; errLost is that the server went.
var (
	errGone = errors.New("the client went")
	errLost = fault.New(fault.Unavailable, "the connection to the database server is lost").WithReason("server_lost")
)

// part tells the client why it ends, where it does not know, and puts down what is open.
func (c *conn) part(err error) {
	if c.up != nil {
		c.up.close()
	}
	if c.session != nil {
		for _, f := range c.replies.left() {
			_ = failed(c.session, c.user, f)
		}
	}
	if err != nil && !errors.Is(err, errGone) {
		c.client.SetWriteDeadline(time.Now().Add(partingTime))
		c.replies.farewell(refusal("ERR", err))
	}
	c.client.Close()
	if c.session != nil {
		c.session.End(nil)
	}
}

// refusal words a fault as an error reply.
func refusal(code string, err error) []byte {
	var own wire.ServerError
	if errors.As(err, &own) {
		return wire.AppendError(nil, string(own))
	}
	return wire.AppendError(nil, code+" "+fault.Of(err).Lines())
}

// commands carries what the client sends, as much at a time as has come.
func (c *conn) commands() error {
	var args [][]byte
	for {
		taken := 0
		for {
			cmd, err := wire.Parse(c.in[taken:], args, len(c.in) == cap(c.in) && taken == 0)
			if errors.Is(err, wire.ErrShort) {
				break
			}
			if err != nil {
				_ = c.flush()
				return fault.New(fault.Invalid, "Protocol error: %v", err)
			}
			args = cmd.Args
			if err := c.do(&cmd, c.in[taken:taken+cmd.Size]); err != nil {
				return err
			}
			taken += cmd.Size
			if cmd.Rest > 0 || cmd.After > 0 {
				if err := c.long(&cmd, taken); err != nil {
					return err
				}
				taken = 0
			}
		}
		if err := c.flush(); err != nil {
			return err
		}
		c.in = c.in[:copy(c.in, c.in[taken:])]
		if err := c.read(); err != nil {
			return err
		}
	}
}

// read reads more, making room for what must be there in one piece.
func (c *conn) read() error {
	if len(c.in) == cap(c.in) {
		if len(c.in) > 2*wire.MaxLine {
			return fault.New(fault.Invalid, "Protocol error: a line without end")
		}
		c.in = append(make([]byte, 0, 2*cap(c.in)), c.in...)
	}
	n, err := c.client.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	if errors.Is(err, io.EOF) { // who sends all at once and then nothing still gets the replies
		timer := time.AfterFunc(partingTime, c.cut)
		defer timer.Stop()
		_ = c.replies.drain()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if lost := c.replies.lost(); lost != nil {
			return lost
		}
		if c.session == nil && c.ctx.Err() == nil {
			return fault.New(fault.Unauthenticated, "no command came in time")
		}
	}
	return errGone
}

// long passes on what is behind the buffer's end of a command that is larger. taken of the buffer has been carried.
func (c *conn) long(cmd *wire.Command, taken int) error {
	if err := c.flush(); err != nil {
		return err
	}
	c.in = c.in[:copy(c.in, c.in[taken:])]
	rest := cmd.Rest
	for after := cmd.After; ; {
		for rest > 0 {
			if len(c.in) == 0 {
				if err := c.read(); err != nil {
					return err
				}
			}
			k := min(rest, len(c.in))
			c.session.Touch()
			if err := c.up.send(c.in[:k]); err != nil {
				return err
			}
			rest -= k
			c.in = c.in[:copy(c.in, c.in[k:])]
		}
		if after == 0 {
			return nil
		}
		n, head, err := wire.Bulk(c.in)
		if errors.Is(err, wire.ErrShort) {
			if err := c.read(); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return fault.New(fault.Invalid, "Protocol error: %v", err)
		}
		rest, after = head+n, after-1
	}
}

// batch is commands that go on together.
type batch struct {
	raw     []byte // as they lie in the buffer, one behind the other
	text    []byte
	entries []wire.Entry
	ends    []int // of each command's text
}

// add puts a command that goes on as it came into the batch.
func (c *conn) add(raw []byte, e wire.Entry, args [][]byte) {
	b := &c.batch
	if len(b.raw) == 0 {
		b.raw = raw
	} else if cap(b.raw) >= len(b.raw)+len(raw) && &b.raw[:len(b.raw)+1][len(b.raw)] == &raw[0] {
		b.raw = b.raw[:len(b.raw)+len(raw)]
	} else {
		b.raw = append(b.raw[:len(b.raw):len(b.raw)], raw...)
	}
	if len(b.text) > 0 {
		b.text = append(b.text, '\n')
	}
	b.text, e.Secret = wire.AppendText(b.text, args)
	e.DB, e.Args = c.db, len(args)-1
	b.entries = append(b.entries, e)
	b.ends = append(b.ends, len(b.text))
}

// flush records the batch and sends it.
func (c *conn) flush() error {
	b := &c.batch
	if len(b.entries) == 0 {
		return nil
	}
	text := string(b.text)
	for start, i := 0, 0; i < len(b.ends); i++ {
		if i+1 == len(b.ends) || b.ends[i+1]-start > wire.MaxFailure {
			if err := c.record(text[start:b.ends[i]], ""); err != nil {
				return err
			}
			start = min(b.ends[i]+1, len(text))
		}
	}
	start := 0
	for i := range b.entries {
		b.entries[i].Text = text[start:b.ends[i]]
		start = b.ends[i] + 1
	}
	if err := c.replies.expect(b.entries); err != nil {
		return err
	}
	err := c.up.send(b.raw)
	*b = batch{text: b.text[:0], entries: b.entries[:0], ends: b.ends[:0]}
	return err
}

func (c *conn) record(text, failure string) error {
	return record(c.session, database.Statement{DBUser: c.user, DBName: strconv.Itoa(c.db), Query: text, Failed: failure != "", Message: failure})
}

// failed records what was on record as carried out, and was not.
func failed(s *database.Session, user string, f wire.Failure) error {
	return record(s, database.Statement{DBUser: user, DBName: strconv.Itoa(f.DB), Query: f.Text, Failed: true, Message: f.Message})
}

func record(s *database.Session, st database.Statement) error {
	// What the session has begun is recorded though it ends meanwhile.
	return s.Record(context.WithoutCancel(s.Context()), st)
}

// local answers a command in the server's place.
func (c *conn) local(reply []byte) error {
	if err := c.flush(); err != nil {
		return err
	}
	return c.replies.local(reply)
}

func upper(dst *[16]byte, name []byte) []byte {
	if len(name) > len(dst) {
		return nil
	}
	n := copy(dst[:], name)
	for i, b := range dst[:n] {
		if b >= 'a' && b <= 'z' {
			dst[i] = b - 32
		}
	}
	return dst[:n]
}

func is(a []byte, name string) bool { return len(a) == len(name) && bytes.EqualFold(a, []byte(name)) }
