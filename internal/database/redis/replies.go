package redis

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/fault"
)

// replies is what goes back to the client: the server's replies, and the door's own in their turn.
type replies struct {
	client net.Conn

	mu     sync.Mutex
	more   *sync.Cond     // news for who waits
	ledger wire.Ledger    // guarded by mu, as all below
	news   []wire.Failure // that are not on record yet
	torn   bool           // part of a reply has gone to the client
	raw    bool           // what comes is no longer replies
	broken error          // nothing more comes
	up     *upstream
}

func newReplies(client net.Conn) *replies {
	r := &replies{client: client}
	r.more = sync.NewCond(&r.mu)
	return r
}

// expect takes commands whose replies will come; it waits while too many are open.
func (r *replies) expect(entries []wire.Entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.roomLocked(); err != nil {
		return err
	}
	r.ledger.Sent(entries...)
	return nil
}

func (r *replies) roomLocked() error {
	for r.broken == nil && r.ledger.Full() {
		r.more.Wait()
	}
	return r.broken
}

// local sends a reply of the door's own, once those before it have gone.
func (r *replies) local(reply []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.roomLocked(); err != nil {
		return err
	}
	if !r.ledger.Idle() {
		r.ledger.Sent(wire.Entry{Local: reply})
		return nil
	}
	return r.writeLocked(reply)
}

func (r *replies) writeLocked(b []byte) error {
	if _, err := r.client.Write(b); err != nil {
		r.torn = true
		return errGone
	}
	return nil
}

// speaks says which protocol the replies are in.
func (r *replies) speaks(resp3 bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Speaks(resp3)
}

// drain waits until every command so far has its reply.
func (r *replies) drain() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for !r.ledger.Idle() && r.broken == nil {
		r.more.Wait()
	}
	return r.broken
}

// passRaw ends the reading of replies: what comes from now on goes on as it is.
func (r *replies) passRaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.raw = true
}

func (r *replies) farewell(b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.torn && r.writeLocked(b) == nil {
		linger(r.client)
	}
}

// linger lets a client read its error: what it sent meanwhile, left unread, would reset the connection.
func linger(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		half.CloseWrite()
	}
	c.SetReadDeadline(time.Now().Add(partingTime))
	buf := make([]byte, 4096)
	for n := 0; n < 1<<20; {
		k, err := c.Read(buf)
		if err != nil {
			return
		}
		n += k
	}
}

// renew is that another connection to the server takes the place of the one before; it gives what was not run for it.
func (r *replies) renew() []wire.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Renew(r.note)
	return r.takeLocked()
}

// left is what was sent and not answered.
func (r *replies) left() []wire.Failure {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ledger.Abandon(r.note)
	return r.takeLocked()
}

// note keeps a failure until it is recorded: with those before it that failed for the same reason, one a line.
func (r *replies) note(f wire.Failure) {
	if n := len(r.news); n > 0 {
		if last := &r.news[n-1]; last.Message == f.Message && last.DB == f.DB && len(last.Text)+len(f.Text) < wire.MaxFailure {
			last.Text += "\n" + f.Text
			return
		}
	}
	r.news = append(r.news, f)
}

func (r *replies) takeLocked() []wire.Failure {
	all := r.news
	r.news = nil
	return all
}

func (r *replies) lost() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

func (r *replies) cut() {
	r.mu.Lock()
	up := r.up
	r.mu.Unlock()
	if up != nil {
		up.raw.SetDeadline(time.Now())
	}
}

// relay passes on what the server sends until it ends; failed records failures, before the client hears of them.
func (r *replies) relay(from net.Conn, failed func(wire.Failure) error) error {
	buf, have := make([]byte, bufferSize), 0
	var reply wire.Reply
	for {
		n, err := from.Read(buf[have:])
		if n == 0 && err != nil {
			return err
		}
		have += n
		taken, err := r.take(buf[:have], &reply, failed)
		if err != nil {
			return err
		}
		have = copy(buf, buf[taken:have])
		if have == len(buf) {
			if have > 2*wire.MaxLine {
				return fmt.Errorf("%w: a line without end", wire.ErrMalformed)
			}
			buf = append(buf, make([]byte, len(buf))...)
		} else if have == 0 && len(buf) > bufferSize {
			buf = make([]byte, bufferSize)
		}
	}
}

// take passes on what it can of b, with the door's own replies in their places, and reports how much that is.
func (r *replies) take(b []byte, reply *wire.Reply, failed func(wire.Failure) error) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.raw {
		return len(b), r.writeLocked(b)
	}
	var out []byte // nil as long as b itself will do
	from, taken := 0, 0
	var broken error
	for taken < len(b) && broken == nil {
		before := taken
		n, done, err := reply.Next(b[taken:])
		if err == nil {
			err = r.ledger.Answer(reply, done, r.note)
		}
		if broken = err; err != nil { // the replies before this one are good
			break
		}
		taken = before + n
		r.torn = !done && (n > 0 || r.torn)
		if !done {
			break
		}
		reply.Reset()
		for own, has := r.ledger.Local(); has; own, has = r.ledger.Local() {
			out = append(append(out, b[from:taken]...), own...)
			from = taken
		}
	}
	for _, f := range r.takeLocked() {
		if err := failed(f); err != nil {
			return taken, errors.Join(broken, err)
		}
	}
	if out != nil {
		out = append(out, b[from:taken]...)
	} else {
		out = b[:taken]
	}
	r.more.Broadcast()
	if len(out) == 0 {
		return taken, broken
	}
	return taken, errors.Join(broken, r.writeLocked(out))
}

// breakOff is that nothing more comes, and why.
func (r *replies) breakOff(err error) {
	var f *fault.Error
	var own wire.ServerError
	if !errors.As(err, &f) && !errors.As(err, &own) && !errors.Is(err, errGone) {
		err = errLost.Wrapping(err)
	}
	r.mu.Lock()
	r.broken = err
	r.more.Broadcast()
	r.mu.Unlock()
	r.client.SetReadDeadline(time.Now())
}
