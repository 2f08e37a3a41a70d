package client

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/manifest"
)

// DeviceRef names a device.
type DeviceRef struct {
	ID  string
	Tag string
	OS  device.OS
}

// Message is the reference as it travels.
func (r DeviceRef) Message() *pb.DeviceRef {
	return &pb.DeviceRef{DeviceId: r.ID, AssetTag: r.Tag, OsType: string(r.OS)}
}

// RegisterDevice puts a device in the inventory.
func (c *Cluster) RegisterDevice(ctx context.Context, d device.Device) (*device.Device, error) {
	req := &pb.RegisterDeviceRequest{OsType: string(d.OSType), AssetTag: d.AssetTag, Owner: d.Owner, EkHash: d.EKHash}
	if d.Source != nil {
		req.Source = d.Source.Name
	}
	r, err := c.trust.RegisterDevice(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return DeviceOf(r.Msg.Device)
}

// DeviceOf reads a device that the cluster sent.
func DeviceOf(m *pb.Resource) (*device.Device, error) {
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

// Unenroll takes every credential from a device.
func (c *Cluster) Unenroll(ctx context.Context, r DeviceRef) (*device.Device, error) {
	res, err := c.trust.UnenrollDevice(ctx, connect.NewRequest(r.Message()))
	if err != nil {
		return nil, err
	}
	return DeviceOf(res.Msg)
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
	// Findings are what was noticed of the device and not accepted.
	Findings []string `json:"findings,omitempty"`
}

// MyDevice says what a device is to the cluster; one that the caller may not know of is not registered.
func (c *Cluster) MyDevice(ctx context.Context, r DeviceRef) (DeviceStanding, error) {
	res, err := c.trust.GetMyDevice(ctx, connect.NewRequest(r.Message()))
	if err != nil {
		return DeviceStanding{}, err
	}
	m := res.Msg
	return DeviceStanding{m.Registered, m.Enrolled, m.DeviceId, m.AssetTag, m.Owner, m.CredentialId, m.Level, m.Findings}, nil
}
