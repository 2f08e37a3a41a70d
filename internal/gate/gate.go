// Package gate is the one way through a door: it admits sessions, and ends them when they would not be admitted again.
package gate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
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

// appender is a Recorder that can also return once an event is written where the end of this process cannot lose it, and
// bring it to the disk within 50 ms. spool.Spool is one.
type appender interface {
	Append(ctx context.Context, ev event.Event) error
}

// Gate admits at one agent, for all of its doors.
type Gate struct {
	pictures Pictures
	recorder Recorder
	host     identity.Host
	now      func() time.Time

	mu        sync.Mutex
	index     index                 // guarded by mu: the live sessions
	reviewed  *snapshot.Picture     // guarded by mu: the picture that all of them but the unsettled were decided by
	unsettled map[*Session]struct{} // guarded by mu: those let in by another picture than reviewed
	closed    bool                  // guarded by mu
	news      news                  // guarded by mu, its bell apart
}

// New makes a gate; Run must run for sessions to end in time. now is the calendar, by which certificates end; how long a
// session lives and is idle is counted otherwise.
func New(p Pictures, r Recorder, host identity.Host, now func() time.Time) *Gate {
	return &Gate{pictures: p, recorder: r, host: host, now: now, index: newIndex(), reviewed: &snapshot.Picture{},
		unsettled: map[*Session]struct{}{}, news: newNews()}
}

// Request is what somebody with a verified certificate asks for.
type Request struct {
	Identity *identity.User
	Target   target.Target
	Action   target.Action
	// Start is the event that the admission is recorded as, End the kind of its end's, session.end where it is empty;
	// gate fills in who, where and the session. A Start without a kind leaves start and end off the record: the door then
	// records what was done, by Note, before anybody sees the outcome.
	Start event.Event
	End   event.Kind
}

// Admit lets a request in or refuses it with a fault fit to print. Either is in the audit log before Admit returns;
// what cannot be recorded is refused. The session's context is a child of ctx and ends when the session must; the
// caller ends the session with End.
func (g *Gate) Admit(ctx context.Context, req Request) (*Session, error) {
	s := g.newSession(req)
	picture, err := g.let(s)
	if err != nil {
		return nil, g.refuse(ctx, s, err)
	}
	if req.Start.Kind != "" {
		if err := g.recorder.Write(ctx, g.startEvent(s)); err != nil {
			return nil, g.unrecorded(err)
		}
	}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	for {
		done, err := g.enter(s, picture)
		if err != nil {
			s.cancel(err)
			s.over(err)
			return nil, err
		}
		if done {
			return s, nil
		}
		// The picture changed while the event was being written: decide again, by the one that is current now.
		if picture, err = g.let(s); err != nil {
			s.cancel(err)
			s.over(err)
			return nil, g.refuse(ctx, s, err)
		}
	}
}

// Refuse records that a request was refused before it could be asked about, because it could not be read for sure, and
// returns why, as Admit does.
func (g *Gate) Refuse(ctx context.Context, req Request, why *fault.Error) error {
	return g.refuse(ctx, g.newSession(req), why)
}

// let decides, by the current picture, whether a session may begin.
func (g *Gate) let(s *Session) (*snapshot.Picture, error) {
	picture, age := g.pictures.Current()
	v, err := g.judge(view{picture, age, picture.Settings.AdmitAge()}, s, false)
	if err == nil {
		s.take(v)
	}
	return picture, err
}

// enter takes a session among the live ones, unless the picture is no longer the one that let it in.
func (g *Gate) enter(s *Session, by *snapshot.Picture) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false, fault.New(fault.Unavailable, "this agent is stopping").WithReason("stopping")
	}
	current, age := g.pictures.Current()
	if current != by {
		return false, nil
	}
	if age > current.Settings.AdmitAge() && s.Limits().Strict { // recording took long
		return false, stale(age)
	}
	g.index.add(s, s.Identity())
	if by != g.reviewed {
		g.unsettled[s] = struct{}{}
	}
	g.news.add(s.id)
	return true, nil
}

// view is what to decide by: a picture, its age, and the age from which it is too old.
type view struct {
	picture *snapshot.Picture
	age     time.Duration
	oldest  time.Duration
}

// verdict is that a request is allowed, and as whom it goes on.
type verdict struct {
	who      *identity.User
	decision access.Decision
}

// judge asks access about a session; the error is a fault fit to print. A session that a later login of its user on its
// device continues must be allowed as what it was, its end apart, and as what it goes on as; a lock on the login that it
// was let in by ends it for ever after. live says that it was let in before: then the end of its certificate is for its
// limits to judge.
func (g *Gate) judge(by view, s *Session, live bool) (verdict, error) {
	if end := by.picture.Ended[s.id]; end != nil {
		return verdict{}, ended(end)
	}
	req := s.asked()
	if req.Identity != s.origin {
		was := req
		was.Identity = s.origin
		var r *refusal
		if _, err := g.ask(by, was, true); errors.As(err, &r) && r.fault.Reason == string(access.Locked) {
			return verdict{}, err
		}
	}
	v, err := g.ask(by, req, live)
	if err != nil {
		return v, err
	}
	if next := by.picture.Continues(v.who); next != nil {
		req.Identity = next
		return g.ask(by, req, true)
	}
	return v, nil
}

func (g *Gate) ask(by view, req Request, live bool) (verdict, error) {
	now := g.now()
	who := req.Identity
	if live && who != nil {
		open := *who
		open.Validity.Expires = now.Add(time.Hour)
		who = &open
	}
	d, in := by.picture.Decide(who, req.Target, req.Action, now)
	if !d.Allowed {
		return verdict{}, &refusal{fault: access.Refusal(d, in), source: d.Source.Name}
	}
	if by.age > by.oldest && d.Limits.Strict {
		return verdict{}, stale(by.age)
	}
	return verdict{req.Identity, d}, nil
}

// ended words an administrator's end of a session.
func ended(e *live.End) error {
	f := fault.New(fault.Denied, "the session was ended by %s", e.By).WithReason("ended")
	if e.Message != "" {
		f = f.WithCause("%s", fault.Plain(e.Message))
	}
	return f
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
	ev := g.event(s, event.Event{Kind: event.Auth, Message: fault.Of(err).Text, Action: s.asked().Start.Action, Resource: s.asked().Start.Resource})
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
	req := s.asked()
	var filled struct { // in one piece, for there are many
		session event.Session
		device  event.Device
	}
	if u := req.Identity; u != nil {
		ev.User = u.Name
		if d := u.Device; d != nil {
			filled.device = event.Device{ID: d.ID, OSType: string(d.OS), AssetTag: d.AssetTag, CredentialID: d.CredentialID}
			ev.Device = &filled.device
		}
	}
	session := &filled.session
	if ev.Session != nil {
		*session = *ev.Session
	} else if req.Start.Session != nil {
		session.Protocol = req.Start.Session.Protocol
	}
	session.SessionID, session.ServerID, session.Login = s.id, g.host.ID, req.Action.Login
	session.ServerName = req.Target.Name
	if s.addr != "" {
		session.Addr = s.addr
	}
	ev.Session = session
	return ev
}
