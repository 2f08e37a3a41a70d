// Package fleet answers FleetService: it carries requests to the use case and back.
package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/inventory"
	"github.com/sallyport/sallyport/internal/manifest"
	rpcdevice "github.com/sallyport/sallyport/internal/rpc/device"
	"github.com/sallyport/sallyport/internal/trust/fleet"
	"github.com/sallyport/sallyport/internal/wire"
)

// Handler is a sallyportv1connect.FleetServiceHandler. Caller tells who makes a call.
type Handler struct {
	Use    *fleet.Service
	Caller func(context.Context) identity.Caller
}

// answer is a resource on its way out.
func answer(res *manifest.Resource, err error) (*connect.Response[pb.Resource], error) {
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(res)
	return connect.NewResponse(m), err
}

// ImportDevices is of the service.
func (h *Handler) ImportDevices(ctx context.Context, r *connect.Request[pb.ImportDevicesRequest]) (*connect.Response[pb.ImportDevicesResponse], error) {
	var list []device.Device
	for _, d := range r.Msg.Devices {
		list = append(list, device.Device{OSType: device.OS(d.OsType), AssetTag: d.AssetTag, Owner: d.Owner, EKHash: d.EkHash})
	}
	done, err := h.Use.Import(ctx, h.Caller(ctx), fleet.Import{Origin: r.Msg.Origin, DryRun: r.Msg.DryRun}, list)
	if err != nil {
		return nil, err
	}
	out := &pb.ImportDevicesResponse{}
	for _, d := range done {
		out.Results = append(out.Results, &pb.ImportResult{Outcome: string(d.Outcome), Reason: d.Reason, DeviceId: d.DeviceID})
	}
	return connect.NewResponse(out), nil
}

// ListDevices is of the service.
func (h *Handler) ListDevices(ctx context.Context, r *connect.Request[pb.ListDevicesRequest]) (*connect.Response[pb.ListDevicesResponse], error) {
	m := r.Msg
	list, next, err := h.Use.List(ctx, h.Caller(ctx), fleet.Listing{Query: m.Query, After: m.After, Limit: int(m.Limit), Filter: inventory.Filter{
		OS: device.OS(m.OsType), Status: device.EnrollStatus(m.EnrollStatus), Owner: m.Owner, Level: device.Level(m.Level), Finding: m.Finding}})
	if err != nil {
		return nil, err
	}
	out, err := wire.Resources(list)
	return connect.NewResponse(&pb.ListDevicesResponse{Devices: out, Next: next}), err
}

// SetBaseline is of the service.
func (h *Handler) SetBaseline(ctx context.Context, r *connect.Request[pb.SetBaselineRequest]) (*connect.Response[pb.Resource], error) {
	b := fleet.Baseline{Accept: r.Msg.Accept, Clear: r.Msg.Clear}
	for _, pcr := range r.Msg.Pcrs {
		b.Watch = append(b.Watch, int(pcr))
	}
	return answer(h.Use.SetBaseline(ctx, h.Caller(ctx), rpcdevice.Ref(r.Msg.Device), b))
}

// AcceptDevice is of the service.
func (h *Handler) AcceptDevice(ctx context.Context, r *connect.Request[pb.AcceptDeviceRequest]) (*connect.Response[pb.AcceptDeviceResponse], error) {
	accepted, res, err := h.Use.Accept(ctx, h.Caller(ctx), rpcdevice.Ref(r.Msg.Device))
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(res)
	return connect.NewResponse(&pb.AcceptDeviceResponse{Accepted: accepted, Device: m}), err
}

// GetEndorsement is of the service.
func (h *Handler) GetEndorsement(ctx context.Context, r *connect.Request[pb.GetEndorsementRequest]) (*connect.Response[pb.Endorsement], error) {
	e, err := h.Use.Endorsement(ctx, h.Caller(ctx), rpcdevice.Ref(r.Msg.Device), r.Msg.Issuers)
	if err != nil {
		return nil, err
	}
	out := &pb.Endorsement{DeviceId: e.Device.ID, AssetTag: e.Device.AssetTag, EkHash: e.Seen.EKHash, Trusted: e.Chain.Trusted,
		Authorities: e.Chain.Authorities(), Missing: e.Chain.Missing, MissingUrl: e.Chain.MissingURL, Refused: e.Seen.Refused}
	for _, c := range e.Chain.Links {
		sum := sha256.Sum256(c.Raw)
		out.Chain = append(out.Chain, &pb.EndorsementLink{Subject: c.Subject.String(), Issuer: c.Issuer.String(), Serial: c.SerialNumber.String(),
			NotAfter: c.NotAfter.Unix(), Sha256: hex.EncodeToString(sum[:])})
	}
	return connect.NewResponse(out), nil
}

// ApproveEndorsement is of the service.
func (h *Handler) ApproveEndorsement(ctx context.Context, r *connect.Request[pb.ApproveEndorsementRequest]) (*connect.Response[pb.Resource], error) {
	return answer(h.Use.Approve(ctx, h.Caller(ctx), rpcdevice.Ref(r.Msg.Device), r.Msg.EkHash))
}
