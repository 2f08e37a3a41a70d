// Package census knows who is connected where right now, as the agents say, and ends sessions.
package census

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// Bounds.
const (
	maxPerHost = 20000     // sessions that one agent may say it carries; more are not listed
	maxSession = 48 << 10  // bytes of one session's JSON: a certificate's identity is 32 KiB at most
	maxTxn     = 512 << 10 // bytes of sessions written in one transaction
	perTxn     = 50        // operations of one transaction
	maxShown   = 1000      // sessions that a preview lists
	maxPage    = 4 << 20   // bytes of sessions that one answer lists
	maxMessage = 1 << 10   // bytes of an end's message
	shortestID = 8         // how much of an id names a session
)

// told is how long a session is listed after its agent told of it: agents tell of all of theirs every five minutes.
const told = 15 * time.Minute

// Pictures gives the current picture, and waits until it holds what was written.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
	Reached(ctx context.Context, revision uint64)
}

// Audit records an event together with what it tells of.
type Audit interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
}

// Service is the use case.
type Service struct {
	Records  *records.Records
	Store    store.Store
	Pictures Pictures
	Audit    Audit
	Now      func() time.Time

	mu    sync.Mutex
	count map[string]int // guarded by mu: how many sessions a host has told of since it told of all
}

// Report is what an agent says. A Complete one lists in IDs every session that it carries: what else was known of it is
// over. Changed are sessions as JSON.
type Report struct {
	Complete bool
	IDs      []string
	Changed  [][]byte
	Ended    []string
}

// Report writes down what an agent says of its sessions; it speaks for itself alone: a node's sessions are on that node.
// What does not fit is left out, and the error says so: what does is written all the same.
func (s *Service) Report(ctx context.Context, host identity.Host, r Report) error {
	if host.Role == identity.RoleProxy {
		return fault.New(fault.Denied, "a proxy carries no sessions").WithReason("bad_session")
	}
	ended := r.Ended
	if r.Complete {
		known, err := s.Records.SessionIDs(ctx, host.ID)
		if err != nil {
			return err
		}
		still := make(map[string]bool, len(r.IDs))
		for _, id := range r.IDs {
			still[id] = true
		}
		ended = slices.DeleteFunc(known, func(id string) bool { return still[id] })
	}
	var left error
	var ops []store.Op
	for _, id := range ended {
		if live.ValidID(id) {
			ops = append(ops, store.Delete(records.SessionKey(host.ID, id)))
		}
	}
	for _, raw := range r.Changed[:s.room(host.ID, r)] {
		l, err := s.read(host, raw)
		if err != nil {
			left = err
			continue
		}
		op, err := records.PutSession(l, s.Now().UTC().Add(told))
		if err != nil {
			return err
		}
		ops = append(ops, op)
	}
	return errors.Join(left, s.write(ctx, ops))
}

// room is how many of the sessions that a report changes are taken.
func (s *Service) room(host string, r Report) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == nil {
		s.count = map[string]int{}
	}
	if r.Complete {
		s.count[host] = 0
	}
	n := max(0, min(len(r.Changed), maxPerHost-s.count[host]))
	s.count[host] = max(0, s.count[host]+n-len(r.Ended))
	return n
}

// read takes one session as an agent tells it.
func (s *Service) read(host identity.Host, raw []byte) (live.Session, error) {
	var l live.Session
	if len(raw) > maxSession {
		return l, fault.New(fault.Invalid, "a session of %d bytes", len(raw)).WithReason("bad_session")
	}
	if err := json.Unmarshal(raw, &l); err != nil {
		return l, fault.New(fault.Invalid, "a session that is no JSON").WithReason("bad_session").Wrapping(err)
	}
	l.Host = host.ID
	if host.Role == identity.RoleNode {
		l.Target.Kind, l.Target.ID, l.Target.Name = target.Node, host.ID, cmp.Or(host.Name, host.ID)
	}
	if err := l.Check(); err != nil {
		return l, fault.New(fault.Invalid, "%v", err).WithReason("bad_session")
	}
	return l, nil
}

// write writes in transactions that fit.
func (s *Service) write(ctx context.Context, ops []store.Op) error {
	for len(ops) > 0 {
		n, size := 0, 0
		for n < len(ops) && n < perTxn && (n == 0 || size+len(ops[n].Value) <= maxTxn) {
			size += len(ops[n].Value)
			n++
		}
		if _, err := s.Store.Txn(ctx, ops[:n]); err != nil {
			return fmt.Errorf("write sessions: %w", err)
		}
		ops = ops[n:]
	}
	return nil
}

// List reads a page of the live sessions that the caller may see; next is empty on the last.
func (s *Service) List(ctx context.Context, from identity.Caller, after string) ([]live.Session, string, error) {
	list, next, err := s.Records.Sessions(ctx, after, maxPage)
	picture, _ := s.Pictures.Current()
	list = slices.DeleteFunc(list, func(l live.Session) bool {
		return picture.HostLocked(l.Host, s.Now()) || s.may(from, "list", l) != nil
	})
	return list, next, err
}

// may asks access whether the caller may do something to a session.
func (s *Service) may(from identity.Caller, verb string, l live.Session) error {
	if from.Local {
		return nil
	}
	picture, _ := s.Pictures.Current()
	t := target.Target{Kind: target.Administration, Name: string(manifest.Session), ID: l.ID, Object: map[string]any{
		"kind": string(manifest.Session), "name": l.ID, "user": l.Identity.Name, "login": l.Action.Login, "hostname": l.Target.Name}}
	d, in := picture.Decide(from.User, t, target.Action{Verb: verb, From: from.Addr}, s.Now())
	if !d.Allowed {
		return access.Refusal(d, in)
	}
	return nil
}

// each calls visit with every live session, until it fails. A host that was removed carries none.
func (s *Service) each(ctx context.Context, visit func(live.Session) error) error {
	picture, _ := s.Pictures.Current()
	after := ""
	for {
		list, next, err := s.Records.Sessions(ctx, after, maxPage)
		if err != nil {
			return err
		}
		for _, l := range list {
			if picture.HostLocked(l.Host, s.Now()) {
				continue
			}
			if err := visit(l); err != nil {
				return err
			}
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

// find is the session with an id, or the only one whose id begins so, of those that the caller may do something to:
// the others are not there.
func (s *Service) find(ctx context.Context, from identity.Caller, verb, id string) (live.Session, error) {
	var found []live.Session
	if len(id) < shortestID {
		return live.Session{}, fault.New(fault.Invalid, "%q is too little of a session's id: %d characters at least", id, shortestID).
			WithReason("short_id").WithFix("tctl sessions ls")
	}
	err := s.each(ctx, func(l live.Session) error {
		if strings.HasPrefix(l.ID, id) && len(found) < 10 && s.may(from, verb, l) == nil {
			found = append(found, l)
		}
		return nil
	})
	if err != nil {
		return live.Session{}, err
	}
	if i := slices.IndexFunc(found, func(l live.Session) bool { return l.ID == id }); i > 0 {
		found = found[i:]
	}
	switch {
	case len(found) == 1 || len(found) > 1 && found[0].ID == id: // that another agent says it too does not hide it
		return found[0], nil
	case len(found) == 0:
		return live.Session{}, fault.New(fault.NotFound, "session %q not found", id).WithReason("not_found").
			WithCause("it is over, or its agent has not told of it yet").WithFix("tctl sessions ls")
	}
	var ids []string
	for _, l := range found {
		ids = append(ids, l.ID)
	}
	return live.Session{}, fault.New(fault.Conflict, "several sessions begin with %q", id).WithReason("ambiguous").
		WithCause("%s", strings.Join(ids, ", "))
}

// endLife is how long agents hear of an end: as long as a lock on what was issued would live.
const endLife = identity.MaxLifetime

// End has a session cut, with a message for the person in it.
func (s *Service) End(ctx context.Context, from identity.Caller, id, message string) (live.Session, error) {
	if len(message) > maxMessage {
		return live.Session{}, fault.New(fault.Invalid, "a message of %d bytes, %d at most", len(message), maxMessage).WithReason("too_large")
	}
	l, err := s.find(ctx, from, "delete", id)
	if err != nil {
		return l, err
	}
	end := live.End{Session: l.ID, By: from.Name(), Message: message, Expires: s.Now().UTC().Add(endLife).Truncate(time.Second)}
	put, err := records.Put(manifest.New(&end, 0))
	if err != nil {
		return l, err
	}
	ev := event.Event{Kind: event.SessionTerminate, User: from.Name(), Success: true, Message: message,
		Session:  &event.Session{SessionID: l.ID, ServerID: l.Host, ServerName: l.Target.Name, Login: l.Action.Login, Addr: from.Addr.String()},
		Resource: &event.Resource{ResourceKind: string(manifest.Session), ResourceName: l.Identity.Name}}
	if from.User != nil {
		ev.Device = event.DeviceOf(from.User.Device)
	}
	revision, err := s.Audit.Record(ctx, ev, put)
	if err != nil {
		return l, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	s.Pictures.Reached(ctx, revision)
	return l, nil
}

// Preview says which sessions a lock would cut: the first thousand of them, and how many there are. Sessions that the
// caller may not see are counted alone.
func (s *Service) Preview(ctx context.Context, from identity.Caller, l lock.Lock) (cut []live.Session, count int, err error) {
	now := s.Now()
	err = s.each(ctx, func(x live.Session) error {
		if !l.InForce(now) || !l.Matches(&x.Identity, x.Target, x.Action) {
			return nil
		}
		count++
		if len(cut) < maxShown && s.may(from, "list", x) == nil {
			cut = append(cut, x)
		}
		return nil
	})
	return cut, count, err
}

// Answer is a decision about a session in words, and what would change it.
type Answer struct {
	Session  live.Session
	Decision access.Decision
	Text     string
	Changes  []string
}

// Explain decides about a live session as its agent does, by auth's own picture.
func (s *Service) Explain(ctx context.Context, from identity.Caller, id string) (Answer, error) {
	l, err := s.find(ctx, from, "read", id)
	if err != nil {
		return Answer{}, err
	}
	picture, _ := s.Pictures.Current()
	who, now := l.Identity, s.Now()
	if !now.Before(who.Validity.Expires) { // the agent judges the end of the certificate by the session's limits
		who.Validity.Expires = now.Add(time.Hour)
	}
	d, in := picture.Decide(&who, l.Target, l.Action, now)
	a := Answer{Session: l, Decision: d, Text: fmt.Sprintf("allowed by role %q", d.Source.Name)}
	if !d.Allowed {
		a.Text = access.Refusal(d, in).Lines()
	}
	if e := picture.Ended[l.ID]; e != nil {
		a.Decision.Allowed, a.Text = false, "ended by "+e.By
	}
	a.Changes = access.WhatIf(in)
	return a, nil
}
