package redis

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	wire "github.com/sallyport/sallyport/internal/dbwire/redis"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of commands that were sent and not answered: then no more are taken until some are.
const (
	maxOpen     = 1 << 16
	maxOpenText = 4 << 20
	maxRoom     = 64 // commands for which room is kept
)

// entry is a command that awaits its reply.
type entry struct {
	text   string
	db     int
	secret bool   // the error may cite what text does not show
	acks   int    // of SUBSCRIBE and its like: how many acknowledgements come in place of a reply; -1: as many as there are
	ack    string // their word
	local  []byte // the door's own reply
	failed *bool  // set to whether the server's reply is an error
}

// replies is what goes back to the client: the server's replies, and the door's own in their turn.
type replies struct {
	client net.Conn

	mu     sync.Mutex
	more   *sync.Cond // news for who waits
	queue  []entry    // guarded by mu, as all below
	room   []entry    // of no length: where an empty queue begins again
	text   int        // bytes of the queue's texts
	subs   int        // channels and patterns that the client is subscribed to
	resp3  bool       // what was published has a kind of its own
	torn   bool       // part of a reply has gone to the client
	raw    bool       // what comes is no longer replies
	broken error      // nothing more comes
	up     *upstream
}

func newReplies(client net.Conn) *replies {
	r := &replies{client: client}
	r.more = sync.NewCond(&r.mu)
	return r
}

// expect takes commands whose replies will come; it waits while too many are open.
func (r *replies) expect(entries []entry) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.broken == nil && (len(r.queue) > maxOpen || r.text > maxOpenText) {
		r.more.Wait()
	}
	if r.broken != nil {
		return r.broken
	}
	for i := range entries {
		r.text += len(entries[i].text)
	}
	if len(r.queue) == 0 && cap(r.room) < len(entries) && len(entries) <= maxRoom {
		r.room = make([]entry, 0, 2*len(entries))
		r.queue = r.room
	}
	r.queue = append(r.queue, entries...)
	return nil
}

// local sends a reply of the door's own, once those before it have gone.
func (r *replies) local(reply []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.broken == nil && (len(r.queue) > maxOpen || r.text > maxOpenText) {
		r.more.Wait()
	}
	if r.broken != nil {
		return r.broken
	}
	if len(r.queue) > 0 {
		r.queue = append(r.queue, entry{local: reply})
		r.text += len(reply)
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
	r.resp3 = resp3
}

// drain waits until every command so far has its reply.
func (r *replies) drain() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.queue) > 0 && r.broken == nil {
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

// left are the commands that were sent and not answered, one a line.
func (r *replies) left() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, e := range r.queue {
		if e.text == "" {
			continue
		}
		if b.Len()+len(e.text) > maxEventText {
			b.WriteString("…")
			break
		}
		b.WriteString(e.text + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
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

// failure is a command that the server answered with an error.
type failure struct {
	text, message string
	db            int
}

// relay passes on what the server sends until it ends; failed records failures, before the client hears of them.
func (r *replies) relay(from net.Conn, failed func(failure) error) error {
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
func (r *replies) take(b []byte, reply *wire.Reply, failed func(failure) error) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.raw {
		return len(b), r.writeLocked(b)
	}
	var out []byte // nil as long as b itself will do
	from, taken := 0, 0
	for taken < len(b) {
		before := taken
		n, done, err := reply.Next(b[taken:])
		taken += n
		if err != nil {
			return taken, err
		}
		r.torn = !done && (n > 0 || r.torn)
		if !done {
			break
		}
		f, err := r.matchLocked(reply)
		if err == nil && f != nil {
			err = failed(*f)
		}
		if err != nil { // the replies before this one are good
			return taken, errors.Join(err, r.writeLocked(append(out, b[from:max(from, before)]...)))
		}
		reply.Reset()
		for len(r.queue) > 0 && r.queue[0].local != nil {
			out = append(append(out, b[from:taken]...), r.queue[0].local...)
			from = taken
			r.popLocked()
		}
	}
	if out != nil {
		out = append(out, b[from:taken]...)
	} else {
		out = b[:taken]
	}
	r.more.Broadcast()
	if len(out) == 0 {
		return taken, nil
	}
	return taken, r.writeLocked(out)
}

func (r *replies) popLocked() {
	r.text -= len(r.queue[0].text) + len(r.queue[0].local)
	r.queue[0] = entry{}
	if r.queue = r.queue[1:]; len(r.queue) == 0 {
		r.queue = r.room
	}
}

// published are the words of what subscribers are sent.
var published = map[string]bool{"message": true, "pmessage": true, "smessage": true, "subscribe": true, "psubscribe": true,
	"ssubscribe": true, "unsubscribe": true, "punsubscribe": true, "sunsubscribe": true}

// matchLocked finds the command that a reply is to, and reports a failure.
func (r *replies) matchLocked(reply *wire.Reply) (*failure, error) {
	if reply.Kind == '>' || reply.Kind == '*' {
		word := string(reply.Text)
		if len(r.queue) > 0 && r.queue[0].ack == word && word != "" {
			r.subs = reply.Count
			if r.queue[0].acks--; r.queue[0].acks <= 0 {
				r.popLocked()
			}
			return nil, nil
		}
		if reply.Kind == '>' || !r.resp3 && r.subs > 0 && published[word] {
			if strings.HasSuffix(word, "unsubscribe") {
				r.subs = reply.Count
			}
			return nil, nil
		}
	}
	if len(r.queue) == 0 {
		if reply.Kind == '-' { // a server that ends the connection says so
			return nil, serverError(reply.Text)
		}
		return nil, fmt.Errorf("%w: a reply to nothing", wire.ErrMalformed)
	}
	e := r.queue[0]
	r.popLocked()
	if e.failed != nil {
		*e.failed = reply.Kind == '-' || reply.Kind == '+' && string(reply.Text) == "QUEUED" // not done, or not yet
	}
	if reply.Kind != '-' || e.text == "" {
		return nil, nil
	}
	f := &failure{e.text, strings.ToValidUTF8(string(reply.Text), "�"), e.db}
	if e.secret {
		f.message = "it failed; the error is left out, for it may cite a secret"
	}
	return f, nil
}

// breakOff is that nothing more comes, and why.
func (r *replies) breakOff(err error) {
	var f *fault.Error
	var own serverError
	if !errors.As(err, &f) && !errors.As(err, &own) && !errors.Is(err, errGone) {
		err = errLost.Wrapping(err)
	}
	r.mu.Lock()
	r.broken = err
	r.more.Broadcast()
	r.mu.Unlock()
	r.client.SetReadDeadline(time.Now())
}

// serverError is an error of the server's that is not the reply to a command.
type serverError string

func (e serverError) Error() string { return string(e) }
