package client

import (
	"context"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/wire"
)

// Hindrances says which rules would refuse this login for its device, and what time it is at the server.
func (c *Cluster) Hindrances(ctx context.Context) ([]*fault.Error, time.Time, error) {
	r, err := c.roster.GetHindrances(ctx, connect.NewRequest(&pb.GetHindrancesRequest{}))
	if err != nil {
		return nil, time.Time{}, err
	}
	var out []*fault.Error
	for _, f := range r.Msg.Hindrances {
		out = append(out, wire.FromFault(f))
	}
	return out, r.Msg.Now.AsTime(), nil
}
