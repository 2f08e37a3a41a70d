// Package rpc carries calls to the use cases and back; it decides nothing.
package rpc

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/audit"
	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/census"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/issuance"
	"github.com/sallyport/sallyport/internal/login"
	"github.com/sallyport/sallyport/internal/login/bots"
	"github.com/sallyport/sallyport/internal/membership"
	"github.com/sallyport/sallyport/internal/roster"
	"github.com/sallyport/sallyport/internal/rpc/authority"
	rpccensus "github.com/sallyport/sallyport/internal/rpc/census"
	"github.com/sallyport/sallyport/internal/rpc/device"
	rpcevent "github.com/sallyport/sallyport/internal/rpc/event"
	rpcfeed "github.com/sallyport/sallyport/internal/rpc/feed"
	"github.com/sallyport/sallyport/internal/rpc/fleet"
	rpcrecording "github.com/sallyport/sallyport/internal/rpc/recording"
	"github.com/sallyport/sallyport/internal/snapshot/feed"
	"github.com/sallyport/sallyport/internal/trust"
	fleetcase "github.com/sallyport/sallyport/internal/trust/fleet"
)

// maxMessage bounds one message, in bytes; maxHeader the headers of a request. What is smaller than compressMin goes as
// it is: heartbeats spent more on compression than on all else.
const (
	maxMessage  = 4 << 20
	maxHeader   = 64 << 10
	compressMin = 4 << 10
)

// UseCases are what the server's calls arrive at.
type UseCases struct {
	Login      *login.Service
	Bots       *bots.Service
	Trust      *trust.Service
	Fleet      *fleetcase.Service
	Membership *membership.Service
	Issuance   *issuance.Service
	Roster     *roster.Service
	Census     *census.Service
	Archive    *archive.Service
	Feed       *feed.Feed
	Audit      *audit.Log
}

// Server answers calls. Serve and ServeLocal may run at once, several times.
type Server struct {
	use    UseCases
	public ca.Public
	log    *slog.Logger
	now    func() time.Time
	http   *http.Server
	local  *http.Server
}

// New makes a server; certificate gives auth's own TLS certificate, which is renewed meanwhile.
func New(use UseCases, public ca.Public, certificate func() *tls.Certificate, log *slog.Logger) *Server {
	s := &Server{use: use, public: public, log: log, now: time.Now}
	clients := x509.NewCertPool()
	clients.AddCert(public.TLSUser)
	clients.AddCert(public.TLSHost)
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: clients,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate(), nil },
	}
	handler := s.handler()
	s.http = &http.Server{Handler: patient(s.identify(handler)), TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout: 5 * time.Minute, MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(quiet{log.Handler()}, slog.LevelDebug)}
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	protocols.SetHTTP1(true)
	s.local = &http.Server{Handler: asLocal(handler), Protocols: protocols, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: maxHeader}
	return s
}

// Serve answers TLS connections from l until Close; addresses are those that the connections say.
func (s *Server) Serve(l net.Listener) error { return s.http.ServeTLS(l, "", "") }

// ServeLocal answers the admin socket; who may connect is the listener's to check.
func (s *Server) ServeLocal(l net.Listener) error { return s.local.Serve(l) }

// Close lets calls under way finish until ctx ends.
func (s *Server) Close(ctx context.Context) {
	if s.http.Shutdown(ctx) != nil {
		s.http.Close()
	}
	if s.local.Shutdown(ctx) != nil {
		s.local.Close()
	}
}

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	opts := []connect.HandlerOption{
		connect.WithInterceptors(&interceptor{server: s}), connect.WithReadMaxBytes(maxMessage), connect.WithCompressMinBytes(compressMin),
		connect.WithRecover(func(_ context.Context, spec connect.Spec, _ http.Header, p any) error {
			s.log.Error("call panicked", "method", spec.Procedure, "panic", p)
			return connect.NewError(connect.CodeInternal, nil)
		}),
	}
	mux.Handle(sallyportv1connect.NewLoginServiceHandler(&loginHandler{s}, opts...))
	mux.Handle(sallyportv1connect.NewTrustServiceHandler(&device.Handler{Use: s.use.Trust, Caller: caller}, opts...))
	mux.Handle(sallyportv1connect.NewFleetServiceHandler(&fleet.Handler{Use: s.use.Fleet, Caller: caller}, opts...))
	mux.Handle(sallyportv1connect.NewMembershipServiceHandler(&membershipHandler{s}, opts...))
	mux.Handle(sallyportv1connect.NewAuthorityServiceHandler(&authority.Handler{Use: s.use.Issuance, Caller: caller}, opts...))
	mux.Handle(sallyportv1connect.NewRosterServiceHandler(&rosterHandler{s}, opts...))
	mux.Handle(sallyportv1connect.NewFeedServiceHandler(&rpcfeed.Handler{Feed: s.use.Feed, Membership: s.use.Membership, Census: s.use.Census,
		Audit: s.use.Audit, Caller: caller, Now: s.now, Log: s.log}, opts...))
	mux.Handle(sallyportv1connect.NewSessionServiceHandler(&rpccensus.Handler{Use: s.use.Census, Caller: caller}, opts...))
	recordings := &rpcrecording.Handler{Use: s.use.Archive, Caller: caller, Log: s.log,
		Admit: func(ctx context.Context, name string) error { return s.admit(ctx, "RecordingService/"+name, nil) },
		Still: func(ctx context.Context) error {
			return s.decide(caller(ctx), table["RecordingService/OpenRecording"], nil)
		}}
	mux.Handle(sallyportv1connect.NewRecordingServiceHandler(recordings, opts...))
	recordings.Serve(mux)
	mux.Handle(sallyportv1connect.NewEventServiceHandler(&rpcevent.Handler{Audit: s.use.Audit, Caller: caller,
		Still: func(ctx context.Context) error { return s.decide(caller(ctx), table["EventService/ExportLog"], nil) }}, opts...))
	return mux
}

// patience is how long calls may take to arrive: those that are not listed, a minute; a feed, as long as it lives.
var patience = map[string]time.Duration{"LoginService/Login": loginTime, "TrustService/Enroll": device.EnrollTime, "FeedService/Follow": 0}

// patient ends the wait for a message that does not come. A call's context alone would not: nobody looks at it while
// the call waits for its peer.
func patient(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		wait, listed := patience[method(r.URL.Path)]
		if !listed {
			wait = callTime
		}
		if wait > 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(wait))
		}
		next.ServeHTTP(w, r)
	})
}

type callerKey struct{}

// caller is who makes the call.
func caller(ctx context.Context) identity.Caller {
	c, _ := ctx.Value(callerKey{}).(identity.Caller)
	return c
}

// identify finds out who shows which certificate. A certificate that verifies and cannot be read is nobody's.
func (s *Server) identify(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := identity.Caller{}
		if a, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			c.Addr = a.Addr().Unmap()
		}
		if len(r.TLS.VerifiedChains) > 0 {
			chain := r.TLS.VerifiedChains[0]
			leaf, root := chain[0], chain[len(chain)-1]
			var err error
			switch {
			case len(chain) != 2:
				http.Error(w, "certificate chain of another shape", http.StatusForbidden)
				return
			case root.Equal(s.public.TLSUser):
				c.User, err = identity.FromX509(leaf)
			case root.Equal(s.public.TLSHost):
				c.Host, err = identity.HostFromX509(leaf)
			}
			// A connection may outlive the certificate that opened it; what it may do does not. Before that, a host's next
			// call comes by a connection of its own (GOAWAY), which shows the renewed certificate.
			left := leaf.NotAfter.Sub(s.now())
			if left < 0 && err == nil {
				err = errors.New("the certificate is over")
			}
			if left < 0 || (c.Host != nil && left < leaf.NotAfter.Sub(leaf.NotBefore)/2) {
				w.Header().Set("Connection", "close")
			}
			if err != nil || (c.User == nil && c.Host == nil) {
				s.log.Warn("certificate refused", "addr", r.RemoteAddr, "err", err)
				http.Error(w, "certificate refused", http.StatusForbidden)
				return
			}
			sum := sha256.Sum256(leaf.Raw)
			c.Certificate, c.Expires = sum[:], leaf.NotAfter
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

func asLocal(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := identity.Caller{Local: true, Addr: netip.IPv6Loopback()}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// quiet turns what net/http says of broken connections down to debug.
type quiet struct{ slog.Handler }
