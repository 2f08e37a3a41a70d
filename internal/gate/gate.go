// Package gate is the one way through a door: it admits sessions, and ends them when they would not be admitted again.
package gate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// The ages that a picture may have.
const (
	AdmitAge = 30 * time.Second // older admits nobody to a strict role
	LiveAge  = 5 * time.Minute  // older ends the sessions of strict roles
)

// Pictures gives the current picture with its age, and a channel that is closed at the next change. snapshot.Mirror
// and feed.Feed do.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Changed() <-chan struct{}
}

// Recorder writes an audit event durably, or fails.
type Recorder interface {
	Write(ctx context.Context, ev event.Event) error
}

// Gate admits at one agent, for all of its doors.
type Gate struct {
	pictures Pictures
	recorder Recorder
	host     identity.Host
	now      func() time.Time

	mu       sync.Mutex
	sessions map[string]*Session // guarded by mu; by id
	closed   bool                // guarded by mu
}

// New makes a gate; Run must run for sessions to end in time.
func New(p Pictures, r Recorder, host identity.Host, now func() time.Time) *Gate {
	return &Gate{pictures: p, recorder: r, host: host, now: now, sessions: map[string]*Session{}}
}

// Request is what somebody with a verified certificate asks for.
type Request struct {
	Identity *identity.User
	Target   target.Target
	Action   target.Action
	// Start is the event that the admission is recorded as; gate fills in who, where and the session.
	Start event.Event
}

// Admit lets a request in or refuses it with a fault fit to print. Either is in the audit log before Admit returns;
// what cannot be recorded is refused. The session's context is a child of ctx and ends when the session must; the
// caller ends the session with End.
func (g *Gate) Admit(ctx context.Context, req Request) (*Session, error) {
	s := &Session{gate: g, id: uuid.NewString(), request: req, admitted: g.now()}
	s.active.Store(s.admitted.UnixNano())
	picture, err := g.decide(s, AdmitAge)
	if err != nil {
		return nil, g.refuse(ctx, s, err)
	}
	if err := g.recorder.Write(ctx, g.startEvent(s)); err != nil {
		return nil, g.unrecorded(err)
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	for {
		g.mu.Lock()
		current, _ := g.pictures.Current()
		if g.closed {
			g.mu.Unlock()
			s.cancel(nil)
			return nil, fault.New(fault.Unavailable, "this agent is stopping").WithReason("stopping")
		}
		if current == picture {
			g.sessions[s.id] = s
			g.mu.Unlock()
			return s, nil
		}
		g.mu.Unlock()
		// The picture changed while the event was being written: decide again, by the one that is current now.
		if picture, err = g.decide(s, AdmitAge); err != nil {
			s.cancel(err)
			return nil, g.refuse(ctx, s, err)
		}
	}
}

// decide asks access about a session as it is now; the error is a fault fit to print.
func (g *Gate) decide(s *Session, maxAge time.Duration) (*snapshot.Picture, error) {
	picture, age := g.pictures.Current()
	req, live := s.ask()
	now := g.now()
	if live && !s.Limits().DisconnectExpiredCert {
		open := *req.Identity
		open.Validity.Expires = now.Add(time.Hour)
		req.Identity = &open
	}
	d, in := picture.Decide(req.Identity, req.Target, req.Action, now)
	if !d.Allowed {
		f := access.Refusal(d, in)
		return picture, &refusal{fault: f, source: d.Source.Name}
	}
	if age > maxAge && d.Limits.Strict {
		return picture, stale(age)
	}
	s.setLimits(d)
	return picture, nil
}

// refusal is a refusal by access with the role, lock or setting behind it, for the audit log.
type refusal struct {
	fault  *fault.Error
	source string
}

func (r *refusal) Error() string { return r.fault.Error() }
func (r *refusal) Unwrap() error { return r.fault }

func stale(age time.Duration) error {
	f := fault.New(fault.Unavailable, "this agent has not heard from the auth server for too long").WithReason("stale_picture")
	if age != snapshot.Never {
		f = f.WithCause("its view of roles and locks is %s old", age.Truncate(time.Second))
	}
	return f.WithFix("try again; an administrator may look at the auth server: tctl status")
}

func (g *Gate) unrecorded(err error) error {
	return fault.New(fault.Unavailable, "the audit log cannot be written, so nothing is admitted").
		WithReason("audit_failed").Wrapping(err)
}

// refuse records a refused attempt and returns why.
func (g *Gate) refuse(ctx context.Context, s *Session, err error) error {
	ev := g.event(s, event.Event{Kind: event.Auth, Message: fault.Of(err).Text})
	ev.Session.Reason = fault.Of(err).Reason
	var r *refusal
	if errors.As(err, &r) {
		ev.Session.Source = r.source
	}
	if werr := g.recorder.Write(ctx, ev); werr != nil {
		return g.unrecorded(werr)
	}
	return fault.Of(err)
}

func (g *Gate) startEvent(s *Session) event.Event {
	ev := s.request.Start
	ev.Success = true
	ev = g.event(s, ev)
	ev.Session.Source = s.Decision().Source.Name
	return ev
}

// event fills in who, where and the session.
func (g *Gate) event(s *Session, ev event.Event) event.Event {
	req := s.request
	if u := req.Identity; u != nil {
		ev.User = u.Name
		if d := u.Device; d != nil {
			ev.Device = &event.Device{ID: d.ID, OSType: string(d.OS), AssetTag: d.AssetTag, CredentialID: d.CredentialID}
		}
	}
	session := event.Session{}
	if ev.Session != nil {
		session = *ev.Session
	}
	session.SessionID, session.ServerID, session.Login = s.id, g.host.ID, req.Action.Login
	session.ServerName = req.Target.Name
	if req.Action.From.IsValid() {
		session.Addr = req.Action.From.String()
	}
	ev.Session = &session
	return ev
}

// Run decides every live session again whenever the picture changes, and each second for what time does, until ctx
// ends; then it ends all sessions.
func (g *Gate) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := g.pictures.Changed()
		g.review()
		select {
		case <-changed:
		case <-tick.C:
		case <-ctx.Done():
			g.shut()
			return
		}
	}
}

func (g *Gate) review() {
	for _, s := range g.Sessions() {
		if err := s.overdue(g.now()); err != nil {
			s.finish(err)
			continue
		}
		if _, err := g.decide(s, LiveAge); err != nil {
			s.finish(fault.Of(err))
		}
	}
}

func (g *Gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, s := range g.Sessions() {
		s.finish(fault.New(fault.Unavailable, "the agent is stopping").WithReason("stopping"))
	}
}

// Sessions lists the live ones.
func (g *Gate) Sessions() []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Session, 0, len(g.sessions))
	for _, s := range g.sessions {
		out = append(out, s)
	}
	return out
}
