package rpc

import (
	"context"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/wire"
)

// who says which callers a method is for, and what it asks of users.
type who struct {
	anyone bool                // no certificate needed
	user   bool                // any user that no lock refuses: the methods that device modes leave reachable
	hosts  []identity.HostRole // hosts of these roles
	kind   manifest.Kind       // users whose roles grant verb on kind; "" with a verb: the kind is in the request
	verb   string
	own    bool // the use case records its refusals itself, with more than is known here
}

var agents = []identity.HostRole{identity.RoleProxy, identity.RoleNode, identity.RoleDB, identity.RoleKube, identity.RoleApp}

// table is the one table of what every method asks; a method that is not in it is refused, and a test walks the
// services against it. Where a use case works on an object it asks again, with the object.
var table = map[string]who{
	"LoginService/Hello":          {anyone: true},
	"LoginService/Login":          {anyone: true},
	"LoginService/ChangePassword": {user: true, own: true},

	"TrustService/Enroll":            {user: true},
	"TrustService/GetMyDevice":       {user: true},
	"TrustService/RegisterDevice":    {kind: manifest.Device, verb: "create"},
	"TrustService/CreateEnrollToken": {kind: manifest.Device, verb: "create_enroll_token"},
	"TrustService/ListEnrollTokens":  {kind: manifest.Device, verb: "list"},
	"TrustService/DeleteEnrollToken": {kind: manifest.Device, verb: "create_enroll_token"},
	"TrustService/UnenrollDevice":    {kind: manifest.Device, verb: "update"},

	"FleetService/ImportDevices":      {kind: manifest.Device, verb: "create"},
	"FleetService/ListDevices":        {kind: manifest.Device, verb: "list"},
	"FleetService/SetBaseline":        {kind: manifest.Device, verb: "update"},
	"FleetService/AcceptDevice":       {kind: manifest.Device, verb: "update"},
	"FleetService/GetEndorsement":     {kind: manifest.Device, verb: "read"},
	"FleetService/ApproveEndorsement": {kind: manifest.Device, verb: "update"},

	"MembershipService/Join":  {anyone: true, own: true},
	"MembershipService/Renew": {hosts: agents},

	"AuthorityService/CertifyServed":         {hosts: []identity.HostRole{identity.RoleDB, identity.RoleKube, identity.RoleApp}},
	"AuthorityService/CertifyDatabaseClient": {hosts: []identity.HostRole{identity.RoleDB}},
	"AuthorityService/CertifyDatabaseServer": {kind: "authority", verb: "create"},

	"RosterService/GetResource":       {verb: "read"},
	"RosterService/ListResources":     {verb: "list"},
	"RosterService/WriteResources":    {verb: "create|update"},
	"RosterService/DeleteResource":    {verb: "delete"},
	"RosterService/CreateUser":        {kind: manifest.User, verb: "create"},
	"RosterService/ResetUser":         {kind: manifest.User, verb: "update"},
	"RosterService/CreateToken":       {kind: manifest.Token, verb: "create"},
	"RosterService/ListTargets":       {user: true},
	"RosterService/Explain":           {kind: manifest.User, verb: "read"},
	"RosterService/GetHindrances":     {user: true},
	"RosterService/ExportAuthorities": {user: true},
	"RosterService/Status":            {kind: manifest.Cap, verb: "read"},

	"SessionService/ListSessions":   {kind: manifest.Session, verb: "list"},
	"SessionService/EndSession":     {kind: manifest.Session, verb: "delete"},
	"SessionService/PreviewLock":    {kind: manifest.Lock, verb: "create"},
	"SessionService/ExplainSession": {kind: manifest.Session, verb: "read"},

	"RecordingService/ListRecordings": {kind: archive.Kind, verb: "list"},
	"RecordingService/TakePiece":      {hosts: []identity.HostRole{identity.RoleNode, identity.RoleKube}}, // plain HTTP, as the next
	"RecordingService/OpenRecording":  {kind: archive.Kind, verb: "read"},

	"FeedService/Follow": {hosts: agents},

	"EventService/IngestEvents": {hosts: agents},
	"EventService/ListEvents":   {kind: "event", verb: "list"},
	"EventService/ExportLog":    {kind: "event", verb: "list"},
	"EventService/VerifyLog":    {kind: "event", verb: "read"},
}

// callTime bounds a unary call.
const callTime = time.Minute

// interceptor asks access before each call.
type interceptor struct{ server *Server }

func method(procedure string) string {
	return strings.TrimPrefix(strings.TrimPrefix(procedure, "/"), "sallyport.v1.")
}

// WrapUnary is of connect.Interceptor.
func (i *interceptor) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		if req.Spec().IsClient {
			return next(ctx, req)
		}
		ctx, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		if err := i.server.admit(ctx, method(req.Spec().Procedure), kinds(req.Any())); err != nil {
			return nil, wire.Status(err)
		}
		res, err := next(ctx, req)
		if name := method(req.Spec().Procedure); fault.Is(err, fault.Denied) && !table[name].own {
			err = i.server.refused(ctx, name, err)
		}
		return res, i.server.outward(req.Spec().Procedure, err)
	}
}

// WrapStreamingClient is of connect.Interceptor.
func (i *interceptor) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler is of connect.Interceptor.
func (i *interceptor) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := i.server.admit(ctx, method(conn.Spec().Procedure), nil); err != nil {
			return wire.Status(err)
		}
		return i.server.outward(conn.Spec().Procedure, next(ctx, conn))
	}
}

// outward logs what a person is not shown.
func (s *Server) outward(procedure string, err error) error {
	if err == nil {
		return nil
	}
	if f := fault.Of(err); f.Kind == fault.Internal || f.Err != nil {
		s.log.Warn("call failed", "method", method(procedure), "kind", f.Kind.String(), "err", err)
	}
	return wire.Status(err)
}

// kinds are the resource kinds that a request names.
func kinds(msg any) []string {
	switch m := msg.(type) {
	case interface{ GetResources() []*resourceMessage }:
		var out []string
		for _, r := range m.GetResources() {
			out = append(out, r.GetKind())
		}
		return out
	case interface{ GetKind() string }:
		return []string{m.GetKind()}
	}
	return nil
}

// admit decides whether the caller may make a call at all.
func (s *Server) admit(ctx context.Context, name string, named []string) error {
	rule, ok := table[name]
	if !ok {
		return fault.New(fault.Unsupported, "unknown call %s", name)
	}
	if err := s.decide(caller(ctx), rule, named); err != nil {
		return s.refused(ctx, name, err)
	}
	return nil
}

// refused records that a call was refused, before it began or by its use case, which knows the object, and returns why.
func (s *Server) refused(ctx context.Context, name string, why error) error {
	c, f := caller(ctx), fault.Of(why)
	ev := event.Event{Kind: event.Auth, User: c.Name(), Message: f.Text, Session: &event.Session{Addr: c.Addr.String(), Reason: f.Reason},
		Action: &event.Action{Verb: name}}
	if c.User != nil {
		ev.Device = event.DeviceOf(c.User.Device)
	}
	if _, err := s.use.Audit.Record(context.WithoutCancel(ctx), ev); err != nil {
		return err
	}
	return why
}

func (s *Server) decide(c identity.Caller, rule who, named []string) error {
	picture, _ := s.use.Feed.Current()
	now := s.now()
	if c.Host != nil {
		if picture.HostLocked(c.Host.ID, now) {
			return fault.New(fault.Denied, "host %s was removed from the cluster", c.Host.ID).WithReason("host_removed")
		}
		if rule.anyone || slices.Contains(rule.hosts, c.Host.Role) {
			return nil
		}
		return fault.New(fault.Denied, "a host does not make this call").WithReason("host_call")
	}
	if rule.anyone || (c.Local && len(rule.hosts) == 0) {
		return nil
	}
	if c.User == nil || len(rule.hosts) > 0 {
		return fault.New(fault.Unauthenticated, "not logged in").WithReason("no_identity").WithFix("tsh login")
	}
	if rule.user {
		return reachable(picture.Locks, c, now)
	}
	checks := []string{string(rule.kind)}
	if rule.kind == "" {
		checks = named
	}
	if len(checks) == 0 {
		return fault.New(fault.Invalid, "no resource kind in the request")
	}
	for _, kind := range checks {
		if err := s.decideKind(c, kind, rule.verb, now); err != nil {
			return err
		}
	}
	return nil
}

// decideKind asks access for one kind; of several verbs one is enough here, the use case asks for the very one.
func (s *Server) decideKind(c identity.Caller, kind, verbs string, now time.Time) error {
	picture, _ := s.use.Feed.Current()
	var err error
	for verb := range strings.SplitSeq(verbs, "|") {
		t := target.Target{Kind: target.Administration, Name: kind}
		d, in := picture.Decide(c.User, t, target.Action{Verb: verb, From: c.Addr}, now)
		if d.Allowed {
			return nil
		}
		if err == nil {
			err = access.Refusal(d, in)
		}
	}
	return err
}
