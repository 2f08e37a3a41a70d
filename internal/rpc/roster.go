package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/roster"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/trust"
	"github.com/sallyport/sallyport/internal/wire"
)

type rosterHandler struct{ s *Server }

// hint is what printed commands name: a proxy's public address and the CA pin.
func (h *rosterHandler) hint() *pb.JoinHint {
	picture, _ := h.s.use.Feed.Current()
	var proxies []string
	for _, srv := range picture.Servers {
		if srv.Role == identity.RoleProxy {
			proxies = append(proxies, srv.PublicAddr[:min(1, len(srv.PublicAddr))]...)
		}
	}
	slices.Sort(proxies)
	out := &pb.JoinHint{CaPin: cluster.Pin(h.s.public.TLSHost)}
	if len(proxies) > 0 {
		out.Proxy = proxies[0]
	}
	return out
}

func (h *rosterHandler) GetResource(ctx context.Context, r *connect.Request[pb.GetResourceRequest]) (*connect.Response[pb.Resource], error) {
	kind, err := manifest.ParseKind(r.Msg.Kind)
	if err != nil {
		return nil, err
	}
	res, err := h.s.use.Roster.Get(ctx, caller(ctx), kind, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(res)
	return connect.NewResponse(m), err
}

func (h *rosterHandler) ListResources(ctx context.Context, r *connect.Request[pb.ListResourcesRequest]) (*connect.Response[pb.ListResourcesResponse], error) {
	kind, err := manifest.ParseKind(r.Msg.Kind)
	if err != nil {
		return nil, err
	}
	list, next, err := h.s.use.Roster.List(ctx, caller(ctx), kind, r.Msg.After, int(r.Msg.Limit))
	if err != nil {
		return nil, err
	}
	out, err := wire.Resources(list)
	return connect.NewResponse(&pb.ListResourcesResponse{Resources: out, Next: next}), err
}

func (h *rosterHandler) WriteResources(ctx context.Context, r *connect.Request[pb.WriteResourcesRequest]) (*connect.Response[pb.WriteResourcesResponse], error) {
	var list []*manifest.Resource
	for _, m := range r.Msg.Resources {
		res, err := manifest.Decode(m.Json)
		if err != nil {
			return nil, err
		}
		if string(res.Kind) != m.Kind {
			return nil, fault.New(fault.Invalid, "a resource of kind %q that says it is a %q", res.Kind, m.Kind)
		}
		list = append(list, res)
	}
	if len(list) == 0 {
		return nil, fault.New(fault.Invalid, "nothing to write")
	}
	written, err := h.s.use.Roster.Write(ctx, caller(ctx), list, r.Msg.Replace)
	if err != nil {
		return nil, err
	}
	out := &pb.WriteResourcesResponse{}
	for _, w := range written {
		out.Results = append(out.Results, &pb.WriteResult{Kind: string(w.Kind), Name: w.Name, Created: w.Created, Revision: w.Revision})
	}
	return connect.NewResponse(out), nil
}

func (h *rosterHandler) DeleteResource(ctx context.Context, r *connect.Request[pb.DeleteResourceRequest]) (*connect.Response[pb.DeleteResourceResponse], error) {
	kind, err := manifest.ParseKind(r.Msg.Kind)
	if err != nil {
		return nil, err
	}
	if kind == manifest.Device {
		d, err := h.removeDevice(ctx, r.Msg.Name)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&pb.DeleteResourceResponse{Shown: d.AssetTag}), nil
	}
	res, err := h.s.use.Roster.Delete(ctx, caller(ctx), kind, r.Msg.Name)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.DeleteResourceResponse{Shown: res.Metadata.Name}), nil
}

// removeDevice takes an id or a tag.
func (h *rosterHandler) removeDevice(ctx context.Context, name string) (*device.Device, error) {
	d, err := h.s.use.Trust.Remove(ctx, caller(ctx), trust.Ref{ID: name})
	if fault.Because(err, "device_not_found") {
		return h.s.use.Trust.Remove(ctx, caller(ctx), trust.Ref{Tag: name})
	}
	return d, err
}

func (h *rosterHandler) CreateUser(ctx context.Context, r *connect.Request[pb.CreateUserRequest]) (*connect.Response[pb.CreateUserResponse], error) {
	res, err := manifest.Decode(r.Msg.User.GetJson())
	if err != nil {
		return nil, err
	}
	a, ok := res.Spec.(*identity.Account)
	if !ok {
		return nil, fault.New(fault.Invalid, "not a user")
	}
	return h.invited(h.s.use.Roster.AddUser(ctx, caller(ctx), a, r.Msg.Password))
}

func (h *rosterHandler) ResetUser(ctx context.Context, r *connect.Request[pb.ResetUserRequest]) (*connect.Response[pb.CreateUserResponse], error) {
	return h.invited(h.s.use.Roster.ResetUser(ctx, caller(ctx), r.Msg.Name))
}

func (h *rosterHandler) invited(i roster.Invited, err error) (*connect.Response[pb.CreateUserResponse], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateUserResponse{Invite: i.Token, Expires: timestamppb.New(i.Expires), Join: h.hint()}), nil
}

func (h *rosterHandler) CreateToken(ctx context.Context, r *connect.Request[pb.CreateTokenRequest]) (*connect.Response[pb.CreateTokenResponse], error) {
	t := identity.JoinToken{Name: r.Msg.Name}
	for _, role := range r.Msg.Roles {
		t.Roles = append(t.Roles, identity.HostRole(role))
	}
	i, err := h.s.use.Roster.AddToken(ctx, caller(ctx), t, time.Duration(r.Msg.TtlSeconds)*time.Second)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CreateTokenResponse{Token: i.Token, Expires: timestamppb.New(i.Expires), Join: h.hint()}), nil
}

func (h *rosterHandler) ListTargets(ctx context.Context, r *connect.Request[pb.ListTargetsRequest]) (*connect.Response[pb.ListTargetsResponse], error) {
	list, next, err := h.s.use.Roster.Targets(ctx, caller(ctx), roster.Listing{Kind: target.Kind(r.Msg.Kind), Query: r.Msg.Query, After: r.Msg.After, Limit: int(r.Msg.Limit)})
	if err != nil {
		return nil, err
	}
	out := &pb.ListTargetsResponse{Next: next}
	for _, t := range list {
		out.Targets = append(out.Targets, &pb.Target{Kind: string(t.Kind), Id: t.ID, Name: t.Name, Labels: t.Labels, Protocol: string(t.Protocol)})
	}
	return connect.NewResponse(out), nil
}

func (h *rosterHandler) Explain(ctx context.Context, r *connect.Request[pb.ExplainRequest]) (*connect.Response[pb.ExplainResponse], error) {
	m := r.Msg
	a, err := h.s.use.Roster.Explain(ctx, caller(ctx), roster.Question{User: m.User, Device: m.Device, Kind: m.Kind, Name: m.Name, Login: m.Login, Verb: m.Verb,
		DBUser: m.DbUser, DBName: m.DbName})
	if err != nil {
		return nil, err
	}
	d := a.Decision
	return connect.NewResponse(&pb.ExplainResponse{Allowed: d.Allowed, Reason: string(d.Reason), SourceKind: string(d.Source.Kind),
		SourceName: d.Source.Name, Text: a.Text, Changes: a.Changes}), nil
}

func (h *rosterHandler) GetHindrances(ctx context.Context, _ *connect.Request[pb.GetHindrancesRequest]) (*connect.Response[pb.GetHindrancesResponse], error) {
	list, now := h.s.use.Roster.Hindrances(caller(ctx))
	out := &pb.GetHindrancesResponse{Now: timestamppb.New(now)}
	for _, f := range list {
		out.Hindrances = append(out.Hindrances, wire.Fault(f))
	}
	return connect.NewResponse(out), nil
}

func (h *rosterHandler) ExportAuthorities(ctx context.Context, _ *connect.Request[pb.ExportAuthoritiesRequest]) (*connect.Response[pb.ExportAuthoritiesResponse], error) {
	list, err := h.s.use.Roster.Authorities(ctx)
	if err != nil {
		return nil, err
	}
	out := &pb.ExportAuthoritiesResponse{}
	for _, a := range list {
		out.Authorities = append(out.Authorities, &pb.Authority{Use: a.Use, Public: a.Public})
	}
	return connect.NewResponse(out), nil
}

func (h *rosterHandler) Status(ctx context.Context, _ *connect.Request[pb.StatusRequest]) (*connect.Response[pb.StatusResponse], error) {
	st, err := h.s.use.Roster.Status(ctx)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.StatusResponse{ClusterName: st.Cluster, Version: cluster.Version, CaPin: st.Pin, Warnings: st.Warnings,
		Counts: st.Counts, DeviceMode: string(st.Mode), SecondFactors: st.Factors, LockingMode: st.Locking, PictureAge: st.Ages, Proxy: strings.TrimSpace(h.hint().Proxy)}), nil
}
