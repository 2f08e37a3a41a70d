package client

import (
	"context"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/wire"
)

// Get reads one resource.
func (c *Cluster) Get(ctx context.Context, kind manifest.Kind, name string) (*manifest.Resource, error) {
	r, err := c.roster.GetResource(ctx, connect.NewRequest(&pb.GetResourceRequest{Kind: string(kind), Name: name}))
	if err != nil {
		return nil, err
	}
	return manifest.Decode(r.Msg.Json)
}

// List reads all resources of a kind, page by page.
func (c *Cluster) List(ctx context.Context, kind manifest.Kind) ([]*manifest.Resource, error) {
	var out []*manifest.Resource
	after := ""
	for {
		r, err := c.roster.ListResources(ctx, connect.NewRequest(&pb.ListResourcesRequest{Kind: string(kind), After: after}))
		if err != nil {
			return nil, err
		}
		for _, m := range r.Msg.Resources {
			res, err := manifest.Decode(m.Json)
			if err != nil {
				return nil, err
			}
			out = append(out, res)
		}
		if after = r.Msg.Next; after == "" {
			return out, nil
		}
	}
}

// Written is what became of one resource.
type Written struct {
	Kind    string
	Name    string
	Created bool
}

// Write takes all resources or none.
func (c *Cluster) Write(ctx context.Context, list []*manifest.Resource, replace bool) ([]Written, error) {
	msgs, err := wire.Resources(list)
	if err != nil {
		return nil, err
	}
	r, err := c.roster.WriteResources(ctx, connect.NewRequest(&pb.WriteResourcesRequest{Resources: msgs, Replace: replace}))
	if err != nil {
		return nil, err
	}
	var out []Written
	for _, w := range r.Msg.Results {
		out = append(out, Written{w.Kind, w.Name, w.Created})
	}
	return out, nil
}

// Delete removes a resource and returns how it is called.
func (c *Cluster) Delete(ctx context.Context, kind manifest.Kind, name string) (string, error) {
	r, err := c.roster.DeleteResource(ctx, connect.NewRequest(&pb.DeleteResourceRequest{Kind: string(kind), Name: name}))
	if err != nil {
		return "", err
	}
	return r.Msg.Shown, nil
}

// Invite is a printed single-use secret, with what a command that spends it names beside.
type Invite struct {
	Token   string    `json:"token"`
	Expires time.Time `json:"expires"`
	Proxy   string    `json:"proxy,omitempty"`
	CAPin   string    `json:"ca_pin"`
	Auth    string    `json:"-"`
}

func invite(token string, expires *timestamppb.Timestamp, j *pb.JoinHint) Invite {
	return Invite{Token: token, Expires: expires.AsTime(), Proxy: j.GetProxy(), CAPin: j.GetCaPin(), Auth: j.GetAuth()}
}

// AddUser makes a user, with a password or, without, an invite.
func (c *Cluster) AddUser(ctx context.Context, a *identity.Account, password string) (Invite, error) {
	m, err := wire.Resource(manifest.New(a, 0))
	if err != nil {
		return Invite{}, err
	}
	r, err := c.roster.CreateUser(ctx, connect.NewRequest(&pb.CreateUserRequest{User: m, Password: password}))
	if err != nil {
		return Invite{}, err
	}
	return invite(r.Msg.Invite, r.Msg.Expires, r.Msg.Join), nil
}

// ResetUser takes a user's factors and makes an invite.
func (c *Cluster) ResetUser(ctx context.Context, name string) (Invite, error) {
	r, err := c.roster.ResetUser(ctx, connect.NewRequest(&pb.ResetUserRequest{Name: name}))
	if err != nil {
		return Invite{}, err
	}
	return invite(r.Msg.Invite, r.Msg.Expires, r.Msg.Join), nil
}

// AddToken makes a join token.
func (c *Cluster) AddToken(ctx context.Context, roles []string, name string, ttl time.Duration) (Invite, error) {
	r, err := c.roster.CreateToken(ctx, connect.NewRequest(&pb.CreateTokenRequest{Roles: roles, Name: name, TtlSeconds: int64(ttl / time.Second)}))
	if err != nil {
		return Invite{}, err
	}
	return invite(r.Msg.Token, r.Msg.Expires, r.Msg.Join), nil
}

// Target is something that the caller may reach.
type Target struct {
	Kind   string    `json:"kind"`
	ID     string    `json:"id"`
	Name   string    `json:"name"`
	Labels label.Set `json:"labels"`
	// Protocol is a database's.
	Protocol string `json:"protocol,omitempty"`
}

// Targets lists what the caller may reach of a kind and a query (CEL, empty for all) matches.
func (c *Cluster) Targets(ctx context.Context, kind, query string) ([]Target, error) {
	out := []Target{}
	after := ""
	for {
		r, err := c.roster.ListTargets(ctx, connect.NewRequest(&pb.ListTargetsRequest{Kind: kind, Query: query, After: after}))
		if err != nil {
			return nil, err
		}
		for _, t := range r.Msg.Targets {
			out = append(out, Target{t.Kind, t.Id, t.Name, t.Labels, t.Protocol})
		}
		if after = r.Msg.Next; after == "" {
			return out, nil
		}
	}
}

// Question is what Explain is asked.
type Question struct{ User, Device, Kind, Name, Login, Verb, DBUser, DBName string }

// Answer is a decision in words.
type Answer struct {
	Allowed bool     `json:"allowed"`
	Reason  string   `json:"reason"`
	Source  string   `json:"source,omitempty"`
	Name    string   `json:"name,omitempty"`
	Text    string   `json:"text"`
	Changes []string `json:"changes"`
}

// Explain asks for a decision and what would change it.
func (c *Cluster) Explain(ctx context.Context, q Question) (Answer, error) {
	r, err := c.roster.Explain(ctx, connect.NewRequest(&pb.ExplainRequest{User: q.User, Device: q.Device, Kind: q.Kind, Name: q.Name, Login: q.Login, Verb: q.Verb,
		DbUser: q.DBUser, DbName: q.DBName}))
	if err != nil {
		return Answer{}, err
	}
	m := r.Msg
	return Answer{m.Allowed, m.Reason, m.SourceKind, m.SourceName, m.Text, m.Changes}, nil
}

// Authorities exports the public keys of the cluster's authorities by use.
func (c *Cluster) Authorities(ctx context.Context) (map[string]string, error) {
	r, err := c.roster.ExportAuthorities(ctx, connect.NewRequest(&pb.ExportAuthoritiesRequest{}))
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, a := range r.Msg.Authorities {
		out[a.Use] = a.Public
	}
	return out, nil
}

// Status is the state of the cluster.
type Status struct {
	Cluster       string            `json:"cluster"`
	Version       string            `json:"version"`
	CAPin         string            `json:"ca_pin"`
	Proxy         string            `json:"proxy"`
	DeviceMode    string            `json:"device_trust_mode"`
	SecondFactors []string          `json:"second_factors"`
	LockingMode   string            `json:"locking_mode"`
	PictureAge    string            `json:"picture_age"`
	Counts        map[string]uint64 `json:"counts"`
	Warnings      []string          `json:"warnings"`
}

// Status asks for the state of the cluster.
func (c *Cluster) Status(ctx context.Context) (Status, error) {
	r, err := c.roster.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
	if err != nil {
		return Status{}, err
	}
	m := r.Msg
	return Status{m.ClusterName, m.Version, m.CaPin, m.Proxy, m.DeviceMode, m.SecondFactors, m.LockingMode, m.PictureAge, m.Counts, m.Warnings}, nil
}

// EventFilter selects audit events.
type EventFilter struct {
	From, To            time.Time
	Event, User, Device string
	Limit               int
}

// Events lists audit events, JSON each.
func (c *Cluster) Events(ctx context.Context, f EventFilter) ([][]byte, error) {
	req := &pb.ListEventsRequest{Event: f.Event, User: f.User, Device: f.Device}
	if !f.From.IsZero() {
		req.From = timestamppb.New(f.From)
	}
	if !f.To.IsZero() {
		req.To = timestamppb.New(f.To)
	}
	var out [][]byte
	for {
		r, err := c.events.ListEvents(ctx, connect.NewRequest(req))
		if err != nil {
			return nil, err
		}
		out = append(out, r.Msg.Events...)
		if req.After = r.Msg.Next; req.After == "" || (f.Limit > 0 && len(out) >= f.Limit) {
			return out, nil
		}
	}
}

// Export writes the whole audit log as JSON lines.
func (c *Cluster) Export(ctx context.Context, w io.Writer) error {
	s, err := c.events.ExportLog(ctx, connect.NewRequest(&pb.ExportLogRequest{}))
	if err != nil {
		return FromRPC(err)
	}
	defer s.Close()
	for s.Receive() {
		if _, err := w.Write(s.Msg().Lines); err != nil {
			return err
		}
	}
	return FromRPC(s.Err())
}

// Verification is what a check of the audit log found.
type Verification struct {
	Intact   bool     `json:"intact"`
	Chains   uint64   `json:"chains"`
	Entries  uint64   `json:"entries"`
	Findings []string `json:"findings"`
	Head     []byte   `json:"-"`
}

// Verify checks the audit log, against a signed list of heads kept elsewhere where one is given.
func (c *Cluster) Verify(ctx context.Context, head []byte) (Verification, error) {
	r, err := c.events.VerifyLog(ctx, connect.NewRequest(&pb.VerifyLogRequest{Head: head}))
	if err != nil {
		return Verification{}, err
	}
	m := r.Msg
	return Verification{m.Intact, m.Chains, m.Entries, m.Findings, m.Head}, nil
}
