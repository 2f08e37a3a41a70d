// Package wire is values as messages between programs, and back.
package wire

import (
	"crypto"
	"crypto/x509"
	"errors"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
)

// codes is the one table between kinds of faults and RPC codes.
var codes = map[fault.Kind]connect.Code{
	fault.Internal: connect.CodeInternal, fault.Invalid: connect.CodeInvalidArgument, fault.NotFound: connect.CodeNotFound,
	fault.Exists: connect.CodeAlreadyExists, fault.Denied: connect.CodePermissionDenied,
	fault.Unauthenticated: connect.CodeUnauthenticated, fault.Conflict: connect.CodeAborted,
	fault.Exhausted: connect.CodeResourceExhausted, fault.Unavailable: connect.CodeUnavailable,
	fault.Unsupported: connect.CodeUnimplemented,
}

// Fault makes a message of a fault. What a fault wraps, and the text of an internal one, stay here.
func Fault(f *fault.Error) *pb.Fault {
	if f.Kind == fault.Internal {
		return &pb.Fault{Kind: f.Kind.String(), Text: "internal error", Cause: "the server's log has the cause"}
	}
	return &pb.Fault{Kind: f.Kind.String(), Reason: f.Reason, Text: f.Text, Cause: f.Cause, Fix: f.Fix}
}

// FromFault is the inverse of Fault.
func FromFault(m *pb.Fault) *fault.Error {
	return &fault.Error{Kind: fault.ParseKind(m.GetKind()), Reason: m.GetReason(), Text: m.GetText(), Cause: m.GetCause(),
		Fix: m.GetFix()}
}

// Status makes an RPC error of any error; nil stays nil.
func Status(err error) error {
	if err == nil {
		return nil
	}
	var done *connect.Error
	if errors.As(err, &done) {
		return err
	}
	m := Fault(fault.Of(err))
	out := connect.NewError(codes[fault.ParseKind(m.Kind)], errors.New(m.Text))
	if detail, err := connect.NewErrorDetail(m); err == nil {
		out.AddDetail(detail)
	}
	return out
}

// FromStatus makes a fault of an RPC error: the one it carries, else Unavailable with the transport's own words.
func FromStatus(err error) error {
	if err == nil {
		return nil
	}
	var status *connect.Error
	if !errors.As(err, &status) {
		return err
	}
	for _, d := range status.Details() {
		if v, err := d.Value(); err == nil {
			if m, ok := v.(*pb.Fault); ok {
				return FromFault(m)
			}
		}
	}
	for kind, code := range codes {
		if code == status.Code() && kind != fault.Internal {
			return fault.New(kind, "%s", status.Message()).Wrapping(err)
		}
	}
	return fault.New(fault.Unavailable, "the cluster did not answer").WithCause("%s", status.Message()).Wrapping(err)
}

// Resource makes a message of a resource.
func Resource(r *manifest.Resource) (*pb.Resource, error) {
	raw, err := r.JSON()
	if err != nil {
		return nil, err
	}
	return &pb.Resource{Kind: string(r.Kind), Name: r.Metadata.Name, Revision: r.Metadata.Revision, Json: raw}, nil
}

// FromResource reads a resource from a message, as strictly as from a file.
func FromResource(m *pb.Resource) (*manifest.Resource, error) {
	return manifest.ParseJSON(m.GetJson())
}

// Resources makes messages of resources.
func Resources(list []*manifest.Resource) ([]*pb.Resource, error) {
	out := make([]*pb.Resource, 0, len(list))
	for _, r := range list {
		m, err := Resource(r)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// PublicKey reads a session key, SPKI DER.
func PublicKey(der []byte) (crypto.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the session key is no public key").WithReason("bad_key").Wrapping(err)
	}
	return k, nil
}
