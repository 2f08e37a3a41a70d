package node

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
)

// What one connection may have.
const (
	maxChannels  = 64
	maxListeners = 16
	maxDenials   = 32 // then the connection is closed: each one is written to the audit log
)

const (
	tellTime       = 500 * time.Millisecond // for a cut connection to take the reason
	refusalTime    = 10 * time.Second       // for a refused one to ask for something
	lingerTime     = 2 * time.Second        // for a refused one to read why
	keepaliveEvery = 30 * time.Second
	keepaliveWait  = 60 * time.Second
)

// cutRequest is the global request that brings the cause of an end to a client without an open session.
const cutRequest = "cut@sallyport"

// refuse answers everything that a refused connection asks for with the refusal, until the client has had the time to
// read it.
func refuse(ctx context.Context, a *authenticated, why error) {
	go ssh.DiscardRequests(a.requests)
	limit := time.After(refusalTime)
	told := false
	for {
		select {
		case ch, ok := <-a.channels:
			if !ok {
				return
			}
			_ = ch.Reject(ssh.Prohibited, fault.Of(why).Lines())
			if !told {
				told, limit = true, time.After(lingerTime)
			}
		case <-limit:
			return
		case <-ctx.Done():
			return
		}
	}
}

// connection is an admitted one.
type connection struct {
	node    *Node
	ssh     *ssh.ServerConn
	session *gate.Session
	ctx     context.Context // ends with the session, or with the connection
	cancel  context.CancelFunc
	slots   chan struct{} // one for each channel that is open
	running sync.WaitGroup

	mu       sync.Mutex
	sessions map[*sessionChannel]struct{} // guarded by mu
	forwards forwards                     // guarded by mu
	counts   counts                       // guarded by mu
	noMore   bool                         // guarded by mu: the client promised to open no session any more
}

// counts are how many attempts were denied, and how many recordings begun.
type counts struct{ denials, recorded int }

func newConnection(n *Node, a *authenticated, s *gate.Session) *connection {
	c := &connection{node: n, ssh: a.conn, session: s, slots: make(chan struct{}, maxChannels),
		sessions: map[*sessionChannel]struct{}{}, forwards: forwards{listeners: map[string]*remoteForward{}}}
	c.ctx, c.cancel = context.WithCancel(s.Context())
	for r := range rights {
		c.newLease(r)
	}
	return c
}

// serve carries the connection to its end.
func (c *connection) serve(channels <-chan ssh.NewChannel, requests <-chan *ssh.Request) {
	cut := make(chan struct{})
	stop := context.AfterFunc(c.session.Context(), func() {
		defer close(cut)
		c.cut(context.Cause(c.session.Context()))
	})
	c.running.Go(func() { c.global(requests) })
	c.running.Go(c.keepalive)
	c.running.Go(c.watchLimits)
	for ch := range channels {
		select {
		case c.slots <- struct{}{}:
			c.running.Go(func() {
				defer func() { <-c.slots }()
				c.open(ch)
			})
		default:
			_ = ch.Reject(ssh.ResourceShortage, "too many channels on this connection")
		}
	}
	c.cancel()
	c.closeListeners()
	c.running.Wait()
	if !stop() {
		<-cut
	}
	c.session.End(nil)
}

func (c *connection) open(ch ssh.NewChannel) {
	switch ch.ChannelType() {
	case "session":
		c.openSession(ch)
	case "direct-tcpip":
		c.directTCPIP(ch)
	case "direct-streamlocal@openssh.com":
		c.reject(ch, "forwarding to unix sockets is not offered: this node cannot hold the login's permissions there")
	case "x11":
		c.reject(ch, "X11 forwarding is not offered")
	default:
		_ = ch.Reject(ssh.UnknownChannelType, "unknown channel type")
	}
}

// reject refuses a channel for want of a right.
func (c *connection) reject(ch ssh.NewChannel, text string) {
	c.denied(text, nil)
	_ = ch.Reject(ssh.Prohibited, text)
}

// denied records that something was asked for without the right to it.
func (c *connection) denied(text string, what *event.Action) {
	c.mu.Lock()
	c.counts.denials++
	over := c.counts.denials > maxDenials
	c.mu.Unlock()
	if over {
		c.ssh.Close()
		return
	}
	ev := event.Event{Kind: event.Auth, Message: text, Action: what, Session: &event.Session{Protocol: "ssh", Reason: "not_granted"}}
	if err := c.session.Record(c.ctx, ev); err != nil {
		c.node.Log.Error("ssh: a denial could not be recorded", "sid", c.session.ID(), "err", err)
	}
}

// cut ends everything and says why.
func (c *connection) cut(cause error) {
	lines := causeLines(cause)
	c.closeListeners()
	c.mu.Lock()
	open := make([]*sessionChannel, 0, len(c.sessions))
	for s := range c.sessions {
		open = append(open, s)
	}
	c.mu.Unlock()
	var told sync.WaitGroup
	for _, s := range open {
		told.Go(func() { s.cut(lines) })
	}
	told.Go(func() { _, _, _ = c.ssh.SendRequest(cutRequest, false, []byte(lines)) })
	// The client hangs up once it has read this; who does not is closed on, and the writes above then return.
	timer := time.AfterFunc(tellTime, func() { c.ssh.Close() })
	defer timer.Stop()
	told.Wait()
	_ = c.ssh.Wait()
}

// causeLines are the words for the end of a session.
func causeLines(cause error) string {
	var f *fault.Error
	if !errors.As(cause, &f) {
		return "the agent is stopping"
	}
	return f.Lines()
}

// keepalive finds clients that are gone without a word.
func (c *connection) keepalive() {
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-time.After(keepaliveEvery):
		}
		answered := make(chan struct{})
		go func() {
			defer close(answered)
			_, _, _ = c.ssh.SendRequest("keepalive@openssh.com", true, nil)
		}()
		select {
		case <-answered:
		case <-c.ctx.Done():
			return
		case <-time.After(keepaliveWait):
			c.ssh.Close()
			return
		}
	}
}

// global answers global requests (RFC 4254 section 4) until the connection ends.
func (c *connection) global(requests <-chan *ssh.Request) {
	for r := range requests {
		switch r.Type {
		case "keepalive@openssh.com":
			_ = r.Reply(true, nil)
		case "no-more-sessions@openssh.com":
			c.mu.Lock()
			c.noMore = true
			c.mu.Unlock()
			_ = r.Reply(true, nil)
		case "tcpip-forward":
			ok, payload := c.listen(r.Payload)
			_ = r.Reply(ok, payload)
		case "cancel-tcpip-forward":
			_ = r.Reply(c.unlisten(r.Payload), nil)
		case "streamlocal-forward@openssh.com":
			c.denied("forwarding of unix sockets is not offered", nil)
			_ = r.Reply(false, nil)
		default:
			_ = r.Reply(false, nil)
		}
	}
}

// crlf ends lines as a raw terminal wants them.
func crlf(s string) string { return "\r\n" + strings.ReplaceAll(s, "\n", "\r\n") + "\r\n" }
