// Package kube is the door to Kubernetes clusters: each request is decided by itself, made as whom the roles say, and on
// record before its answer goes out.
package kube

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/handoff"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kube/request"
	"github.com/sallyport/sallyport/internal/kube/sieve"
	"github.com/sallyport/sallyport/internal/kube/stream"
	"github.com/sallyport/sallyport/internal/kube/upstream"
	"github.com/sallyport/sallyport/internal/target"
)

// Bounds of a request's head.
const (
	headTime  = 10 * time.Second
	headBytes = 64 << 10
	idleTime  = 10 * time.Minute
)

// Config is what a door works with.
type Config struct {
	Gate *gate.Gate
	Log  *slog.Logger
	Now  func() time.Time
	// Record gives what an exec or an attach is shown to, before anything of it begins; an error refuses it. Where it is nil
	// nothing is recorded.
	Record func(ctx context.Context, s Start) (stream.Tape, error)
}

// Door serves clusters. Close ends it.
type Door struct {
	Config
	http  *http.Server
	conns *handoff.Listener
	pages sieve.Pages
	done  sync.WaitGroup
	open  *streams
}

// Visit is one connection of a verified user, its TLS ended, to a cluster. Context ends it.
type Visit struct {
	Context context.Context
	User    *identity.User
	From    netip.Addr
	Cluster *target.KubeCluster
	// Server is the way to it as it is now. Where there is none who asks is told so, and the log why.
	Server func() (*upstream.Server, error)
}

// New makes a door.
func New(c Config) *Door {
	d := &Door{Config: c, conns: handoff.New(&net.UnixAddr{Name: "kube", Net: "unix"}), pages: sieve.NewPages(), open: newStreams()}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true) // the TLS is over by now
	d.http = &http.Server{Handler: http.HandlerFunc(d.serve), Protocols: protocols, ReadHeaderTimeout: headTime, MaxHeaderBytes: headBytes,
		IdleTimeout: idleTime, ErrorLog: slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if v, ok := c.(*visited); ok {
				return context.WithValue(ctx, visitKey{}, v)
			}
			return ctx
		}}
	d.done.Go(func() { _ = d.http.Serve(d.conns) })
	return d
}

// Close ends every stream and every connection, and waits.
func (d *Door) Close() {
	d.open.close()
	d.http.Close()
	d.done.Wait()
}

type visitKey struct{}

// Serve carries one connection until it is over, and closes it.
func (d *Door) Serve(conn net.Conn, v Visit) {
	c := &visited{Conn: conn, visit: v, closed: make(chan struct{})}
	stop := context.AfterFunc(v.Context, func() { time.AfterFunc(drain, func() { c.Close() }) })
	defer stop()
	if !d.conns.Give(v.Context, c) {
		conn.Close()
		return
	}
	<-c.closed
}

// drain is how long streams have to say why they end.
const drain = 500 * time.Millisecond

// serve answers one request.
func (d *Door) serve(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(visitKey{}).(*visited)
	if !ok {
		http.Error(w, "no identity", http.StatusForbidden)
		return
	}
	v := &c.visit
	q, err := request.Parse(r.Method, r.URL.EscapedPath(), r.URL.Query())
	if err != nil {
		q = request.Request{Verb: strings.ToLower(r.Method), Object: target.KubeObject{Path: r.URL.EscapedPath()}}
	}
	var offer stream.Offer
	if err == nil {
		offer, err = upgrades(r, &q)
	}
	if err != nil {
		why := d.Gate.Refuse(r.Context(), d.asks(v, q), fault.New(fault.Invalid, "the request was not taken").WithReason("bad_request").WithCause("%v", err))
		refuse(w, q.Object, http.StatusBadRequest, fault.Of(why))
		return
	}
	session, err := d.Gate.Admit(r.Context(), d.asks(v, q))
	if err != nil {
		refuse(w, q.Object, http.StatusForbidden, fault.Of(err))
		return
	}
	x := &exchange{door: d, visit: v, request: q, session: session, offer: offer}
	leave := func() {}
	if q.Stream != "" { // its connection is not the HTTP server's to close
		leave = d.open.enter(session)
	}
	why := error(nil)
	defer func() {
		session.End(why)
		leave()
	}()
	if x.server, why = v.Server(); why != nil {
		d.Log.Error("cluster cannot be reached", "name", v.Cluster.Name, "err", why)
		f := fault.New(fault.Unavailable, "the agent has no way to cluster %q", v.Cluster.Name).WithReason("kubeconfig").
			WithFix("ask an administrator to look into the agent's log")
		_ = x.record(http.StatusServiceUnavailable, f.Text)
		refuse(w, q.Object, http.StatusServiceUnavailable, f)
		session.Cut(f)
		return
	}
	why = x.forward(w, r)
}

// asks is the question to the gate. A stream is on record from its start to its end; of other requests the one record is
// written with their status, before the answer goes out.
func (d *Door) asks(v *Visit, q request.Request) gate.Request {
	o := q.Object
	req := gate.Request{Identity: v.User, Action: target.Action{Verb: q.Verb, Kube: &o, From: v.From},
		Target: target.Target{Kind: target.Kube, ID: v.Cluster.Name, Name: v.Cluster.Name, Labels: v.Cluster.Labels}}
	req.Start = d.event(v, q)
	req.Start.Kind = ""
	if q.Stream != "" {
		req.Start.Kind, req.End = event.SessionStart, event.SessionEnd
	}
	return req
}

func (d *Door) event(v *Visit, q request.Request) event.Event {
	return event.Event{Kind: event.KubeRequest, Success: true, Session: &event.Session{Protocol: "kube"},
		Action:   &event.Action{Verb: q.Verb, Path: q.Path, Command: q.Options.Line()},
		Resource: &event.Resource{ResourceKind: kindOf(q.Object), ResourceName: nameOf(q.Object)}}
}

func kindOf(o target.KubeObject) string {
	k := o.Resource
	if o.Group != "" {
		k += "." + o.Group
	}
	if o.Subresource != "" {
		k += "/" + o.Subresource
	}
	return k
}

func nameOf(o target.KubeObject) string {
	if o.Namespace != "" {
		return o.Namespace + "/" + o.Name
	}
	return o.Name
}

// upgrades refuses an upgrade where none belongs, a stream without one, and one of which nothing can be read here.
func upgrades(r *http.Request, q *request.Request) (stream.Offer, error) {
	asked := r.Header.Get("Upgrade") != ""
	node := q.Verb == "proxy" && q.Object.Resource == "nodes"
	switch {
	case node && (asked || runs(q.Path)):
		return stream.Offer{}, errors.New("a command through the proxy of a node, which would be on no record: use exec of the pod")
	case asked && q.Verb == "proxy":
		q.Stream = q.Verb
		return stream.Offer{}, nil
	case asked && q.Stream == "":
		return stream.Offer{}, errors.New("an upgrade of a request that is no stream")
	case q.Stream != "" && !asked:
		return stream.Offer{}, errors.New("a stream without an upgrade")
	case r.Method == http.MethodConnect || r.Method == http.MethodTrace:
		return stream.Offer{}, errors.New("method " + r.Method)
	case q.Stream == "":
		return stream.Offer{}, nil
	}
	return stream.Read(r, q.Stream == request.PortForward)
}

// runs reports whether a path through a node's proxy is one by which a kubelet runs commands or reaches into pods
// (k8s.io/kubernetes, pkg/kubelet/server, InstallDebuggingHandlers).
func runs(path string) bool {
	parts := strings.SplitN(path, "/", 8) // "", api, v1, nodes, NAME, proxy, what
	return len(parts) > 6 && slices.ContainsFunc([]string{"run", "exec", "attach", "portForward", "cri"}, func(s string) bool { return strings.EqualFold(parts[6], s) })
}

// exchange is one request on its way.
type exchange struct {
	door    *Door
	visit   *Visit
	request request.Request
	session *gate.Session
	server  *upstream.Server
	offer   stream.Offer // of a command's streams, or of forwarded ports
	sifted  bool         // its answer is looked through, whatever the roles say when it comes
}

// forward sends the request as whom the decision names, and brings the answer back.
func (x *exchange) forward(w http.ResponseWriter, r *http.Request) error {
	limits := x.session.Limits()
	if f := x.forbidden(limits, r.Header); f != nil {
		refuse(w, x.request.Object, http.StatusForbidden, f)
		return x.record(http.StatusForbidden, f.Text)
	}
	x.sifted = x.session.Filters()
	query, err := x.page(r)
	if err != nil {
		refuse(w, x.request.Object, http.StatusGone, fault.New(fault.Invalid, "the list cannot be continued from there").WithFix("ask for it anew"))
		return x.record(http.StatusGone, "the list cannot be continued")
	}
	ctx := x.session.Context() // a child of the request's
	x.session.Keep("kubernetes", func() error { return x.keeps(limits) })
	if len(x.offer.Protocols) > 0 {
		return x.carry(ctx, w, r, limits)
	}
	transport := x.transport(r.Method)
	p := &httputil.ReverseProxy{Transport: transport, BufferPool: buffers{}, ErrorLog: slog.NewLogLogger(x.door.Log.Handler(), slog.LevelDebug),
		Rewrite: func(pr *httputil.ProxyRequest) {
			if query != nil {
				pr.Out.URL.RawQuery = query.Encode()
			}
			x.rewrite(pr, limits)
		},
		ModifyResponse: x.answered,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, err error) { x.failed(w, err) }}
	p.ServeHTTP(w, r.WithContext(ctx))
	return context.Cause(x.session.Context())
}

// forbidden is why a request that was let in is not made.
func (x *exchange) forbidden(limits access.Limits, h http.Header) *fault.Error {
	switch {
	case limits.KubeUsers == "": // without a user the server would take the request for the agent's own
		return fault.New(fault.Denied, "your roles leave you no Kubernetes user to be").WithReason("kubernetes_users").
			WithCause("a role denies it, or your own name is one of those that Kubernetes keeps for itself").WithFix("ask an administrator for one of kubernetes_users in your roles")
	case strings.Contains(limits.KubeUsers, ","):
		return fault.New(fault.Denied, "your roles let you be several Kubernetes users, and a request is one's").WithReason("kubernetes_users").
			WithCause("they are %s", limits.KubeUsers).WithFix("ask an administrator to leave one of kubernetes_users in your roles")
	case applies(h, x.request) && !x.session.May("create"):
		return fault.New(fault.Denied, "a server-side apply creates what is not there, and your roles do not let you create it").WithReason("kubernetes_resources").
			WithFix("use another patch, such as kubectl apply --server-side=false, or ask an administrator for the verb create")
	}
	return nil
}

// transport is the way that suits a request. Reads that are over soon go by connections of their own, on which they wait for no
// other: one that was lost meanwhile is tried again.
func (x *exchange) transport(method string) *http.Transport {
	switch verb := x.request.Verb; {
	case x.request.Stream != "":
		return x.server.Upgrade
	case method == http.MethodGet && (verb == "get" || verb == "list") && !strings.HasSuffix(x.request.Path, "/log") && x.server.Short != nil:
		return x.server.Short
	}
	return x.server.Plain
}

// keeps is why a request must end, where it must: the roles let it be made as somebody else than it was, or show less of an
// answer that went out whole.
func (x *exchange) keeps(was access.Limits) error {
	if is := x.session.Limits(); is.KubeUsers != was.KubeUsers || is.KubeGroups != was.KubeGroups {
		return fault.New(fault.Denied, "your roles name other Kubernetes groups or users now").WithReason("kubernetes_groups").WithFix("ask anew")
	}
	if !x.sifted && x.session.Filters() {
		return fault.New(fault.Denied, "your roles show less of this cluster now").WithReason("kubernetes_resources").WithFix("ask anew")
	}
	return nil
}

// rewrite makes the request the agent's own, as another: nothing of who the client says it is goes on. httputil took the
// headers away that Connection names before this is called, so none that is set here can be named there.
func (x *exchange) rewrite(pr *httputil.ProxyRequest, limits access.Limits) {
	out := pr.Out
	query := out.URL.RawQuery
	out.URL, out.Host = x.address(), ""
	out.URL.RawQuery = query
	for name := range out.Header {
		if identityHeader(name) {
			delete(out.Header, name)
		}
	}
	dropTokens(out.Header)
	out.Trailer = nil
	if x.sifted {
		out.Header.Del("Accept-Encoding") // compressed it could not be looked through
	}
	x.identify(out.Header, limits)
}

// address is the request's at the server, without a query.
func (x *exchange) address() *url.URL {
	at := x.server.URL
	base := strings.TrimSuffix(at.EscapedPath(), "/")
	return &url.URL{Scheme: at.Scheme, Host: at.Host, RawPath: base + x.request.Path, Path: unescaped(base + x.request.Path)}
}

// identify says who asks: the agent, as whom the decision names.
func (x *exchange) identify(h http.Header, limits access.Limits) {
	if err := x.server.Authorize(h); err != nil {
		x.door.Log.Warn("no credentials for the cluster", "cluster", x.visit.Cluster.Name, "err", err)
	}
	h.Set("Impersonate-User", limits.KubeUsers)
	if limits.KubeGroups != "" {
		h["Impersonate-Group"] = strings.Split(limits.KubeGroups, ",")
	}
}

// answered looks at an answer before any of it goes out.
func (x *exchange) answered(res *http.Response) error {
	if err := x.filter(res); err != nil {
		_ = x.record(http.StatusForbidden, err.Error())
		return err
	}
	if x.request.Stream != "" {
		if res.StatusCode == http.StatusSwitchingProtocols {
			if c, ok := res.Body.(io.ReadWriteCloser); ok {
				res.Body = &liveBody{c, x}
			}
			return nil // its start is on record
		}
		// What is not switched is an answer like others: httputil does not hand the connection over.
	}
	if res.StatusCode < 200 { // 101 is of streams, and of what is less no server may tell
		f := fault.New(fault.Unavailable, "the API server answers %d", res.StatusCode).WithReason("malformed")
		_ = x.record(http.StatusServiceUnavailable, f.Text)
		return f
	}
	text := ""
	if res.StatusCode >= 400 {
		text = http.StatusText(res.StatusCode)
	}
	if err := x.record(res.StatusCode, text); err != nil {
		return err
	}
	if res.Body != nil && x.request.Stream == "" {
		res.Body = &cutBody{ReadCloser: res.Body, exchange: x, json: strings.HasPrefix(res.Header.Get("Content-Type"), "application/json")}
	}
	return nil
}

// record writes what became of the request.
func (x *exchange) record(status int, message string) error {
	ev := x.door.event(x.visit, x.request)
	ev.Action.Status, ev.Success, ev.Message = status, status < 400, message
	return x.session.Note(context.WithoutCancel(x.session.Context()), ev)
}

// failed tells the client why there is no answer.
func (x *exchange) failed(w http.ResponseWriter, err error) {
	if cause := context.Cause(x.session.Context()); cause != nil {
		refuse(w, x.request.Object, http.StatusForbidden, fault.Of(cause))
		return
	}
	var f *fault.Error
	if errors.As(err, &f) {
		status := http.StatusInternalServerError
		if f.Kind == fault.Denied {
			status = http.StatusForbidden
		} else if f.Kind == fault.Unavailable {
			status = http.StatusServiceUnavailable
		}
		refuse(w, x.request.Object, status, f)
		return
	}
	x.door.Log.Info("no answer from the cluster", "cluster", x.visit.Cluster.Name, "err", err)
	f = fault.New(fault.Unavailable, "the API server of cluster %q cannot be reached", x.visit.Cluster.Name).WithReason("cluster_unreachable").
		WithFix("see whether it runs, and whether the agent reaches it")
	_ = x.record(http.StatusBadGateway, f.Text)
	refuse(w, x.request.Object, http.StatusBadGateway, f)
}
