// Package enroll is the device's side of an enrollment.
package enroll

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"io"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Request asks for an enrollment of the device behind Key. Certificate is the DER of the caller's certificate.
type Request struct {
	User        string
	Certificate []byte
	SessionKey  crypto.PublicKey
	Key         ceremony.Key
	Claims      device.Data
	Token       string
	Register    bool
	Auto        bool // nobody typed it: device_trust.auto_enroll
	OS          device.OS
	AssetTag    string
	OTP         string
	// Registered is told, before the ceremony, when the device was put in the inventory just now.
	Registered func()
}

// Run runs one enrollment on a connection that shows Certificate.
func Run(ctx context.Context, a client.Address, c *client.Cluster, req Request) (ceremony.Welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	spki, err := x509.MarshalPKIXPublicKey(req.SessionKey)
	if err != nil {
		return ceremony.Welcome{}, err
	}
	shown := sha256.Sum256(req.Certificate)
	prover, err := ceremony.NewProver(ceremony.Binding{Purpose: ceremony.Enroll, ClusterCA: cluster.PinHash(a.Authority), User: req.User, Upgraded: shown[:], SessionKey: spki}, req.Key)
	if err != nil {
		return ceremony.Welcome{}, err
	}
	h, base, opts := c.Transport()
	e := call{sallyportv1connect.NewTrustServiceClient(h, base, opts...).Enroll(ctx)}
	defer func() {
		_ = e.stream.CloseRequest()
		_ = e.stream.CloseResponse()
	}()
	start := &pb.EnrollStart{SessionKey: spki, Register: req.Register, Auto: req.Auto, OsType: string(req.OS), AssetTag: req.AssetTag, Otp: req.OTP, WithToken: req.Token != ""}
	if err := e.send(&pb.EnrollRequest{Step: &pb.EnrollRequest_Start{Start: start}}); err != nil {
		return ceremony.Welcome{}, err
	}
	m, err := e.receive()
	if err != nil {
		return ceremony.Welcome{}, err
	}
	if m.GetReady().GetRegistered() && req.Registered != nil {
		req.Registered()
	}
	hello, next, err := prover.Hello(ceremony.Introduction{Token: req.Token, Claims: req.Claims})
	if err != nil {
		return ceremony.Welcome{}, err
	}
	challenge, err := e.exchange(hello)
	if err != nil {
		return ceremony.Welcome{}, err
	}
	answers, await, err := next.Proof(challenge)
	if err != nil {
		return ceremony.Welcome{}, err
	}
	last := len(answers) - 1
	for _, a := range answers[:last] {
		if err := e.send(&pb.EnrollRequest{Step: &pb.EnrollRequest_Device{Device: a}}); err != nil {
			return ceremony.Welcome{}, err
		}
	}
	welcome, err := e.exchange(answers[last])
	if err != nil {
		return ceremony.Welcome{}, err
	}
	return await.Welcome(welcome)
}

type call struct {
	stream *connect.BidiStreamForClient[pb.EnrollRequest, pb.EnrollResponse]
}

func (e call) send(m *pb.EnrollRequest) error {
	err := e.stream.Send(m)
	if errors.Is(err, io.EOF) {
		if _, rerr := e.stream.Receive(); rerr != nil {
			return client.FromRPC(rerr)
		}
	}
	return client.FromRPC(err)
}

func (e call) receive() (*pb.EnrollResponse, error) {
	m, err := e.stream.Receive()
	return m, client.FromRPC(err)
}

func (e call) exchange(msg []byte) ([]byte, error) {
	if err := e.send(&pb.EnrollRequest{Step: &pb.EnrollRequest_Device{Device: msg}}); err != nil {
		return nil, err
	}
	m, err := e.receive()
	if err != nil {
		return nil, err
	}
	if m.GetDevice() == nil {
		return nil, fault.New(fault.Invalid, "the server answered out of order")
	}
	return m.GetDevice(), nil
}
