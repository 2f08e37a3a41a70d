package mysql

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sallyport/sallyport/internal/database/mysql/server"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// maxHead bounds what is looked at of a command; what lies behind it passes unseen.
const maxHead = 64 << 10

// command is one of the client's: its beginning, and how much is still to be read.
type command struct {
	code   mysql.Command
	args   []byte // at most maxHead; the next command overwrites it
	length int    // of its first packet
	rest   int    // bytes of that which have not been read
}

// commands carries one command after another until one side goes.
func (c *conn) commands() error {
	buf := make([]byte, 0, 512)
	for {
		cmd, err := c.read(&buf)
		if err != nil {
			return err
		}
		if cmd.code == mysql.Quit {
			_ = c.forward(&cmd)
			return errGone
		}
		if err := c.do(&cmd); err != nil {
			return err
		}
		if err := c.client.W.Flush(); err != nil {
			return errGone
		}
		if cap(buf) > 16<<10 { // nobody keeps a large one for a connection that is idle
			buf = make([]byte, 0, 512)
		}
	}
}

// read waits for the next command.
func (c *conn) read(buf *[]byte) (command, error) {
	c.client.Seq, c.skew = 1, 0
	h, err := c.client.R.Peek(mysql.HeaderLen)
	if err != nil {
		return command{}, c.unasked(err)
	}
	n, _ := mysql.Header(h)
	c.client.R.Discard(mysql.HeaderLen)
	c.session.Touch()
	if n == 0 {
		return command{}, fault.New(fault.Invalid, "a command of no bytes")
	}
	k := min(n, maxHead)
	if cap(*buf) < k {
		*buf = make([]byte, 0, k)
	}
	b := (*buf)[:k]
	if _, err := io.ReadFull(c.client.R, b); err != nil {
		return command{}, c.unasked(err)
	}
	return command{code: mysql.Command(b[0]), args: b[1:], length: n, rest: n - k}, nil
}

// unasked is why the client could not be read: it went, or its reader was woken because the server said something that
// nobody asked for, or went.
func (c *conn) unasked(err error) error {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return errGone
	}
	if err := c.server.Await(); err != nil {
		return err
	}
	b, _, err := mysql.Read(c.server.R, server.MaxHandshake)
	if err != nil {
		return &server.LostError{Err: err}
	}
	return mysql.ParseError(b) // a server that is stopped, or that ends the connection, says so
}

// forward sends a command to the server, whatever its length.
func (c *conn) forward(cmd *command) error {
	w := c.server.W
	head := append(mysql.AppendHeader(make([]byte, 0, mysql.HeaderLen+1), cmd.length, 0), byte(cmd.code))
	w.Write(head)
	w.Write(cmd.args)
	if err := c.rest(w, cmd); err != nil {
		return err
	}
	return c.sent(w.Flush())
}

// sent looks, where the server takes no more, for what it said before.
func (c *conn) sent(err error) error {
	if err == nil {
		return nil
	}
	c.server.Raw.SetReadDeadline(time.Now().Add(server.PartingTime))
	if c.server.Await() == nil {
		if b, _, rerr := mysql.Read(c.server.R, server.MaxHandshake); rerr == nil {
			if own := (*mysql.Error)(nil); errors.As(mysql.ParseError(b), &own) {
				return own
			}
		}
	}
	return &server.LostError{Err: err}
}

// rest passes on what has not been read of a command, or with w nil passes over it.
func (c *conn) rest(w *bufio.Writer, cmd *command) error {
	n, full := cmd.rest, cmd.length == mysql.MaxChunk
	look, text := mysql.Lookout{}, w != nil && (cmd.code == mysql.Query || cmd.code == mysql.StmtPrepare)
	look.Sees(cmd.args)
	for {
		for n > 0 {
			b, err := c.client.R.Peek(min(n, max(c.client.R.Buffered(), 1)))
			switch {
			case err != nil:
				return errGone
			case text && look.Sees(b): // not all of it has been sent, so the server does not run it
				return hiding()
			case w != nil:
				if _, err := w.Write(b); err != nil {
					return c.sent(err)
				}
			}
			c.client.R.Discard(len(b))
			c.session.Touch()
			n -= len(b)
		}
		if !full {
			return nil
		}
		h, err := c.client.R.Peek(mysql.HeaderLen)
		if err != nil {
			return errGone
		}
		if n, _ = mysql.Header(h); w != nil {
			w.Write(h) // what fails here fails at the next again
		}
		c.client.R.Discard(mysql.HeaderLen)
		full = n == mysql.MaxChunk
	}
}

// exchange sends a command and passes its reply on; st is its statement where it is one.
func (c *conn) exchange(cmd *command, st *statement, reply func(*statement) error) error {
	c.open = st
	c.server.Busy.Store(true)
	if err := c.forward(cmd); err != nil {
		return err
	}
	if err := c.server.Await(); err != nil {
		return err
	}
	if err := reply(st); err != nil {
		return err
	}
	c.server.Resume()
	return nil
}

// do carries out one command.
func (c *conn) do(cmd *command) error {
	switch cmd.code {
	case mysql.Query:
		return c.query(cmd, c.result)
	case mysql.StmtPrepare:
		return c.query(cmd, c.preparing)
	case mysql.InitDB:
		return c.initDB(cmd)
	case mysql.StmtExecute, mysql.StmtBulkExecute:
		return c.exchange(cmd, c.execution(cmd), c.result)
	case mysql.StmtFetch:
		return c.exchange(cmd, nil, c.fetched)
	case mysql.StmtLongData, mysql.StmtClose:
		c.prepared.change(cmd)
		return c.forward(cmd)
	case mysql.ResetConnection:
		c.prepared = statements{}
		return c.exchange(cmd, c.named(cmd, ""), c.result)
	case mysql.FieldList:
		return c.exchange(cmd, c.named(cmd, text(cmd.args)), c.fields)
	case mysql.CreateDB, mysql.DropDB:
		return c.exchange(cmd, c.named(cmd, text(cmd.args)), c.result)
	case mysql.ProcessKill:
		id, _ := mysql.Uint32(cmd.args)
		return c.exchange(cmd, c.named(cmd, fmt.Sprint(id)), c.result)
	case mysql.Refresh, mysql.Shutdown, mysql.ProcessInfo, mysql.Debug:
		return c.exchange(cmd, c.named(cmd, ""), c.result)
	case mysql.StmtReset:
		c.prepared.change(cmd)
		return c.exchange(cmd, nil, c.result)
	case mysql.Ping, mysql.SetOption:
		return c.exchange(cmd, nil, c.result)
	case mysql.Statistics:
		return c.exchange(cmd, nil, func(*statement) error { return c.pass() })
	case mysql.ChangeUser:
		return c.changeUser(cmd)
	case mysql.BinlogDump, mysql.BinlogDumpGTID, mysql.RegisterReplica:
		return c.replicate(cmd)
	}
	return c.refuse(cmd, c.named(cmd, ""), fault.New(fault.Unsupported, "%s is not carried", cmd.code).WithReason(reasonRefused))
}

// replicate carries what a replica asks for, where that is granted.
func (c *conn) replicate(cmd *command) error {
	st := c.named(cmd, "")
	if err := c.session.AlsoReplicate(c.session.Context(), c.user); err != nil {
		return c.refuse(cmd, st, marked(err, reasonRefused))
	}
	if cmd.code == mysql.RegisterReplica {
		return c.exchange(cmd, st, c.result)
	}
	return c.exchange(cmd, st, c.events)
}

// query is COM_QUERY, or COM_STMT_PREPARE.
func (c *conn) query(cmd *command, reply func(*statement) error) error {
	st := &statement{query: string(cmd.args)}
	if mysql.NamesTracking(cmd.args) {
		return c.refuse(cmd, st, hiding())
	}
	for _, name := range mysql.Uses(st.query) {
		if err := c.session.Also(c.session.Context(), c.user, name); err != nil {
			return c.refuse(cmd, st, marked(err, reasonDB))
		}
		st.use = name
	}
	if cmd.code == mysql.StmtPrepare {
		st.preparing, st.use = true, ""
	}
	return c.exchange(cmd, st, reply)
}

// hiding refuses a statement that would keep the server from telling where the session is.
func hiding() *fault.Error {
	return fault.New(fault.Denied, "%s is not to be named here: by it the server tells in which database a session is", mysql.Tracking).WithReason(reasonRefused)
}

func (c *conn) initDB(cmd *command) error {
	name := text(cmd.args)
	st := &statement{query: "USE `" + name + "`"}
	if err := c.session.Also(c.session.Context(), c.user, name); err != nil {
		return c.refuse(cmd, st, marked(err, reasonDB))
	}
	st.use = name
	return c.exchange(cmd, st, c.result)
}

// marked is a refusal with a reason by which farewell tells how to say it.
func marked(err error, reason string) *fault.Error {
	f := *fault.Of(err)
	f.Reason = reason
	return &f
}

// refuse answers a command in the server's place; the connection goes on.
func (c *conn) refuse(cmd *command, st *statement, f *fault.Error) error {
	if err := c.rest(nil, cmd); err != nil {
		return err
	}
	if err := c.record(st, "refused: "+line(f)); err != nil {
		return err
	}
	if err := c.client.Send(farewell(f).Append(nil)); err != nil {
		return errGone
	}
	return nil
}

// changeUser is COM_CHANGE_USER: decided again, and a new connection to the server, because the old one's certificate is
// the old user's. Where it is refused the connection ends, as it does at a server.
func (c *conn) changeUser(cmd *command) error {
	l, err := mysql.ParseChangeUser(cmd.args, c.caps)
	if err != nil || cmd.rest > 0 {
		return fault.New(fault.Invalid, "the change of user cannot be read").WithReason(server.ReasonLogin)
	}
	if err := plainNames(l.Charset, l.User, l.Database); err != nil {
		return err
	}
	fast, err := c.settle(l)
	if err != nil {
		return err
	}
	if err := c.session.Also(c.session.Context(), l.User, l.Database); err != nil {
		return refusedLogin(err)
	}
	next, ok, err := c.again(l)
	if err != nil {
		return err
	}
	c.server.Busy.Store(true) // its watcher is to wake nobody
	c.server.Close()
	c.server, c.user, c.db, c.prepared = next, l.User, l.Database, statements{}
	next.Watch(func() { c.client.Conn.SetReadDeadline(time.Now()) })
	next.CutBy(c.session.Context())
	st := c.named(cmd, c.user)
	if err := c.record(st, ""); err != nil {
		return err
	}
	return c.welcome(ok, fast)
}

// again logs in once more, as another user or the same.
func (c *conn) again(l login) (*server.Server, []byte, error) {
	ctx := c.session.Context()
	s, err := server.Greeted(ctx, c.visit)
	if err != nil {
		return nil, nil, err
	}
	l.MaxPacket = 1 << 30
	l.Capabilities = c.caps &^ mysql.ConnectWithDB
	if l.Database != "" {
		l.Capabilities |= mysql.ConnectWithDB
	}
	if c.caps&^s.Greeting.Capabilities&^mysql.PluginAuth != 0 {
		s.Decline()
		return nil, nil, fault.New(fault.Unavailable, "the database server is another than it was").WithFix("connect again")
	}
	ok, err := s.Login(ctx, c.visit, l)
	if err != nil {
		s.Close()
		return nil, nil, err
	}
	return s, ok, nil
}
