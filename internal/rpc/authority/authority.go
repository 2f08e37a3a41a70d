// Package authority answers AuthorityService.
package authority

import (
	"context"
	"net"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/issuance"
	"github.com/sallyport/sallyport/internal/wire"
)

// Handler is a sallyportv1connect.AuthorityServiceHandler. Caller tells who makes a call.
type Handler struct {
	Use    *issuance.Service
	Caller func(context.Context) identity.Caller
}

func (h *Handler) host(ctx context.Context) (identity.Host, error) {
	host := h.Caller(ctx).Host
	if host == nil {
		return identity.Host{}, fault.New(fault.Unauthenticated, "only a host serves")
	}
	return *host, nil
}

// CertifyServed is of sallyportv1connect.AuthorityServiceHandler.
func (h *Handler) CertifyServed(ctx context.Context, r *connect.Request[pb.CertifyServedRequest]) (*connect.Response[pb.CertifyServedResponse], error) {
	host, err := h.host(ctx)
	if err != nil {
		return nil, err
	}
	key, err := wire.PublicKey(r.Msg.Key)
	if err != nil {
		return nil, err
	}
	out, err := h.Use.Certify(ctx, host, key, r.Msg.Names)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.CertifyServedResponse{Tls: out.TLS, Names: out.Names, Refused: out.Refused}), nil
}

// CertifyDatabaseClient is of sallyportv1connect.AuthorityServiceHandler.
func (h *Handler) CertifyDatabaseClient(ctx context.Context, r *connect.Request[pb.CertifyDatabaseClientRequest]) (*connect.Response[pb.DatabaseCertificate], error) {
	host, err := h.host(ctx)
	if err != nil {
		return nil, err
	}
	key, err := wire.PublicKey(r.Msg.Key)
	if err != nil {
		return nil, err
	}
	c, err := h.Use.DatabaseClient(ctx, host, ca.DatabaseRequest{Database: r.Msg.Database, DBUser: r.Msg.DbUser, Key: key})
	return h.certificate(c, err)
}

// CertifyDatabaseServer is of sallyportv1connect.AuthorityServiceHandler.
func (h *Handler) CertifyDatabaseServer(ctx context.Context, r *connect.Request[pb.CertifyDatabaseServerRequest]) (*connect.Response[pb.DatabaseCertificate], error) {
	key, err := wire.PublicKey(r.Msg.Key)
	if err != nil {
		return nil, err
	}
	picture, _ := h.Use.Pictures.Current()
	known := picture.Databases[r.Msg.Database]
	hosts := r.Msg.Hosts
	if len(hosts) == 0 && known != nil {
		host, _, _ := net.SplitHostPort(known.URI)
		hosts = []string{host}
	}
	c, err := h.Use.DatabaseServer(ctx, h.Caller(ctx), ca.DatabaseRequest{Database: r.Msg.Database, Hosts: hosts, Key: key,
		Life: time.Duration(r.Msg.TtlSeconds) * time.Second})
	res, err := h.certificate(c, err)
	if err == nil && known != nil {
		res.Msg.Uri, res.Msg.Protocol = known.URI, string(known.Protocol)
	}
	return res, err
}

func (h *Handler) certificate(c ca.DatabaseCertificate, err error) (*connect.Response[pb.DatabaseCertificate], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&pb.DatabaseCertificate{Tls: c.TLS, Authority: c.Authority, Expires: timestamppb.New(c.Expires)}), nil
}
