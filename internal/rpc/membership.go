package rpc

import (
	"context"

	"connectrpc.com/connect"
	"golang.org/x/crypto/ssh"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/membership"
	"github.com/sallyport/sallyport/internal/wire"
)

type membershipHandler struct{ s *Server }

// hostKeys reads a host's two public keys; the SSH one may be missing.
func hostKeys(r *membership.Request, tlsKey, sshKey []byte) error {
	var err error
	if r.TLSKey, err = wire.PublicKey(tlsKey); err != nil {
		return err
	}
	if len(sshKey) > 0 {
		if r.SSHKey, err = ssh.ParsePublicKey(sshKey); err != nil {
			return fault.New(fault.Invalid, "the SSH host key is no public key").Wrapping(err)
		}
	}
	return nil
}

func (h *membershipHandler) Join(ctx context.Context, r *connect.Request[pb.JoinRequest]) (*connect.Response[pb.HostCertificates], error) {
	m := r.Msg
	req := membership.Request{Token: m.Token, Role: identity.HostRole(m.Role), Name: m.Name, PublicAddr: m.PublicAddr, Version: m.Version, Protocol: m.ProtocolVersion}
	if err := hostKeys(&req, m.TlsKey, m.SshKey); err != nil {
		return nil, err
	}
	g, err := h.s.use.Membership.Join(ctx, caller(ctx), req)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(h.certificates(g)), nil
}

func (h *membershipHandler) Renew(ctx context.Context, r *connect.Request[pb.RenewRequest]) (*connect.Response[pb.HostCertificates], error) {
	m := r.Msg
	req := membership.Request{PublicAddr: m.PublicAddr, Version: m.Version, Protocol: m.ProtocolVersion}
	if err := hostKeys(&req, m.TlsKey, m.SshKey); err != nil {
		return nil, err
	}
	g, err := h.s.use.Membership.Renew(ctx, caller(ctx), req)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(h.certificates(g)), nil
}

func (h *membershipHandler) certificates(g membership.Granted) *pb.HostCertificates {
	out := &pb.HostCertificates{HostId: g.Host.ID, Name: g.Host.Name, Notice: g.Notice, Tls: g.TLS,
		TlsHostAuthority: h.s.public.TLSHost.Raw, ClusterName: g.Host.Cluster}
	if g.SSH != nil {
		out.Ssh = g.SSH.Marshal()
	}
	return out
}
