package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/postgres/upstream"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/dbwire/postgres/sql"
	"github.com/sallyport/sallyport/internal/fault"
)

// maxStatement bounds a statement's text, which is read whole before it goes on.
const maxStatement = 16 << 20

// lostReason is that of a server that went away.
const lostReason = "server_lost"

// errOver is the end of a session that nobody needs to be told of.
var errOver = errors.New("over")

// relay is one session under way: a goroutine for each direction.
type relay struct {
	client     net.Conn
	server     *upstream.Conn
	sess       *database.Session
	visit      *database.Visit
	ask        *request
	cancelling atomic.Bool

	books   books
	news    outcomes
	room    chan struct{} // rung, at most once ahead, when the server has answered something
	stopped chan struct{} // closed by stop
	ending  ending
}

// outcomes are what is to go on record, gathered by who carries the server's answers alone.
type outcomes struct {
	ctx  context.Context // by which it is written, over or not
	list []wire.Outcome
	add  func(wire.Outcome)
}

// books are the ledger and what it is to say.
type books struct {
	sync.Mutex
	ledger wire.Ledger
}

// ending is why the session ends, and until when either side may take something.
type ending struct {
	sync.Mutex
	why    error
	client time.Time // the write deadlines that are set
	server time.Time
	cut    bool        // the client is in the midst of a message
	told   atomic.Bool // the server has said a last word, or the client has
}

// run carries both directions until the session is over, and returns why where it was ended.
func (r *relay) run() error {
	ctx := r.sess.Context()
	r.news.ctx = context.WithoutCancel(ctx)
	r.news.add = func(o wire.Outcome) { r.news.list = append(r.news.list, o) }
	unhook := context.AfterFunc(ctx, func() { r.stop(context.Cause(ctx)) })
	defer unhook()
	var up sync.WaitGroup
	up.Go(func() { r.stop(r.toServer()) })
	r.stop(r.toClient())
	up.Wait()
	return r.finish()
}

// stop ends both directions; the first reason stands.
func (r *relay) stop(why error) {
	r.ending.Lock()
	defer r.ending.Unlock()
	if r.ending.why != nil {
		return
	}
	r.ending.why = why
	close(r.stopped)
	soon := time.Now().Add(lastWait / 2)
	_ = r.client.SetReadDeadline(time.Unix(1, 0)) // a connection that is over says so itself
	_ = r.server.SetReadDeadline(time.Unix(1, 0))
	_ = r.client.SetWriteDeadline(soon)
	_ = r.server.SetWriteDeadline(soon)
}

// finish tells the client why, and records what has no outcome.
func (r *relay) finish() error {
	why := r.ending.why
	f := fault.Of(why)
	ended := !errors.Is(why, errOver)
	told := ended && !r.ending.cut
	if told {
		_ = r.client.SetDeadline(time.Now().Add(lastWait))
		_, _ = r.client.Write(fatal(why, false).Append(nil)) // nobody is left to tell
	} else {
		r.client.Close()
	}
	r.server.Close()
	text := "the client went away before it was answered"
	if ended {
		text = "the session ended before it was answered: " + f.Text
	}
	r.books.Lock()
	under := !r.books.ledger.Idle()
	var rest []wire.Outcome
	r.books.ledger.Abandon(text, func(o wire.Outcome) { rest = append(rest, o) })
	r.books.Unlock()
	_ = r.record(rest) // the session is over either way
	if ended && under && f.Reason != lostReason {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.sess.Context()), cancelWait)
		defer cancel()
		_ = r.server.Cancel(ctx, r.visit, r.ask.user) // it ends with its connection at the latest
	}
	if told {
		linger(r.client)
	}
	if !ended {
		return nil
	}
	return why
}

// linger takes what a client still sends, so that it comes to read why it need not: closed with bytes unread, a
// connection is reset, and what was said last is lost.
func linger(client net.Conn) {
	if c, ok := client.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // it is closed next
	}
	_, _ = io.Copy(io.Discard, client)
	client.Close()
}

func (r *relay) record(all []wire.Outcome) error {
	for _, o := range all {
		err := r.sess.Record(r.news.ctx, database.Statement{DBName: r.ask.database, Query: o.Query,
			Parameters: o.Parameters, Failed: o.Failed, Message: o.Message})
		if err != nil {
			return err
		}
	}
	return nil
}

// write writes to one side, which has stallWait to take it. The deadline is moved now and then, not at each write.
func (r *relay) write(to net.Conn, at *time.Time, b []byte) error {
	if len(b) == 0 {
		return nil
	}
	now := time.Now()
	r.ending.Lock()
	if r.ending.why == nil && at.Sub(now) < stallWait/2 {
		*at = now.Add(stallWait)
		if err := to.SetWriteDeadline(*at); err != nil {
			r.ending.Unlock()
			return err
		}
	}
	r.ending.Unlock()
	_, err := to.Write(b)
	return err
}

// toServer carries what the client sends.
func (r *relay) toServer() error {
	in := newInbox(r.client)
	defer in.release()
	for need := wire.HeadSize; ; {
		if err := in.read(need); err != nil {
			return errOver // the client is gone, or the session is over and stop knows why
		}
		var err error
		if need, err = r.forward(in); err != nil {
			return err
		}
	}
}

// clientSizes are how long a client's message may be to be waited for, and how much of a longer one is enough to go on.
func clientSizes(kind byte) (most, enough int) {
	switch kind {
	case 'Q', 'P':
		return maxStatement, -1
	case 'B', 'F':
		return 2 * streamSize, 2 * streamSize
	case 'd':
		return 0, wire.HeadSize
	case 'E', 'D', 'C', 'f':
		return 2 * streamSize, -1
	}
	return wire.HeadSize, -1
}

// forward passes on what is there, in one write where nothing is in its way.
func (r *relay) forward(in *inbox) (need int, err error) {
	r.sess.Touch()
	begin := in.from
	in.passing()
	for in.skip == 0 {
		at := in.from
		m, n, err := in.next(clientSizes)
		if err != nil {
			return 0, r.tooLong(in, err)
		}
		if n > 0 {
			need = n
			break
		}
		instead, err := r.sent(m, func() error {
			err := r.toUpstream(in.buf[begin:at])
			begin = at
			return err
		})
		if err != nil {
			return 0, err
		}
		if instead != nil {
			if err := r.toUpstream(append(in.buf[begin:at:at], instead...)); err != nil {
				return 0, err
			}
			begin = in.from
		}
		if m.kind == 'X' {
			r.ending.told.Store(true)               // that the server goes now is no news
			_ = r.toUpstream(in.buf[begin:in.from]) // it ends either way
			return 0, errOver
		}
	}
	return need, r.toUpstream(in.buf[begin:in.from])
}

func (r *relay) tooLong(in *inbox, err error) error {
	if k := in.buf[in.from]; k == 'Q' || k == 'P' {
		return fault.New(fault.Exhausted, "a statement longer than %d MiB is refused", maxStatement>>20).WithReason("statement_too_long").
			WithCause("its text is read before it runs").WithFix("use parameters or COPY")
	}
	return violation(err)
}

func violation(err error) error {
	return fault.New(fault.Invalid, "the client broke the protocol").WithReason("protocol_violation").WithCause("%s", fault.Plain(err.Error()))
}

func (r *relay) toUpstream(b []byte) error {
	if err := r.write(r.server, &r.ending.server, b); err != nil {
		return r.lost(err)
	}
	return nil
}

// sent enters a message in the ledger; flush passes on what is before it, where it has to wait. instead is what goes to
// the server in its place.
func (r *relay) sent(m message, flush func() error) (instead []byte, err error) {
	kind := m.kind
	switch kind {
	case 'd', 'H', 'X':
		return nil, nil
	case 'f':
		kind = 'c'
	}
	r.books.Lock()
	defer r.books.Unlock()
	if err := r.waitForRoom(flush); err != nil {
		return nil, err
	}
	refused, err := r.books.ledger.Sent(kind, m.body, r.refuse)
	if err != nil {
		return nil, violation(err)
	}
	if refused {
		return wire.Failing(nil, kind, m.body), nil
	}
	return nil, nil
}

// waitForRoom waits, with the books open, while too much waits for the server. A Flush asks it to say what it has.
func (r *relay) waitForRoom(flush func() error) error {
	l := &r.books.ledger
	asked := false
	for l.Full() {
		var skipped []wire.Outcome
		if l.Skip(func(o wire.Outcome) { skipped = append(skipped, o) }) {
			if err := r.record(skipped); err != nil {
				return err
			}
			continue
		}
		r.books.Unlock()
		err := r.askForRoom(flush, !asked)
		r.books.Lock()
		if err != nil {
			return err
		}
		asked = true
	}
	return nil
}

func (r *relay) askForRoom(flush func() error, ask bool) error {
	if ask {
		if err := flush(); err != nil {
			return err
		}
		if err := r.toUpstream(wire.AppendMessage(nil, 'H')); err != nil {
			return err
		}
	}
	late := time.NewTimer(stallWait)
	defer late.Stop()
	select {
	case <-r.room:
		return nil
	case <-r.stopped:
		return errOver
	case <-late.C:
		return fault.New(fault.Exhausted, "the server has not answered for too long").WithReason("server_stalled")
	}
}

// refuse says no to what would make the session another user's: the roles were asked about this one.
func (r *relay) refuse(kind byte, t *sql.Text) *wire.Refusal {
	e := wire.Error{Severity: "ERROR", Code: "42501"}
	switch {
	case t.Becomes:
		e.Message = "SET SESSION AUTHORIZATION is refused through Sallyport"
		e.Detail = "roles let this login in as database user \"" + r.ask.user + "\" alone"
		e.Hint = "connect as the other user: tsh db connect --db-user=NAME"
	case kind == 'P' && r.books.ledger.Crowded():
		e.Code, e.Message, e.Hint = "53400", "too many prepared statements are held", "close some"
	default:
		return nil
	}
	return &wire.Refusal{Message: e.Append(nil), Why: "refused: " + e.Message}
}

// toClient carries what the server answers.
func (r *relay) toClient() error {
	in := newInbox(r.server)
	defer in.release()
	for need := wire.HeadSize; ; {
		if err := in.read(need); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && in.skip > 0 && r.complete(in) {
				return errOver
			}
			r.ending.cut = in.skip > 0
			return r.lost(err)
		}
		var err error
		if need, err = r.answer(in); err != nil {
			r.ending.cut = r.ending.cut || in.skip > 0
			return err
		}
	}
}

// complete passes on, in what time is left, the rest of a message that the client has the beginning of.
func (r *relay) complete(in *inbox) bool {
	_ = r.server.SetReadDeadline(time.Now().Add(lastWait / 2))
	for in.skip > 0 {
		if in.read(1) != nil {
			return false
		}
		if _, err := r.client.Write(in.passing()); err != nil {
			return false
		}
	}
	return true
}

// lost is that the server went away; where it said why itself the client knows.
func (r *relay) lost(err error) error {
	if r.ending.told.Load() {
		return errOver
	}
	f := fault.New(fault.Unavailable, "the connection to the database server was lost").WithReason(lostReason).
		WithFix("connect again; whether what was under way took effect is not known")
	if errors.Is(err, io.EOF) {
		return f
	}
	return f.Wrapping(err)
}

// serverSizes: a message is waited for, so that the client is told of an end between two; longer ones pass piece by piece.
func serverSizes(byte) (most, enough int) { return streamSize, streamSize }

// answer passes on what is there, with its statements on record before.
func (r *relay) answer(in *inbox) (need int, err error) {
	begin, midst := in.from, in.skip > 0
	in.passing()
	var out []byte // what is not passed on as it came
	clear(r.news.list)
	r.news.list = r.news.list[:0]
	record := r.news.add
	r.books.Lock()
	for in.skip == 0 && err == nil {
		at := in.from
		m, n, bad := in.next(serverSizes)
		if bad != nil {
			err = r.serverBroke(bad)
			break
		}
		if n > 0 {
			need = n
			break
		}
		var instead []byte
		if instead, err = r.answered(m, record); instead != nil {
			out = append(append(out, in.buf[begin:at]...), instead...)
			begin = in.from
		}
		if err != nil { // what belongs to it is not passed on
			in.from, in.skip = at, 0
		}
	}
	r.books.ledger.Begun(record)
	r.books.Unlock()
	select {
	case r.room <- struct{}{}:
	default:
	}
	if failed := r.record(r.news.list); failed != nil {
		r.ending.cut, in.skip = midst, 0
		return 0, failed
	}
	b := in.buf[begin:in.from]
	if out != nil {
		b = append(out, b...)
	}
	if failed := r.write(r.client, &r.ending.client, b); failed != nil {
		r.ending.cut = true
		return 0, errOver
	}
	return need, err
}

func (r *relay) serverBroke(err error) error {
	return fault.New(fault.Unavailable, "the database server broke the protocol").WithReason("server_violation").
		WithCause("%s", fault.Plain(err.Error()))
}

// answered looks at one message of the server's.
func (r *relay) answered(m message, record func(wire.Outcome)) (instead []byte, err error) {
	switch m.kind {
	case 'S':
		name, value, _ := wire.Parameter(m.body)
		if name == "session_authorization" && value != r.ask.user {
			return nil, fault.New(fault.Denied, "the session became database user %q", fault.Plain(value)).WithReason("session_authorization").
				WithCause("roles let this login in as %q alone", r.ask.user).WithFix("connect as the other user: tsh db connect --db-user=NAME")
		}
	case 'E':
		if e := wire.ParseError(m.body); e.Severity == "FATAL" || e.Severity == "PANIC" {
			r.ending.told.Store(true)
		}
	}
	instead, err = r.books.ledger.Answer(m.kind, m.body, record)
	if err != nil {
		return nil, r.serverBroke(err)
	}
	return instead, nil
}
