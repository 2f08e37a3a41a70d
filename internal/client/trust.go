package client

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
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
)

// EnrollRequest asks for an enrollment of the device behind Key. Certificate is the DER of the caller's certificate.
type EnrollRequest struct {
	User        string
	Certificate []byte
	SessionKey  crypto.PublicKey
	Key         ceremony.Key
	Claims      device.Data
	Token       string
	Register    bool
	OS          device.OS
	AssetTag    string
	OTP         string
	// Registered is told, before the ceremony, when the device was put in the inventory just now.
	Registered func()
}

// Enroll runs one enrollment on a connection that shows Certificate.
func (a Address) Enroll(ctx context.Context, c *Cluster, req EnrollRequest) (ceremony.Welcome, error) {
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
	e := enrollCall{c.trust.Enroll(ctx)}
	defer func() {
		_ = e.stream.CloseRequest()
		_ = e.stream.CloseResponse()
	}()
	start := &pb.EnrollStart{SessionKey: spki, Register: req.Register, OsType: string(req.OS), AssetTag: req.AssetTag, Otp: req.OTP, WithToken: req.Token != ""}
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

type enrollCall struct {
	stream *connect.BidiStreamForClient[pb.EnrollRequest, pb.EnrollResponse]
}

func (e enrollCall) send(m *pb.EnrollRequest) error {
	err := e.stream.Send(m)
	if errors.Is(err, io.EOF) {
		if _, rerr := e.stream.Receive(); rerr != nil {
			return FromRPC(rerr)
		}
	}
	return FromRPC(err)
}

func (e enrollCall) receive() (*pb.EnrollResponse, error) {
	m, err := e.stream.Receive()
	return m, FromRPC(err)
}

func (e enrollCall) exchange(msg []byte) ([]byte, error) {
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

// DeviceRef names a device.
type DeviceRef struct {
	ID  string
	Tag string
	OS  device.OS
}

func (r DeviceRef) message() *pb.DeviceRef {
	return &pb.DeviceRef{DeviceId: r.ID, AssetTag: r.Tag, OsType: string(r.OS)}
}

// RegisterDevice puts a device in the inventory.
func (c *Cluster) RegisterDevice(ctx context.Context, d device.Device) (*device.Device, error) {
	req := &pb.RegisterDeviceRequest{OsType: string(d.OSType), AssetTag: d.AssetTag, Owner: d.Owner}
	if d.Source != nil {
		req.Source = d.Source.Name
	}
	r, err := c.trust.RegisterDevice(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return deviceOf(r.Msg.Device)
}

func deviceOf(m *pb.Resource) (*device.Device, error) {
	res, err := manifest.Decode(m.GetJson())
	if err != nil {
		return nil, err
	}
	d, ok := res.Spec.(*device.Device)
	if !ok {
		return nil, errors.New("not a device")
	}
	return d, nil
}

// EnrollToken makes a device's enrollment token.
func (c *Cluster) EnrollToken(ctx context.Context, r DeviceRef, owner string, ttl time.Duration) (token string, expires time.Time, d *device.Device, err error) {
	res, err := c.trust.CreateEnrollToken(ctx, connect.NewRequest(&pb.CreateEnrollTokenRequest{Device: r.message(), Owner: owner, TtlSeconds: int64(ttl / time.Second)}))
	if err != nil {
		return "", time.Time{}, nil, err
	}
	d, err = deviceOf(res.Msg.Device)
	return res.Msg.Token, res.Msg.Expires.AsTime(), d, err
}

// EnrollTokenInfo is a token without its secret.
type EnrollTokenInfo struct {
	DeviceID  string    `json:"device_id"`
	OSType    string    `json:"os_type"`
	AssetTag  string    `json:"asset_tag"`
	Owner     string    `json:"owner,omitempty"`
	CreatedBy string    `json:"created_by"`
	Expires   time.Time `json:"expires"`
}

// EnrollTokens lists enrollment tokens.
func (c *Cluster) EnrollTokens(ctx context.Context) ([]EnrollTokenInfo, error) {
	r, err := c.trust.ListEnrollTokens(ctx, connect.NewRequest(&pb.ListEnrollTokensRequest{}))
	if err != nil {
		return nil, err
	}
	out := []EnrollTokenInfo{}
	for _, t := range r.Msg.Tokens {
		out = append(out, EnrollTokenInfo{t.DeviceId, t.OsType, t.AssetTag, t.Owner, t.CreatedBy, t.Expires.AsTime()})
	}
	return out, nil
}

// RevokeEnrollToken takes a device's token back.
func (c *Cluster) RevokeEnrollToken(ctx context.Context, r DeviceRef) error {
	_, err := c.trust.DeleteEnrollToken(ctx, connect.NewRequest(r.message()))
	return err
}

// Unenroll takes every credential from a device.
func (c *Cluster) Unenroll(ctx context.Context, r DeviceRef) (*device.Device, error) {
	res, err := c.trust.UnenrollDevice(ctx, connect.NewRequest(r.message()))
	if err != nil {
		return nil, err
	}
	return deviceOf(res.Msg)
}

// DeviceStanding is what a device is to the cluster.
type DeviceStanding struct {
	Registered   bool   `json:"registered"`
	Enrolled     bool   `json:"enrolled"`
	DeviceID     string `json:"device_id,omitempty"`
	AssetTag     string `json:"asset_tag,omitempty"`
	Owner        string `json:"owner,omitempty"`
	CredentialID string `json:"credential_id,omitempty"`
	Level        string `json:"level,omitempty"`
}

// MyDevice says what a device is to the cluster; one that the caller may not know of is not registered.
func (c *Cluster) MyDevice(ctx context.Context, r DeviceRef) (DeviceStanding, error) {
	res, err := c.trust.GetMyDevice(ctx, connect.NewRequest(r.message()))
	if err != nil {
		return DeviceStanding{}, err
	}
	m := res.Msg
	return DeviceStanding{m.Registered, m.Enrolled, m.DeviceId, m.AssetTag, m.Owner, m.CredentialId, m.Level}, nil
}
