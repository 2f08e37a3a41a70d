package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/wire"
)

// Cluster calls one cluster's auth server. Close it.
type Cluster struct {
	http   *http.Client
	base   string
	opts   []connect.ClientOption
	close  func()
	login  sallyportv1connect.LoginServiceClient
	trust  sallyportv1connect.TrustServiceClient
	roster sallyportv1connect.RosterServiceClient
	events sallyportv1connect.EventServiceClient
}

// maxMessage bounds one answer, in bytes.
const maxMessage = 16 << 20

// Call reaches auth through the address, with a client certificate or, for a login, without. No connection is made
// before the first call.
func (a Address) Call(cert *tls.Certificate) *Cluster {
	t := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return a.tls(ctx, wanted{role: identity.RoleAuth, alpn: []string{tunnel.ALPNAuth, "h2"}, cert: cert})
	}
	return newCluster(t, "https://auth."+a.Cluster)
}

// CallWith is Call with a certificate that is renewed meanwhile.
func (a Address) CallWith(cert func() *tls.Certificate) *Cluster {
	t := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return a.tls(ctx, wanted{role: identity.RoleAuth, alpn: []string{tunnel.ALPNAuth, "h2"}, cert: cert()})
	}
	return newCluster(t, "https://auth."+a.Cluster)
}

// CallAuth calls auth at its own listener, without a certificate: a proxy that joins.
func (a Address) CallAuth() *Cluster {
	t := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		return a.tls(ctx, wanted{role: identity.RoleAuth, alpn: []string{"h2"}})
	}
	return newCluster(t, "https://auth."+a.Cluster)
}

// CallOver reaches auth over streams that open gives: a proxy's link.
func (a Address) CallOver(open func(ctx context.Context) (net.Conn, error), cert func() *tls.Certificate) *Cluster {
	t := &http.Transport{ForceAttemptHTTP2: true, IdleConnTimeout: time.Minute}
	t.DialTLSContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		raw, err := open(ctx)
		if err != nil {
			return nil, err
		}
		return a.over(ctx, raw, cert)
	}
	return newCluster(t, "https://auth."+a.Cluster)
}

// Local calls through the admin socket of a server on this machine.
func Local(socket string) *Cluster {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	t := &http.Transport{Protocols: protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: dialTime}).DialContext(ctx, "unix", socket)
	}}
	return newCluster(t, "http://local")
}

// A connection that says nothing for pingAfter is asked whether it is there, and given up after pingWait more: a cable
// that was pulled tells nobody.
const (
	pingAfter = 10 * time.Second
	pingWait  = 5 * time.Second
)

func newCluster(t *http.Transport, base string) *Cluster {
	t.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingWait}
	h := &http.Client{Transport: t}
	opts := []connect.ClientOption{connect.WithReadMaxBytes(maxMessage), connect.WithInterceptors(faults{})}
	return &Cluster{http: h, base: base, opts: opts, close: t.CloseIdleConnections,
		login:  sallyportv1connect.NewLoginServiceClient(h, base, opts...),
		trust:  sallyportv1connect.NewTrustServiceClient(h, base, opts...),
		roster: sallyportv1connect.NewRosterServiceClient(h, base, opts...),
		events: sallyportv1connect.NewEventServiceClient(h, base, opts...),
	}
}

// Transport is what further services of the same server are called with.
func (c *Cluster) Transport() (connect.HTTPClient, string, []connect.ClientOption) {
	return c.http, c.base, c.opts
}

// Close gives the connections back.
func (c *Cluster) Close() { c.close() }

// callTime bounds a unary call.
const callTime = 90 * time.Second

// faults turns RPC errors back into faults and bounds unary calls.
type faults struct{}

// WrapUnary is of connect.Interceptor.
func (faults) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		res, err := next(ctx, req)
		return res, FromRPC(err)
	}
}

// WrapStreamingClient is of connect.Interceptor.
func (faults) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler is of connect.Interceptor.
func (faults) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

// FromRPC gives the fault of a failed call: what the server said, or what kept the call from it.
func FromRPC(err error) error {
	if err == nil {
		return nil
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	err = wire.FromStatus(err)
	if errors.As(err, &f) && f.Kind == fault.Unavailable {
		var inner *net.OpError
		if errors.As(f.Err, &inner) {
			return f.WithCause("%v", inner)
		}
	}
	return err
}
