// Package census asks a cluster for its live sessions.
package census

import (
	"context"
	"encoding/json"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
)

// Census calls auth about sessions.
type Census struct {
	sessions sallyportv1connect.SessionServiceClient
}

// New calls over c, which stays the caller's to close.
func New(c *client.Cluster) *Census {
	h, base, opts := c.Transport()
	return &Census{sallyportv1connect.NewSessionServiceClient(h, base, opts...)}
}

// List is every live session that the caller may see.
func (c *Census) List(ctx context.Context) ([]live.Session, error) {
	out, after := []live.Session{}, ""
	for {
		r, err := c.sessions.ListSessions(ctx, connect.NewRequest(&pb.ListSessionsRequest{After: after}))
		if err != nil {
			return nil, err
		}
		page, err := read(r.Msg.Sessions)
		out = append(out, page...)
		if after = r.Msg.Next; err != nil || after == "" {
			return out, err
		}
	}
}

func read(raw [][]byte) ([]live.Session, error) {
	out := make([]live.Session, len(raw))
	for i, b := range raw {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// End has a session cut; id may be the beginning of an id. It returns the session that it was.
func (c *Census) End(ctx context.Context, id, message string) (live.Session, error) {
	var l live.Session
	r, err := c.sessions.EndSession(ctx, connect.NewRequest(&pb.EndSessionRequest{Id: id, Message: message}))
	if err != nil {
		return l, err
	}
	return l, json.Unmarshal(r.Msg.Session, &l)
}

// Preview says which live sessions a lock would cut: some of them, and how many there are.
func (c *Census) Preview(ctx context.Context, l *lock.Lock) ([]live.Session, int, error) {
	raw, err := manifest.New(l, 0).JSON()
	if err != nil {
		return nil, 0, err
	}
	r, err := c.sessions.PreviewLock(ctx, connect.NewRequest(&pb.PreviewLockRequest{Lock: raw}))
	if err != nil {
		return nil, 0, err
	}
	cut, err := read(r.Msg.Sessions)
	return cut, int(r.Msg.Count), err
}

// Explain says by which rule a session lives, and what would end it.
func (c *Census) Explain(ctx context.Context, id string) (client.Answer, live.Session, error) {
	var l live.Session
	r, err := c.sessions.ExplainSession(ctx, connect.NewRequest(&pb.ExplainSessionRequest{Id: id}))
	if err != nil {
		return client.Answer{}, l, err
	}
	m := r.Msg
	return client.Answer{Allowed: m.Allowed, Reason: m.Reason, Source: m.SourceKind, Name: m.SourceName, Text: m.Text,
		Changes: m.Changes}, l, json.Unmarshal(m.Session, &l)
}
