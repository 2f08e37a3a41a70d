// Package fleet is the calls of those who administer devices.
package fleet

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/device"
)

// Fleet calls a cluster, whose connection it uses.
type Fleet struct {
	trust sallyportv1connect.TrustServiceClient
	fleet sallyportv1connect.FleetServiceClient
}

// Of is the fleet of a cluster.
func Of(c *client.Cluster) *Fleet {
	h, base, opts := c.Transport()
	return &Fleet{sallyportv1connect.NewTrustServiceClient(h, base, opts...), sallyportv1connect.NewFleetServiceClient(h, base, opts...)}
}

// Token is a device's enrollment token, printed once.
type Token struct {
	Secret  string
	Expires time.Time
	Device  *device.Device
}

// EnrollToken makes a device's enrollment token.
func (f *Fleet) EnrollToken(ctx context.Context, r client.DeviceRef, owner string, ttl time.Duration) (Token, error) {
	res, err := f.trust.CreateEnrollToken(ctx, connect.NewRequest(&pb.CreateEnrollTokenRequest{Device: r.Message(), Owner: owner, TtlSeconds: int64(ttl / time.Second)}))
	if err != nil {
		return Token{}, err
	}
	d, err := client.DeviceOf(res.Msg.Device)
	return Token{res.Msg.Token, res.Msg.Expires.AsTime(), d}, err
}

// TokenInfo is a token without its secret.
type TokenInfo struct {
	DeviceID  string    `json:"device_id"`
	OSType    string    `json:"os_type"`
	AssetTag  string    `json:"asset_tag"`
	Owner     string    `json:"owner,omitempty"`
	CreatedBy string    `json:"created_by"`
	Expires   time.Time `json:"expires"`
}

// EnrollTokens lists enrollment tokens.
func (f *Fleet) EnrollTokens(ctx context.Context) ([]TokenInfo, error) {
	r, err := f.trust.ListEnrollTokens(ctx, connect.NewRequest(&pb.ListEnrollTokensRequest{}))
	if err != nil {
		return nil, err
	}
	out := []TokenInfo{}
	for _, t := range r.Msg.Tokens {
		out = append(out, TokenInfo{t.DeviceId, t.OsType, t.AssetTag, t.Owner, t.CreatedBy, t.Expires.AsTime()})
	}
	return out, nil
}

// RevokeEnrollToken takes a device's token back.
func (f *Fleet) RevokeEnrollToken(ctx context.Context, r client.DeviceRef) error {
	_, err := f.trust.DeleteEnrollToken(ctx, connect.NewRequest(r.Message()))
	return err
}

// Listing selects devices; empty fields select all.
type Listing struct {
	OS      device.OS
	Status  string
	Owner   string
	Level   string
	Finding string
	Query   string
	After   string
	Limit   int
}

// List reads a page of devices, and the id behind which the next begins.
func (f *Fleet) List(ctx context.Context, l Listing) ([]*device.Device, string, error) {
	r, err := f.fleet.ListDevices(ctx, connect.NewRequest(&pb.ListDevicesRequest{OsType: string(l.OS), EnrollStatus: l.Status, Owner: l.Owner,
		Level: l.Level, Finding: l.Finding, Query: l.Query, After: l.After, Limit: uint32(max(l.Limit, 0))}))
	if err != nil {
		return nil, "", err
	}
	var out []*device.Device
	for _, m := range r.Msg.Devices {
		d, err := client.DeviceOf(m)
		if err != nil {
			return nil, "", err
		}
		out = append(out, d)
	}
	return out, r.Msg.Next, nil
}

// MaxImport is how many devices one Import takes.
const MaxImport = 500

// Imported is what became of one device: created, exists or refused, and why.
type Imported struct {
	Outcome  string `json:"outcome"`
	Reason   string `json:"reason,omitempty"`
	DeviceID string `json:"device_id,omitempty"`
}

// Import registers at most MaxImport devices; what became of each is at its place.
func (f *Fleet) Import(ctx context.Context, list []device.Device, origin string, dryRun bool) ([]Imported, error) {
	req := &pb.ImportDevicesRequest{Origin: origin, DryRun: dryRun}
	for _, d := range list {
		req.Devices = append(req.Devices, &pb.ImportDevice{OsType: string(d.OSType), AssetTag: d.AssetTag, Owner: d.Owner, EkHash: d.EKHash})
	}
	r, err := f.fleet.ImportDevices(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	var out []Imported
	for _, x := range r.Msg.Results {
		out = append(out, Imported{x.Outcome, x.Reason, x.DeviceId})
	}
	return out, nil
}

// Baseline says what a device is to boot.
type Baseline struct {
	PCRs   []uint
	Accept bool
	Clear  bool
}

// SetBaseline pins what a device boots, or takes the pin away.
func (f *Fleet) SetBaseline(ctx context.Context, r client.DeviceRef, b Baseline) (*device.Device, error) {
	req := &pb.SetBaselineRequest{Device: r.Message(), Accept: b.Accept, Clear: b.Clear}
	for _, pcr := range b.PCRs {
		req.Pcrs = append(req.Pcrs, uint32(pcr))
	}
	res, err := f.fleet.SetBaseline(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, err
	}
	return client.DeviceOf(res.Msg)
}

// Accept takes what was noticed of a device as it is, and says what that was.
func (f *Fleet) Accept(ctx context.Context, r client.DeviceRef) ([]string, *device.Device, error) {
	res, err := f.fleet.AcceptDevice(ctx, connect.NewRequest(&pb.AcceptDeviceRequest{Device: r.Message()}))
	if err != nil {
		return nil, nil, err
	}
	d, err := client.DeviceOf(res.Msg.Device)
	return res.Msg.Accepted, d, err
}

// Link is a certificate of a chain.
type Link struct {
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
	SHA256   string    `json:"sha256"`
}

// Endorsement is the endorsement key that a device came with, and who vouches for it.
type Endorsement struct {
	DeviceID    string `json:"device_id"`
	AssetTag    string `json:"asset_tag"`
	EKHash      string `json:"ek_hash"`
	Chain       []Link `json:"chain"`
	Trusted     bool   `json:"trusted"`
	Authorities string `json:"authorities,omitempty"`
	Missing     string `json:"missing,omitempty"`
	MissingURL  string `json:"missing_url,omitempty"`
	Refused     string `json:"refused,omitempty"`
}

// Endorsement shows it; issuers is PEM of authorities that may stand behind it.
func (f *Fleet) Endorsement(ctx context.Context, r client.DeviceRef, issuers string) (Endorsement, error) {
	res, err := f.fleet.GetEndorsement(ctx, connect.NewRequest(&pb.GetEndorsementRequest{Device: r.Message(), Issuers: issuers}))
	if err != nil {
		return Endorsement{}, err
	}
	m := res.Msg
	e := Endorsement{DeviceID: m.DeviceId, AssetTag: m.AssetTag, EKHash: m.EkHash, Chain: []Link{}, Trusted: m.Trusted, Authorities: m.Authorities,
		Missing: m.Missing, MissingURL: m.MissingUrl, Refused: m.Refused}
	for _, l := range m.Chain {
		e.Chain = append(e.Chain, Link{l.Subject, l.Issuer, l.Serial, time.Unix(l.NotAfter, 0).UTC(), l.Sha256})
	}
	return e, nil
}

// Approve lets a device enroll with one endorsement key, and with no other.
func (f *Fleet) Approve(ctx context.Context, r client.DeviceRef, ekHash string) error {
	_, err := f.fleet.ApproveEndorsement(ctx, connect.NewRequest(&pb.ApproveEndorsementRequest{Device: r.Message(), EkHash: ekHash}))
	return err
}
