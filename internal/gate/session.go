package gate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Session is one admitted request, alive until its context ends.
type Session struct {
	gate     *Gate
	id       string
	ctx      context.Context
	cancel   context.CancelCauseFunc
	admitted time.Time
	active   atomic.Int64 // when something last went through, in Unix nanoseconds

	mu       sync.Mutex
	request  Request         // guarded by mu: its identity can be replaced
	decision access.Decision // guarded by mu
	decided  bool            // guarded by mu
}

// ID is the session's UUID.
func (s *Session) ID() string { return s.id }

// Context ends when the session must; context.Cause then is a fault that says why.
func (s *Session) Context() context.Context { return s.ctx }

// Identity is whose session it is, as of now.
func (s *Session) Identity() *identity.User {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request.Identity
}

// Limits are what the session must keep to, as of now.
func (s *Session) Limits() access.Limits { return s.Decision().Limits }

// Decision is the last one.
func (s *Session) Decision() access.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decision
}

// Touch says that the person did something.
func (s *Session) Touch() { s.active.Store(s.gate.now().UnixNano()) }

// Record writes an event of this session; what must not happen unrecorded waits for it.
func (s *Session) Record(ctx context.Context, ev event.Event) error {
	s.mu.Lock()
	shadow := &Session{gate: s.gate, id: s.id, request: s.request}
	s.mu.Unlock()
	if err := s.gate.recorder.Write(ctx, s.gate.event(shadow, ev)); err != nil {
		return s.gate.unrecorded(err)
	}
	return nil
}

// Replace gives the session a new identity of the same user, and decides again: a later login of theirs.
func (s *Session) Replace(u *identity.User) error {
	s.mu.Lock()
	if s.request.Identity == nil || u == nil || s.request.Identity.Name != u.Name {
		s.mu.Unlock()
		return fault.New(fault.Denied, "a session keeps its user")
	}
	s.request.Identity = u
	s.mu.Unlock()
	if _, err := s.gate.decide(s, LiveAge); err != nil {
		s.finish(fault.Of(err))
		return fault.Of(err)
	}
	return nil
}

// End takes the session off the gate and records its end; why may be nil. Call it once all that the session carried
// is over.
func (s *Session) End(kind event.Kind, why error) {
	s.gate.mu.Lock()
	_, live := s.gate.sessions[s.id]
	delete(s.gate.sessions, s.id)
	s.gate.mu.Unlock()
	cause := context.Cause(s.ctx)
	s.cancel(why)
	if !live {
		return
	}
	ev := event.Event{Kind: kind, Success: true, Session: &event.Session{Reason: "closed"}}
	if cause != nil {
		ev.Session.Reason, ev.Message = fault.Of(cause).Reason, fault.Of(cause).Text
	}
	// The session is over whether or not this can be written; the start is on record.
	ctx, done := context.WithTimeout(context.WithoutCancel(s.ctx), 10*time.Second)
	defer done()
	_ = s.Record(ctx, ev)
}

func (s *Session) finish(why error) { s.cancel(why) }

// ask is what to decide, and whether the session was decided before.
func (s *Session) ask() (Request, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request, s.decided
}

func (s *Session) setLimits(d access.Decision) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.decision, s.decided = d, true
}

// overdue is why time alone ends the session, or nil.
func (s *Session) overdue(now time.Time) error {
	l := s.Limits()
	if l.MaxTTL > 0 && now.Sub(s.admitted) > l.MaxTTL {
		return fault.New(fault.Denied, "the session has reached its longest time").WithReason("max_session_ttl").
			WithCause("a role sets max_session_ttl to %s", l.MaxTTL).WithFix("connect again")
	}
	idle := now.Sub(time.Unix(0, s.active.Load()))
	if l.IdleTimeout > 0 && idle > l.IdleTimeout {
		return fault.New(fault.Denied, "the session was idle for too long").WithReason("idle").
			WithCause("a role sets client_idle_timeout to %s", l.IdleTimeout).WithFix("connect again")
	}
	if u := s.Identity(); l.DisconnectExpiredCert && !now.Before(u.Validity.Expires) {
		return fault.New(fault.Denied, "the login has expired").WithReason("expired").
			WithCause("a role sets disconnect_expired_cert").WithFix("%s", fmt.Sprintf("tsh login --user=%s", u.Name))
	}
	return nil
}
