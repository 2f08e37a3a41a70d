package rpc

import (
	"context"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/wire"
)

// loginTime is how long a person may take over one login.
const loginTime = 5 * time.Minute

type loginHandler struct{ s *Server }

func (h *loginHandler) Hello(context.Context, *connect.Request[pb.HelloRequest]) (*connect.Response[pb.HelloResponse], error) {
	return connect.NewResponse(&pb.HelloResponse{ClusterName: h.s.use.Roster.CA.Cluster(), Version: cluster.Version,
		ProtocolVersion: cluster.ProtocolVersion, SecondFactors: h.s.use.Login.Settings().SecondFactors}), nil
}

func (h *loginHandler) ChangePassword(ctx context.Context, r *connect.Request[pb.ChangePasswordRequest]) (*connect.Response[pb.ChangePasswordResponse], error) {
	err := h.s.use.Login.ChangePassword(ctx, caller(ctx), r.Msg.OldPassword, r.Msg.NewPassword, r.Msg.Otp)
	return connect.NewResponse(&pb.ChangePasswordResponse{}), err
}

func (h *loginHandler) Login(ctx context.Context, stream *connect.BidiStream[pb.LoginRequest, pb.LoginResponse]) error {
	ctx, cancel := context.WithTimeout(ctx, loginTime)
	defer cancel()
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(fault.Invalid, "a login begins with its start")
	}
	key, err := wire.PublicKey(start.SessionKey)
	if err != nil {
		return err
	}
	begin := login.Start{User: start.User, Invite: start.Invite, Reissue: start.Reissue, Token: start.Token,
		TTL: time.Duration(start.TtlSeconds) * time.Second, Key: key, ClientVersion: start.ClientVersion}
	var result login.Result
	if start.Bot {
		result, err = h.s.use.Bots.Login(ctx, caller(ctx), begin, &conversation{stream: stream})
	} else {
		auto := h.s.use.Login.Settings().DeviceTrust.AutoEnroll
		result, err = h.s.use.Login.Login(ctx, caller(ctx), begin, &conversation{stream: stream, autoEnroll: auto})
	}
	if err != nil {
		return err
	}
	return stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_Certificates{Certificates: &pb.Certificates{
		Ssh: result.SSH.Marshal(), Tls: result.TLS, DialTicket: result.DialTicket, Notices: result.Notices,
		SshHostAuthorities: [][]byte{h.s.public.SSHHost.Marshal()}, SshJumpAuthorities: [][]byte{h.s.public.SSHJump.Marshal()},
		Expires: timestamppb.New(result.Expires)}}})
}

// conversation is a login.Conversation over a stream.
type conversation struct {
	stream     *connect.BidiStream[pb.LoginRequest, pb.LoginResponse]
	autoEnroll bool // registered devices enroll behind the login
}

// receive waits for the next message, for the stream's own deadline.
func (c *conversation) receive() (*pb.LoginRequest, error) {
	m, err := c.stream.Receive()
	if errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "the login was broken off").WithReason("broken_off")
	}
	return m, err
}

var prompts = map[login.PromptKind]pb.Prompt_Kind{login.AskPassword: pb.Prompt_KIND_PASSWORD,
	login.AskNewPassword: pb.Prompt_KIND_NEW_PASSWORD, login.AskOTP: pb.Prompt_KIND_OTP, login.AskNewOTP: pb.Prompt_KIND_NEW_OTP}

// Ask is of login.Conversation.
func (c *conversation) Ask(_ context.Context, p login.Prompt) (string, error) {
	err := c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_Prompt{Prompt: &pb.Prompt{Kind: prompts[p.Kind], OtpUrl: p.URL}}})
	if err != nil {
		return "", err
	}
	m, err := c.receive()
	if err != nil {
		return "", err
	}
	if _, ok := m.Step.(*pb.LoginRequest_Answer); !ok {
		return "", fault.New(fault.Invalid, "a login message out of order").WithReason("login_order")
	}
	return m.GetAnswer(), nil
}

// Hello is of login.Conversation.
func (c *conversation) Hello(_ context.Context, mode string) ([]byte, string, error) {
	if err := c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_DeviceWanted{DeviceWanted: &pb.DeviceWanted{Mode: mode, AutoEnroll: c.autoEnroll}}}); err != nil {
		return nil, "", err
	}
	m, err := c.receive()
	if err != nil {
		return nil, "", err
	}
	switch step := m.Step.(type) {
	case *pb.LoginRequest_Device:
		return step.Device, "", nil
	case *pb.LoginRequest_NoDevice:
		return nil, step.NoDevice.GetReason(), nil
	}
	return nil, "", fault.New(fault.Invalid, "a login message out of order").WithReason("login_order")
}

// Exchange is of login.Conversation.
func (c *conversation) Exchange(ctx context.Context, msg []byte) ([]byte, error) {
	if err := c.Send(ctx, msg); err != nil {
		return nil, err
	}
	return c.Receive(ctx)
}

// Receive is of login.Conversation.
func (c *conversation) Receive(context.Context) ([]byte, error) {
	m, err := c.receive()
	if err != nil {
		return nil, err
	}
	switch step := m.Step.(type) {
	case *pb.LoginRequest_Device:
		return step.Device, nil
	case *pb.LoginRequest_NoDevice:
		return nil, fault.New(fault.Denied, "the device gave no proof").WithReason("device_gave_up").WithCause("%q", step.NoDevice.GetReason())
	}
	return nil, fault.New(fault.Invalid, "a login message out of order").WithReason("login_order")
}

// Send is of login.Conversation.
func (c *conversation) Send(_ context.Context, msg []byte) error {
	return c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_Device{Device: msg}})
}

// Refuse is of login.Conversation.
func (c *conversation) Refuse(_ context.Context, f *fault.Error) error {
	return c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_DeviceRefused{DeviceRefused: wire.Fault(f)}})
}
