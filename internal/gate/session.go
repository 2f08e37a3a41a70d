package gate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Session is one admitted request, alive until its context ends.
type Session struct {
	gate   *Gate
	id     string
	ctx    context.Context
	cancel context.CancelCauseFunc
	times
	active atomic.Int64 // when something last went through, in nanoseconds after began

	addr   string         // from where, as text
	origin *identity.User // as whom it was let in, whatever it goes on as: what ends that ends it

	mu       sync.Mutex
	request  Request         // guarded by mu: its identity can be replaced by a later login; the rest stays, but for how what it was for ended
	decision access.Decision // guarded by mu
	door     door            // guarded by mu
}

// door is what a session's door wants to hear of.
type door struct {
	kept    map[string]func() error // its conditions, by name
	changed chan struct{}           // closed and replaced at each decision; nil before somebody asked
}

// times are when a session began.
type times struct {
	since time.Time // by the calendar
	began time.Time // by the process's own clock, which no step of the calendar moves
}

func (g *Gate) newSession(req Request) *Session {
	s := &Session{gate: g, id: uuid.NewString(), request: req, origin: req.Identity, times: times{g.now(), time.Now()}}
	if req.Action.From.IsValid() {
		s.addr = req.Action.From.String()
	}
	return s
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

// Action is what the session was let in for.
func (s *Session) Action() target.Action { return s.asked().Action }

// Limits are what the session must keep to, as of now.
func (s *Session) Limits() access.Limits { return s.Decision().Limits }

// Decision is the last one.
func (s *Session) Decision() access.Decision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.decision
}

// Touch says that the person did something.
func (s *Session) Touch() { s.active.Store(int64(time.Since(s.began))) }

// Changed is closed when the session was decided again: its limits may be others then, and what Filters and Shows say.
func (s *Session) Changed() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.door.changed == nil {
		s.door.changed = make(chan struct{})
	}
	return s.door.changed
}

// Record writes an event of this session; what must not happen unrecorded waits for it.
func (s *Session) Record(ctx context.Context, ev event.Event) error {
	if err := s.gate.recorder.Write(ctx, s.gate.event(s, ev)); err != nil {
		return s.gate.unrecorded(err)
	}
	return nil
}

// Note is Record for what many do often, statements and requests: it returns once the event is written, and leaves it
// to the recorder when, within 50 ms, the disk has it. A recorder that knows no difference writes it durably.
func (s *Session) Note(ctx context.Context, ev event.Event) error {
	a, ok := s.gate.recorder.(appender)
	if !ok {
		return s.Record(ctx, ev)
	}
	if err := a.Append(ctx, s.gate.event(s, ev)); err != nil {
		return s.gate.unrecorded(err)
	}
	return nil
}

// Filters reports whether the answer to what was admitted must be looked through, object by object; Shows whether an
// object of it is to be shown. Both go by the picture as it is now.
func (s *Session) Filters() bool {
	req := s.asked()
	if o := req.Action.Kube; o == nil || o.Name != "" {
		return false
	}
	picture, _ := s.gate.pictures.Current()
	_, in := picture.Decide(req.Identity, req.Target, req.Action, s.gate.now())
	return access.KubeFilters(in)
}

// Shows is of Filters.
func (s *Session) Shows(namespace, name string) bool {
	picture, _ := s.gate.pictures.Current()
	req := s.asked()
	if req.Action.Kube == nil {
		return false
	}
	object := *req.Action.Kube
	object.Namespace, object.Name = namespace, name
	req.Action.Kube = &object
	d, _ := picture.Decide(req.Identity, req.Target, req.Action, s.gate.now())
	return d.Allowed
}

// May reports whether what was let in would be allowed by another verb too.
func (s *Session) May(verb string) bool {
	picture, _ := s.gate.pictures.Current()
	req := s.asked()
	req.Action.Verb = verb
	d, _ := picture.Decide(req.Identity, req.Target, req.Action, s.gate.now())
	return d.Allowed
}

// Exited says with which status the command that the session was for ended; the record of its end has it.
func (s *Session) Exited(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := event.Action{}
	if s.request.Start.Action != nil {
		was = *s.request.Start.Action
	}
	was.ExitCode = &code
	s.request.Start.Action = &was
}

// Cut ends the session's context, for the reason that its door gives.
func (s *Session) Cut(why error) { s.finish(why) }

// End takes the session off the gate and records its end; why may be nil. Call it once all that the session carried
// is over.
func (s *Session) End(why error) {
	g := s.gate
	g.mu.Lock()
	was := g.index.remove(s, s.Identity())
	delete(g.unsettled, s)
	if was {
		g.news.end(s.id)
	}
	g.mu.Unlock()
	cause := context.Cause(s.ctx)
	s.cancel(why)
	if was {
		s.over(cause)
	}
}

// over records the end of a session whose start is on record.
func (s *Session) over(cause error) {
	kind := s.asked().End
	if kind == "" {
		kind = event.SessionEnd
	}
	start := s.asked().Start
	if start.Kind == "" {
		return
	}
	ev := event.Event{Kind: kind, Success: true, Session: &event.Session{Reason: "closed"}, Action: start.Action}
	if start.Session != nil {
		ev.Session.Protocol = start.Session.Protocol
	}
	if cause != nil {
		ev.Session.Reason, ev.Message = fault.Of(cause).Reason, fault.Of(cause).Text
	}
	// The session is over whether or not this can be written; the start is on record.
	ctx, done := context.WithTimeout(context.WithoutCancel(s.ctx), 10*time.Second)
	defer done()
	_ = s.Note(ctx, ev)
}

func (s *Session) finish(why error) { s.cancel(why) }

// asked is what to decide.
func (s *Session) asked() Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.request
}

// Keep ends the session with the error that a condition of its door's returns: it is asked now, and whenever the session was
// decided again. It must not block. A later one of the same name takes its place.
func (s *Session) Keep(name string, condition func() error) {
	s.mu.Lock()
	if s.door.kept == nil {
		s.door.kept = map[string]func() error{}
	}
	s.door.kept[name] = condition
	s.mu.Unlock()
	s.holds()
}

// holds asks the door's conditions.
func (s *Session) holds() {
	s.mu.Lock()
	kept := slices.Collect(maps.Values(s.door.kept))
	s.mu.Unlock()
	for _, condition := range kept {
		if err := condition(); err != nil {
			s.finish(err)
			return
		}
	}
}

// take gives the session what was decided.
func (s *Session) take(v verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.request.Identity, s.decision = v.who, v.decision
	if s.door.changed != nil {
		close(s.door.changed)
		s.door.changed = nil
	}
}

// overdue is why time alone ends the session, or nil.
func (s *Session) overdue(now time.Time) error {
	l := s.Limits()
	lived := time.Since(s.began)
	if l.MaxTTL > 0 && lived > l.MaxTTL {
		return fault.New(fault.Denied, "the session has reached its longest time").WithReason("max_session_ttl").
			WithCause("a role sets max_session_ttl to %s", l.MaxTTL).WithFix("connect again")
	}
	idle := lived - time.Duration(s.active.Load())
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
