package redis

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/fault"
)

// kind is what is particular about a command; most have nothing.
type kind uint8

const (
	plain      kind = iota // reads or writes data: the database must have been let in
	connection             // is about the connection alone
	clientCmd
	authCmd
	helloCmd
	selectCmd
	quitCmd
	resetCmd
	multiCmd
	execCmd
	subscribeCmd
	unsubscribeCmd
	monitorCmd
	replicaCmd
	elsewhere // reaches another database too
)

var kinds = map[string]kind{"AUTH": authCmd, "HELLO": helloCmd, "SELECT": selectCmd, "QUIT": quitCmd, "RESET": resetCmd,
	"MULTI": multiCmd, "EXEC": execCmd, "DISCARD": execCmd, "PING": connection, "ECHO": connection, "COMMAND": connection,
	"CLIENT": clientCmd, "SUBSCRIBE": subscribeCmd, "PSUBSCRIBE": subscribeCmd, "SSUBSCRIBE": subscribeCmd,
	"UNSUBSCRIBE": unsubscribeCmd, "PUNSUBSCRIBE": unsubscribeCmd, "SUNSUBSCRIBE": unsubscribeCmd, "MONITOR": monitorCmd,
	"SYNC": replicaCmd, "PSYNC": replicaCmd, "REPLCONF": replicaCmd, "MOVE": elsewhere, "COPY": elsewhere, "SWAPDB": elsewhere}

// do carries out one command, or puts it into the batch.
func (c *conn) do(cmd *wire.Command, raw []byte) error {
	if len(cmd.Args) == 0 {
		return nil
	}
	var name [16]byte
	k := kinds[string(upper(&name, cmd.Args[0]))]
	if k != plain && k != connection && (cmd.Rest > 0 || cmd.After > 0) {
		return fault.New(fault.Invalid, "a %s command that is too long", fault.Plain(string(cmd.Args[0])))
	}
	switch k {
	case authCmd:
		return c.auth(cmd.Args)
	case helloCmd:
		return c.hello(cmd.Args)
	case quitCmd:
		if err := c.local([]byte("+OK\r\n")); err != nil {
			return err
		}
		if err := c.replies.drain(); err != nil {
			return err
		}
		return errGone
	}
	if c.session == nil {
		if err := c.login(c.unnamed()); err != nil {
			return c.notIn("NOAUTH", err)
		}
	}
	if cmd.Inline {
		raw = wire.Append(nil, cmd.Args...)
	}
	return c.carry(k, cmd, raw)
}

// carry carries out a command of somebody who was let in.
func (c *conn) carry(k kind, cmd *wire.Command, raw []byte) error {
	if k != connection && k != clientCmd && k != selectCmd && k != resetCmd && !c.admitted {
		if err := c.session.Also(c.session.Context(), c.user, strconv.Itoa(c.db)); err != nil {
			return c.refuse(cmd, err)
		}
		c.admitted = true
	}
	if bytes.IndexByte(cmd.Args[0], 0) >= 0 || k == clientCmd && len(cmd.Args) > 1 && bytes.IndexByte(cmd.Args[1], 0) >= 0 {
		return c.refuse(cmd, fault.New(fault.Denied, "a command's name with a NUL in it"))
	}
	e := wire.Entry{}
	switch k {
	case selectCmd:
		return c.selectDB(cmd, raw)
	case resetCmd:
		return c.reset()
	case monitorCmd:
		return c.refuse(cmd, fault.New(fault.Denied, "MONITOR shows what others do, and is not carried"))
	case replicaCmd:
		return c.replicate(cmd, raw)
	case clientCmd:
		if len(cmd.Args) > 2 && is(cmd.Args[1], "REPLY") && !is(cmd.Args[2], "ON") {
			return c.refuse(cmd, fault.New(fault.Unsupported, "CLIENT REPLY is not carried"))
		}
	case multiCmd:
		c.multi, e.Role = true, wire.RoleOf(cmd.Args[0])
	case execCmd:
		c.multi, e.Role = false, wire.RoleOf(cmd.Args[0])
	case elsewhere:
		if err := c.reaches(cmd.Args); err != nil {
			return c.refuse(cmd, err)
		}
	case subscribeCmd, unsubscribeCmd:
		if c.multi {
			return c.refuse(cmd, fault.New(fault.Unsupported, "%s inside MULTI is not carried", cmd.Args[0]))
		}
		e.Role = wire.RoleOf(cmd.Args[0])
	}
	c.add(raw, e, cmd.Args)
	return nil
}

// refuse answers a command with a refusal, which is on record too.
func (c *conn) refuse(cmd *wire.Command, err error) error {
	if cmd.Rest > 0 || cmd.After > 0 {
		return err // the rest of it would have to be read for nothing
	}
	if err := c.flush(); err != nil {
		return err
	}
	text, _ := wire.AppendText(nil, cmd.Args)
	if err := c.record(string(text), "refused: "+fault.Of(err).Text); err != nil {
		return err
	}
	return c.local(refusal("NOPERM", err))
}

// notIn answers who is not let in; who tries too often is sent away.
func (c *conn) notIn(code string, err error) error {
	if c.refused++; c.refused >= maxRefused {
		return err
	}
	return c.local(refusal(code, err))
}

// login lets the connection in as a user, the first or another one, and connects to the server as that user.
func (c *conn) login(user string) error {
	if c.session == nil {
		s, err := c.visit.Admit(c.ctx, user, "")
		if err != nil {
			return err
		}
		up, err := connect(s.Context(), c.visit, state{user: user})
		if err != nil {
			s.End(err)
			return err
		}
		c.session, c.user = s, user
		c.client.SetDeadline(time.Time{})
		c.use(up)
		c.stop = context.AfterFunc(s.Context(), c.cut)
		return nil
	}
	if err := c.session.Also(c.session.Context(), user, ""); err != nil {
		return err
	}
	return c.replace(state{user: user, db: c.db, resp3: c.resp3})
}

// replace goes on with another connection to the server.
func (c *conn) replace(s state) error {
	if err := c.replies.drain(); err != nil {
		return err
	}
	up, err := connect(c.session.Context(), c.visit, s)
	if err != nil {
		return err
	}
	close(c.up.replaced)
	c.up.close()
	for _, f := range c.replies.renew() {
		if err := failed(c.session, c.user, f); err != nil {
			return err
		}
	}
	c.state = s
	c.use(up)
	if c.session.Context().Err() != nil { // it may have ended before there was this to cut
		c.cut()
	}
	return nil
}

func (c *conn) use(up *upstream) {
	c.up = up
	c.replies.speaks(c.resp3)
	session := c.session
	up.serve(c.replies, func(f wire.Failure) error { return failed(session, up.user, f) })
}

// unnamed is the user of who names none: whom tsh was told, else Redis' default user.
func (c *conn) unnamed() string { return cmp.Or(c.visit.DBUser, "default") }

// auth is AUTH [user] password. The password is passed over: the client's certificate was verified before.
func (c *conn) auth(args [][]byte) error {
	if len(args) != 2 && len(args) != 3 {
		return c.local(wire.AppendError(nil, "ERR wrong number of arguments for 'auth' command"))
	}
	user := c.unnamed()
	if len(args) == 3 {
		user = string(args[1])
	}
	ok, err := c.become(user)
	if err != nil || !ok {
		return err
	}
	return c.local([]byte("+OK\r\n"))
}

// become is login where it is another user, answered where it is refused.
func (c *conn) become(user string) (bool, error) {
	if err := c.flush(); err != nil {
		return false, err
	}
	if c.multi {
		return false, c.local(wire.AppendError(nil, "ERR Command not allowed inside a transaction"))
	}
	if c.session != nil && c.user == user {
		return true, nil
	}
	if err := c.login(user); err != nil {
		if c.session != nil && c.session.Context().Err() != nil {
			return false, err
		}
		return false, c.notIn("NOPERM", err)
	}
	return true, nil
}

// hello is HELLO [version [AUTH user password] [SETNAME name]]; the server gets it without AUTH.
func (c *conn) hello(args [][]byte) error {
	user, out := c.user, []string{"HELLO"}
	if c.session == nil {
		user = c.unnamed()
	}
	rest := args[1:]
	if len(rest) > 0 {
		out, rest = append(out, string(rest[0])), rest[1:]
	}
	for len(rest) > 0 {
		switch {
		case is(rest[0], "AUTH") && len(rest) >= 3:
			user, rest = string(rest[1]), rest[3:]
		case is(rest[0], "SETNAME") && len(rest) >= 2:
			out, rest = append(out, "SETNAME", string(rest[1])), rest[2:]
		default:
			return c.local(wire.AppendError(nil, "ERR Syntax error in HELLO option"))
		}
	}
	if ok, err := c.become(user); err != nil || !ok {
		return err
	}
	e := wire.Entry{}
	if len(out) > 1 && (out[1] == "2" || out[1] == "3") {
		e.Speaks = out[1][0]
	}
	failed, err := c.alone(wire.Append(nil, out...), e, args)
	if err == nil && !failed && e.Speaks != 0 {
		c.resp3 = e.Speaks == '3'
	}
	return err
}

// alone sends one command when all before it have been answered, and waits for its reply.
func (c *conn) alone(raw []byte, e wire.Entry, args [][]byte) (failed bool, err error) {
	if err := c.flush(); err != nil {
		return false, err
	}
	if err := c.replies.drain(); err != nil {
		return false, err
	}
	e.Failed = &failed
	c.add(raw, e, args)
	if err := c.flush(); err != nil {
		return false, err
	}
	err = c.replies.drain()
	return failed, err
}

// selectDB is SELECT. What follows waits for its outcome, so that nothing goes to a database that it was not decided for.
func (c *conn) selectDB(cmd *wire.Command, raw []byte) error {
	if c.multi {
		return c.refuse(cmd, fault.New(fault.Unsupported, "SELECT inside MULTI is not carried"))
	}
	if len(cmd.Args) != 2 {
		return c.local(wire.AppendError(nil, "ERR wrong number of arguments for 'select' command"))
	}
	n, err := index(cmd.Args[1])
	if err != nil {
		return c.local(wire.AppendError(nil, "ERR invalid DB index"))
	}
	if err := c.session.Also(c.session.Context(), c.user, strconv.Itoa(n)); err != nil {
		return c.refuse(cmd, err)
	}
	failed, err := c.alone(raw, wire.Entry{}, cmd.Args)
	if err == nil && !failed {
		c.db, c.admitted = n, true
	}
	return err
}

// index reads a database's number as redis-server does, which takes no other spelling of it.
func index(a []byte) (int, error) {
	n, err := strconv.Atoi(string(a))
	if err != nil || n < 0 || strconv.Itoa(n) != string(a) {
		return 0, errors.New("no database's number")
	}
	return n, nil
}

// reaches asks for the other databases that MOVE, COPY and SWAPDB name.
func (c *conn) reaches(args [][]byte) error {
	var names [][]byte
	switch {
	case is(args[0], "MOVE") && len(args) == 3:
		names = args[2:]
	case is(args[0], "SWAPDB"):
		names = args[1:]
	case is(args[0], "COPY"):
		for i := 3; i+1 < len(args); i++ {
			word, _, _ := bytes.Cut(args[i], []byte{0}) // redis-server reads it so
			if is(word, "DB") {
				names = append(names, args[i+1])
			}
		}
	}
	for _, a := range names {
		n, err := index(a)
		if err != nil {
			return fault.New(fault.Invalid, "%q is no database's number", fault.Plain(string(a)))
		}
		if err := c.session.Also(c.session.Context(), c.user, strconv.Itoa(n)); err != nil {
			return err
		}
	}
	return nil
}

// reset is RESET: the connection is as new, but for who it is.
func (c *conn) reset() error {
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.record("RESET", ""); err != nil {
		return err
	}
	if err := c.replace(state{user: c.user}); err != nil {
		return err
	}
	return c.local([]byte("+RESET\r\n"))
}

// replicate carries a replica, where that is granted. After SYNC and PSYNC what comes is no longer replies.
func (c *conn) replicate(cmd *wire.Command, raw []byte) error {
	if err := c.session.AlsoReplicate(c.session.Context(), c.user); err != nil {
		return c.refuse(cmd, err)
	}
	if c.multi {
		return c.refuse(cmd, fault.New(fault.Unsupported, "%s inside MULTI is not carried", cmd.Args[0]))
	}
	if is(cmd.Args[0], "REPLCONF") {
		return c.replconf(cmd, raw)
	}
	if err := c.flush(); err != nil {
		return err
	}
	if err := c.replies.drain(); err != nil {
		return err
	}
	if err := c.record(fmt.Sprintf("%s", cmd.Args[0]), ""); err != nil {
		return err
	}
	c.replies.passRaw()
	if err := c.up.send(raw); err != nil {
		return err
	}
	c.in = c.in[:0] // a replica says nothing more before it is answered
	return c.replica()
}

// replconf carries REPLCONF option value … of who is no replica yet. At ACK and GETACK redis-server stops reading and answers
// nothing, nor does it do anything: the same is done here, for a command of no reply would be mistaken for the next one.
func (c *conn) replconf(cmd *wire.Command, raw []byte) error {
	for i := 1; len(cmd.Args)%2 == 1 && i < len(cmd.Args); i += 2 {
		word, _, _ := bytes.Cut(cmd.Args[i], []byte{0}) // redis-server reads it so
		switch {
		case !is(word, "ACK") && !is(word, "GETACK"):
		case i > 1:
			return c.refuse(cmd, fault.New(fault.Unsupported, "REPLCONF %s behind other options is not carried", fault.Plain(string(word))))
		default:
			if err := c.flush(); err != nil {
				return err
			}
			text, _ := wire.AppendText(nil, cmd.Args)
			return c.record(string(text), "")
		}
	}
	c.add(raw, wire.Entry{}, cmd.Args)
	return nil
}

// replica passes on what a replica acknowledges, and nothing else: whoever was not taken for one goes on with commands.
func (c *conn) replica() error {
	for {
		taken := 0
		for {
			cmd, err := wire.Parse(c.in[taken:], nil, false)
			if errors.Is(err, wire.ErrShort) {
				break
			}
			if err != nil {
				return fault.New(fault.Invalid, "Protocol error: %v", err)
			}
			if len(cmd.Args) > 0 && (cmd.Inline || !is(cmd.Args[0], "REPLCONF")) {
				return fault.New(fault.Denied, "a replica says nothing but REPLCONF").WithFix("open another connection for commands")
			}
			taken += cmd.Size
		}
		if err := c.up.send(c.in[:taken]); err != nil {
			return err
		}
		c.in = c.in[:copy(c.in, c.in[taken:])]
		if err := c.read(); err != nil {
			return err
		}
	}
}
