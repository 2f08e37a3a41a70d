// Package feed answers FeedService: it streams pictures out, and takes what hosts serve and carry.
package feed

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/audit"
	"github.com/sallyport/sallyport/internal/census"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/membership"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/snapshot/feed"
)

// Handler is a sallyportv1connect.FeedServiceHandler. Caller tells who makes a call.
type Handler struct {
	Feed       *feed.Feed
	Membership *membership.Service
	Census     *census.Service
	Audit      *audit.Log
	Caller     func(context.Context) identity.Caller
	Now        func() time.Time
	Log        *slog.Logger

	printed printed

	mu      sync.Mutex
	streams map[string]*follower // guarded by mu: by host; a new one ends the one before
}

// maxServed is how many resources one message of a host may say it serves.
const maxServed = 16

// begin makes a follower the one of its host.
func (h *Handler) begin(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = map[string]*follower{}
	}
	if before := h.streams[f.host.ID]; before != nil {
		before.end(fault.New(fault.Conflict, "the host follows anew").WithReason("follows_anew"))
	}
	h.streams[f.host.ID] = f
}

func (h *Handler) over(f *follower) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams[f.host.ID] == f {
		delete(h.streams, f.host.ID)
	}
}

// Follow streams pictures to a host until it goes or is removed. Pings and changes share one writer, so that an echo
// never overtakes a change that auth's own picture held when the ping came.
func (h *Handler) Follow(ctx context.Context, stream *connect.BidiStream[pb.FollowRequest, pb.FollowResponse]) error {
	host := h.Caller(ctx).Host
	if host == nil {
		return fault.New(fault.Unauthenticated, "only a host follows the feed")
	}
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	if err := membership.CheckProtocol(first.Version, first.ProtocolVersion); err != nil {
		h.refused(ctx, *host, err)
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if end := h.Caller(ctx).Expires; !end.IsZero() { // a stream ends with the certificate that opened it
		var done context.CancelFunc
		ctx, done = context.WithDeadlineCause(ctx, end, fault.New(fault.Unauthenticated, "the host's certificate is over"))
		defer done()
	}
	f := &follower{Handler: h, host: *host, stream: stream, end: cancel, changes: make(chan snapshot.Change), pings: make(chan uint64, 16)}
	h.begin(f)
	defer h.over(f)
	if err := h.serve(ctx, *host, first); err != nil {
		return err
	}
	after := uint64(0)
	if h.Feed.Resumes(first.Run, first.After) {
		after = first.After
		f.sent.Store(after)
	}
	go f.receive(ctx, cancel)
	go func() {
		cancel(h.Feed.Follow(ctx, after, func(c snapshot.Change) error {
			select {
			case f.changes <- c:
				return nil
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}))
	}()
	return f.send(ctx, first.Ping)
}

// refused records that a host may not follow.
func (h *Handler) refused(ctx context.Context, host identity.Host, err error) {
	f := fault.Of(err)
	ev := event.Event{Kind: event.Auth, User: identity.Caller{Host: &host}.Name(), Message: f.Text, Session: &event.Session{Reason: f.Reason},
		Action: &event.Action{Verb: "FeedService/Follow"}}
	if _, err := h.Audit.Record(context.WithoutCancel(ctx), ev); err != nil {
		h.Log.Error("a refusal was not recorded", "host", host.ID, "err", err)
	}
}

func (h *Handler) serve(ctx context.Context, host identity.Host, m *pb.FollowRequest) error {
	if len(m.Served) > maxServed {
		return fault.New(fault.Invalid, "a host that serves %d things at once", len(m.Served))
	}
	for _, r := range m.Served {
		res, err := manifest.Decode(r.Json)
		if err != nil {
			return err
		}
		srv, ok := res.Spec.(*identity.Server)
		if !ok {
			return fault.New(fault.Unsupported, "a %s is not served by this build", res.Kind)
		}
		if err := h.Membership.Serve(ctx, host, *srv); err != nil {
			return err
		}
	}
	if l := m.Sessions; l != nil {
		// What is listed must never keep a host from hearing what is decided.
		if err := h.Census.Report(ctx, host, census.Report{Complete: l.Complete, IDs: l.Ids, Changed: l.Changed, Ended: l.Ended}); err != nil {
			h.Log.Warn("sessions were not taken as told", "host", host.ID, "err", err)
		}
	}
	return nil
}

// follower is one host that follows.
type follower struct {
	*Handler
	host    identity.Host
	stream  *connect.BidiStream[pb.FollowRequest, pb.FollowResponse]
	end     context.CancelCauseFunc
	changes chan snapshot.Change
	pings   chan uint64
	sent    atomic.Uint64 // the revision that the host has
	heads   uint64        // the number of the list of audit heads that the host has
}

// maxWaiting is how many pings wait for auth's own picture; the newest are worth the most.
const maxWaiting = 16

// receive takes the host's pings and what it serves.
func (f *follower) receive(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		m, err := f.stream.Receive()
		if err == nil {
			err = f.serve(ctx, f.host, m)
		}
		if errors.Is(err, io.EOF) {
			err = context.Canceled
		}
		if err != nil {
			cancel(err)
			return
		}
		if m.Ping == 0 {
			continue
		}
		select {
		case f.pings <- m.Ping:
		case <-ctx.Done():
			return
		}
	}
}

// send is the one writer of the stream.
func (f *follower) send(ctx context.Context, ping uint64) error {
	waiting := []uint64{ping}
	for {
		own, age := f.Feed.Current()
		if own.HostLocked(f.host.ID, f.Now()) {
			return membership.Removed(f.host.ID)
		}
		// An echo goes out once the host has what auth's own picture holds, and auth's picture is alive.
		if f.sent.Load() >= own.Revision && age == 0 {
			for _, p := range waiting {
				if p == 0 {
					continue
				}
				if err := f.stream.Send(f.echo(p)); err != nil {
					return err
				}
			}
			waiting = waiting[:0]
		}
		select {
		case c := <-f.changes:
			if err := f.change(c); err != nil {
				return err
			}
		case p := <-f.pings:
			if waiting = append(waiting, p); len(waiting) > maxWaiting {
				waiting = waiting[1:]
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// echo answers a ping, with the newest audit heads where the host does not have them yet.
func (f *follower) echo(ping uint64) *pb.FollowResponse {
	m := &pb.FollowResponse{Pong: ping, Revision: f.sent.Load(), Time: timestamppb.New(f.Now())}
	if h := f.Feed.Heads(); h != nil && h.Number != f.heads {
		if raw := f.printed.headsOf(h); raw != nil {
			m.Heads, f.heads = raw, h.Number
		}
	}
	return m
}

// change sends a change; one that says nothing to this host is only counted, and the next echo tells how far it is.
func (f *follower) change(c snapshot.Change) error {
	m, err := f.message(c)
	if err != nil {
		return err
	}
	if c.Complete || len(m.Put)+len(m.Removed) > 0 || m.Authorities != nil {
		for _, part := range parts(m) {
			if err := f.stream.Send(part); err != nil {
				return err
			}
		}
	}
	f.sent.Store(c.Revision)
	return nil
}

// maxPart bounds one message of a picture, in bytes, the resource that passes it included.
const maxPart = 1 << 20

// parts splits a complete picture; a change is one message.
func parts(m *pb.FollowResponse) []*pb.FollowResponse {
	if !m.Complete {
		return []*pb.FollowResponse{m}
	}
	put := m.Put
	m.Put = nil
	out := []*pb.FollowResponse{m}
	size := 0
	for _, r := range put {
		if size >= maxPart {
			m.More = true
			m = &pb.FollowResponse{Run: m.Run, Revision: m.Revision, Complete: true, Time: m.Time}
			out, size = append(out, m), 0
		}
		m.Put, size = append(m.Put, r), size+len(r.Json)
	}
	return out
}

// hidden reports whether a kind is none of this host's business: who logs in and whose session ended is for those that
// carry sessions, databases are for their agents.
func (f *follower) hidden(k manifest.Kind) bool {
	switch k {
	case manifest.FollowedLogin, manifest.SessionEnd:
		return f.host.Role == identity.RoleProxy
	case manifest.DB:
		return f.host.Role != identity.RoleDB
	case manifest.Kube:
		return f.host.Role != identity.RoleKube
	}
	return false
}

// shows reports whether the host is told of a host: proxies of all, which they have to find; others of themselves.
func (f *follower) shows(id string) bool {
	return f.host.Role == identity.RoleProxy || f.host.ID == id
}

// message is a change as this host is told of it.
func (f *follower) message(c snapshot.Change) (*pb.FollowResponse, error) {
	m := &pb.FollowResponse{Run: c.Run, Revision: c.Revision, Complete: c.Complete, Time: timestamppb.New(f.Now())}
	for _, r := range c.Put {
		if srv, ok := r.Spec.(*identity.Server); ok && !f.shows(srv.ID) || f.hidden(r.Kind) {
			continue
		}
		res, err := f.printed.resource(r)
		if err != nil {
			return nil, err
		}
		m.Put = append(m.Put, res)
	}
	for _, r := range c.Removed {
		if r.Kind == manifest.Node && !f.shows(r.Name) || f.hidden(r.Kind) {
			continue
		}
		m.Removed = append(m.Removed, &pb.Resource{Kind: string(r.Kind), Name: r.Name})
	}
	if c.Authorities != nil {
		a, err := authorities(c.Authorities)
		if err != nil {
			return nil, err
		}
		m.Authorities = a
	}
	return m, nil
}

func authorities(a *snapshot.Authorities) (*pb.Authorities, error) {
	out := &pb.Authorities{}
	for _, k := range a.SSHUser {
		out.SshUser = append(out.SshUser, k.Marshal())
	}
	for _, k := range a.SSHHost {
		out.SshHost = append(out.SshHost, k.Marshal())
	}
	for _, c := range a.TLSUser {
		out.TlsUser = append(out.TlsUser, c.Raw)
	}
	for _, k := range a.DialTicket {
		der, err := x509.MarshalPKIXPublicKey(k)
		if err != nil {
			return nil, err
		}
		out.DialTicket = append(out.DialTicket, der)
	}
	if a.Recording != nil {
		out.Recording = a.Recording.Public()
	}
	return out, nil
}
