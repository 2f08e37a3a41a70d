// Package census answers SessionService: it carries requests to the use case and back.
package census

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/census"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
)

// Handler is a sallyportv1connect.SessionServiceHandler. Caller tells who makes a call.
type Handler struct {
	Use    *census.Service
	Caller func(context.Context) identity.Caller
}

func sessionsJSON(list []live.Session) ([][]byte, error) {
	out := make([][]byte, 0, len(list))
	for _, l := range list {
		raw, err := json.Marshal(l)
		if err != nil {
			return nil, err
		}
		out = append(out, raw)
	}
	return out, nil
}

// ListSessions is of the service.
func (h *Handler) ListSessions(ctx context.Context, r *connect.Request[pb.ListSessionsRequest]) (*connect.Response[pb.ListSessionsResponse], error) {
	list, next, err := h.Use.List(ctx, h.Caller(ctx), r.Msg.After)
	if err != nil {
		return nil, err
	}
	raw, err := sessionsJSON(list)
	return connect.NewResponse(&pb.ListSessionsResponse{Sessions: raw, Next: next}), err
}

// EndSession is of the service.
func (h *Handler) EndSession(ctx context.Context, r *connect.Request[pb.EndSessionRequest]) (*connect.Response[pb.EndSessionResponse], error) {
	l, err := h.Use.End(ctx, h.Caller(ctx), r.Msg.Id, r.Msg.Message)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(l)
	return connect.NewResponse(&pb.EndSessionResponse{Session: raw}), err
}

// PreviewLock is of the service.
func (h *Handler) PreviewLock(ctx context.Context, r *connect.Request[pb.PreviewLockRequest]) (*connect.Response[pb.PreviewLockResponse], error) {
	res, err := manifest.Decode(r.Msg.Lock)
	if err != nil {
		return nil, err
	}
	l, ok := res.Spec.(*lock.Lock)
	if !ok {
		return nil, fault.New(fault.Invalid, "not a lock")
	}
	if err := res.Check(); err != nil {
		return nil, err
	}
	cut, count, err := h.Use.Preview(ctx, h.Caller(ctx), *l)
	if err != nil {
		return nil, err
	}
	raw, err := sessionsJSON(cut)
	return connect.NewResponse(&pb.PreviewLockResponse{Sessions: raw, Count: uint64(count)}), err
}

// ExplainSession is of the service.
func (h *Handler) ExplainSession(ctx context.Context, r *connect.Request[pb.ExplainSessionRequest]) (*connect.Response[pb.ExplainSessionResponse], error) {
	a, err := h.Use.Explain(ctx, h.Caller(ctx), r.Msg.Id)
	if err != nil {
		return nil, err
	}
	raw, err := json.Marshal(a.Session)
	d := a.Decision
	return connect.NewResponse(&pb.ExplainSessionResponse{Session: raw, Allowed: d.Allowed, Reason: string(d.Reason),
		SourceKind: string(d.Source.Kind), SourceName: d.Source.Name, Text: a.Text, Changes: a.Changes}), err
}
