// Package event answers EventService: it takes hosts' audit events and reads the log out.
package event

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/audit"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Handler is a sallyportv1connect.EventServiceHandler. Caller tells who makes a call, Still whether who exports the log may
// go on.
type Handler struct {
	Audit  *audit.Log
	Caller func(context.Context) identity.Caller
	Still  func(context.Context) error
}

// IngestEvents is of the service.
func (h *Handler) IngestEvents(ctx context.Context, r *connect.Request[pb.IngestEventsRequest]) (*connect.Response[pb.IngestEventsResponse], error) {
	host := h.Caller(ctx).Host
	if host == nil {
		return nil, fault.New(fault.Unauthenticated, "only a host writes events")
	}
	if len(r.Msg.Entries) > audit.MaxIngest {
		return nil, fault.New(fault.Invalid, "more than %d events at once", audit.MaxIngest)
	}
	var entries []event.Entry
	for _, raw := range r.Msg.Entries {
		e, err := event.DecodeEntry(raw)
		if err != nil {
			return nil, fault.New(fault.Invalid, "an event that is no entry").Wrapping(err)
		}
		entries = append(entries, e)
	}
	acked, err := h.Audit.Ingest(ctx, audit.Sender{Writer: host.ID, Roles: []event.Role{event.Role(host.Role)}}, entries)
	if err != nil && acked == 0 {
		return nil, err
	}
	return connect.NewResponse(&pb.IngestEventsResponse{Acknowledged: acked}), nil
}

func at(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}

// ListEvents is of the service.
func (h *Handler) ListEvents(ctx context.Context, r *connect.Request[pb.ListEventsRequest]) (*connect.Response[pb.ListEventsResponse], error) {
	m := r.Msg
	list, next, err := h.Audit.List(ctx, audit.Filter{From: at(m.From), To: at(m.To), Event: event.Kind(m.Event), User: m.User,
		Device: m.Device, After: m.After, Limit: int(m.Limit)})
	if err != nil {
		return nil, err
	}
	out := &pb.ListEventsResponse{Next: next}
	for _, e := range list {
		out.Events = append(out.Events, e.Event)
	}
	return connect.NewResponse(out), nil
}

// ExportLog is of the service.
func (h *Handler) ExportLog(ctx context.Context, _ *connect.Request[pb.ExportLogRequest], stream *connect.ServerStream[pb.ExportLogResponse]) error {
	return h.Audit.Export(ctx, writer(func(p []byte) error {
		// A long export is asked about again at each part: it ends when its caller may no longer see it.
		if err := h.Still(ctx); err != nil {
			return err
		}
		return stream.Send(&pb.ExportLogResponse{Lines: p})
	}))
}

type writer func([]byte) error

func (w writer) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// VerifyLog is of the service.
func (h *Handler) VerifyLog(ctx context.Context, r *connect.Request[pb.VerifyLogRequest]) (*connect.Response[pb.VerifyLogResponse], error) {
	var elsewhere *event.SignedHeads
	if len(r.Msg.Head) > 0 {
		elsewhere = new(event.SignedHeads)
		if err := json.Unmarshal(r.Msg.Head, elsewhere); err != nil {
			return nil, fault.New(fault.Invalid, "--head: not a signed list of heads").Wrapping(err)
		}
	}
	report, err := h.Audit.Verify(ctx, elsewhere)
	if err != nil {
		return nil, err
	}
	out := &pb.VerifyLogResponse{Intact: report.Intact(), Chains: uint64(len(report.Heads)), Entries: report.Entries}
	for _, p := range report.Problems {
		out.Findings = append(out.Findings, fmt.Sprintf("%s %d: %s", p.Writer, p.Seq, p.Text))
	}
	if heads, err := h.Audit.LatestHeads(ctx); err == nil {
		out.Head, err = json.Marshal(heads)
		if err != nil {
			return nil, err
		}
	}
	return connect.NewResponse(out), nil
}
