// Package device answers TrustService: it carries enrollments and what administrators do with one device.
package device

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/trust"
	"github.com/sallyport/sallyport/internal/wire"
)

// EnrollTime is how long one enrollment may take: TPMs are slow, and somebody may have to allow it.
const EnrollTime = 5 * time.Minute

// Handler is a sallyportv1connect.TrustServiceHandler. Caller tells who makes a call.
type Handler struct {
	Use    *trust.Service
	Caller func(context.Context) identity.Caller
}

// Ref is the device that a message names.
func Ref(r *pb.DeviceRef) trust.Ref {
	os, _ := device.ParseOS(r.GetOsType())
	return trust.Ref{ID: r.GetDeviceId(), Tag: r.GetAssetTag(), OS: os}
}

// Enroll is of the service.
func (h *Handler) Enroll(ctx context.Context, stream *connect.BidiStream[pb.EnrollRequest, pb.EnrollResponse]) error {
	ctx, cancel := context.WithTimeout(ctx, EnrollTime)
	defer cancel()
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(fault.Invalid, "an enrollment begins with its start")
	}
	key, err := wire.PublicKey(start.SessionKey)
	if err != nil {
		return err
	}
	e := trust.EnrollStart{Key: key, WithToken: start.WithToken, Register: start.Register, Auto: start.Auto, OS: device.OS(start.OsType),
		AssetTag: start.AssetTag, Code: start.Otp}
	ready := func(_ context.Context, registered bool) error {
		return stream.Send(&pb.EnrollResponse{Step: &pb.EnrollResponse_Ready{Ready: &pb.EnrollReady{Registered: registered}}})
	}
	return h.Use.Enroll(ctx, h.Caller(ctx), e, ready, &enrollStream{stream})
}

type enrollStream struct {
	stream *connect.BidiStream[pb.EnrollRequest, pb.EnrollResponse]
}

// Receive is of trust.EnrollExchanger.
func (e *enrollStream) Receive(context.Context) ([]byte, error) {
	m, err := e.stream.Receive()
	if errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "the enrollment was broken off").WithReason("broken_off")
	}
	if err != nil {
		return nil, err
	}
	d, ok := m.Step.(*pb.EnrollRequest_Device)
	if !ok {
		return nil, fault.New(fault.Invalid, "an enrollment message out of order").WithReason("enroll_order")
	}
	return d.Device, nil
}

// Exchange is of trust.Exchanger.
func (e *enrollStream) Exchange(ctx context.Context, msg []byte) ([]byte, error) {
	if err := e.Send(ctx, msg); err != nil {
		return nil, err
	}
	return e.Receive(ctx)
}

// Send is of trust.Exchanger.
func (e *enrollStream) Send(_ context.Context, msg []byte) error {
	return e.stream.Send(&pb.EnrollResponse{Step: &pb.EnrollResponse_Device{Device: msg}})
}

// RegisterDevice is of the service.
func (h *Handler) RegisterDevice(ctx context.Context, r *connect.Request[pb.RegisterDeviceRequest]) (*connect.Response[pb.RegisterDeviceResponse], error) {
	d := device.Device{OSType: device.OS(r.Msg.OsType), AssetTag: r.Msg.AssetTag, Owner: r.Msg.Owner, EKHash: r.Msg.EkHash,
		Source: &device.Source{Name: r.Msg.Source, Origin: "api"}}
	res, err := h.Use.Register(ctx, h.Caller(ctx), d)
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(res)
	return connect.NewResponse(&pb.RegisterDeviceResponse{Device: m}), err
}

// CreateEnrollToken is of the service.
func (h *Handler) CreateEnrollToken(ctx context.Context, r *connect.Request[pb.CreateEnrollTokenRequest]) (*connect.Response[pb.CreateEnrollTokenResponse], error) {
	token, expires, d, err := h.Use.Token(ctx, h.Caller(ctx), Ref(r.Msg.Device), r.Msg.Owner, time.Duration(r.Msg.TtlSeconds)*time.Second)
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(manifest.New(d, 0))
	return connect.NewResponse(&pb.CreateEnrollTokenResponse{Token: token, Expires: timestamppb.New(expires), Device: m}), err
}

// ListEnrollTokens is of the service.
func (h *Handler) ListEnrollTokens(ctx context.Context, _ *connect.Request[pb.ListEnrollTokensRequest]) (*connect.Response[pb.ListEnrollTokensResponse], error) {
	list, err := h.Use.Tokens(ctx, h.Caller(ctx))
	if err != nil {
		return nil, err
	}
	out := &pb.ListEnrollTokensResponse{}
	for _, t := range list {
		out.Tokens = append(out.Tokens, &pb.EnrollToken{DeviceId: t.DeviceID, OsType: string(t.Device.OSType), AssetTag: t.Device.AssetTag,
			Owner: t.Owner, CreatedBy: t.CreatedBy, Expires: timestamppb.New(t.Expires)})
	}
	return connect.NewResponse(out), nil
}

// DeleteEnrollToken is of the service.
func (h *Handler) DeleteEnrollToken(ctx context.Context, r *connect.Request[pb.DeviceRef]) (*connect.Response[pb.DeleteEnrollTokenResponse], error) {
	return connect.NewResponse(&pb.DeleteEnrollTokenResponse{}), h.Use.RevokeToken(ctx, h.Caller(ctx), Ref(r.Msg))
}

// UnenrollDevice is of the service.
func (h *Handler) UnenrollDevice(ctx context.Context, r *connect.Request[pb.DeviceRef]) (*connect.Response[pb.Resource], error) {
	res, err := h.Use.Unenroll(ctx, h.Caller(ctx), Ref(r.Msg))
	if err != nil {
		return nil, err
	}
	m, err := wire.Resource(res)
	return connect.NewResponse(m), err
}

// GetMyDevice is of the service.
func (h *Handler) GetMyDevice(ctx context.Context, r *connect.Request[pb.DeviceRef]) (*connect.Response[pb.GetMyDeviceResponse], error) {
	d, err := h.Use.Mine(ctx, h.Caller(ctx), Ref(r.Msg))
	if fault.Is(err, fault.NotFound) {
		return connect.NewResponse(&pb.GetMyDeviceResponse{}), nil
	}
	if err != nil {
		return nil, err
	}
	out := &pb.GetMyDeviceResponse{Registered: true, Enrolled: d.Enrolled(), DeviceId: d.ID, AssetTag: d.AssetTag, Owner: d.Owner}
	for i, c := range d.Credentials {
		if u := h.Caller(ctx).User; i == 0 || u != nil && c.Owner == u.Name {
			out.CredentialId, out.Level, out.Owner = c.ID, string(c.Attestation), c.Owner
		}
	}
	if d.Health != nil {
		for _, f := range d.Health.Findings {
			out.Findings = append(out.Findings, f.Reason+": "+f.Text)
		}
	}
	return connect.NewResponse(out), nil
}
