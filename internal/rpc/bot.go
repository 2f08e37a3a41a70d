package rpc

import (
	"context"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/login/bots"
)

// Machine is of bots.Conversation.
func (c *conversation) Machine(_ context.Context, first bool) (bots.Offer, error) {
	if err := c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_DeviceWanted{DeviceWanted: &pb.DeviceWanted{Enroll: first}}}); err != nil {
		return bots.Offer{}, err
	}
	m, err := c.receive()
	if err != nil {
		return bots.Offer{}, err
	}
	switch step := m.Step.(type) {
	case *pb.LoginRequest_Device:
		return bots.Offer{Hello: step.Device}, nil
	case *pb.LoginRequest_Enroll:
		if first {
			os, _ := device.ParseOS(step.Enroll.GetOsType())
			return bots.Offer{Hello: step.Enroll.GetHello(), Enroll: true, OS: os, Tag: step.Enroll.GetAssetTag()}, nil
		}
	case *pb.LoginRequest_NoDevice:
		return bots.Offer{}, nil
	}
	return bots.Offer{}, fault.New(fault.Invalid, "a login message out of order").WithReason("login_order")
}

// Sign is of bots.Conversation.
func (c *conversation) Sign(_ context.Context, nonce []byte) (key, signature []byte, err error) {
	if err := c.stream.Send(&pb.LoginResponse{Step: &pb.LoginResponse_BotWanted{BotWanted: &pb.BotWanted{Nonce: nonce}}}); err != nil {
		return nil, nil, err
	}
	m, err := c.receive()
	if err != nil {
		return nil, nil, err
	}
	step, ok := m.Step.(*pb.LoginRequest_Bot)
	if !ok {
		return nil, nil, fault.New(fault.Invalid, "a login message out of order").WithReason("login_order")
	}
	return step.Bot.GetKey(), step.Bot.GetSignature(), nil
}
