package kube

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kube/request"
	"github.com/sallyport/sallyport/internal/kube/upstream"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
)

// log keeps events, or fails.
type log struct {
	mu    sync.Mutex
	all   []event.Event // guarded by mu
	fails error         // guarded by mu
}

func (l *log) Write(_ context.Context, ev event.Event) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails != nil {
		return l.fails
	}
	l.all = append(l.all, ev)
	return nil
}

func (l *log) kinds(k event.Kind) (out []event.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.all {
		if e.Kind == k {
			out = append(out, e)
		}
	}
	return out
}

// place is a door in front of a server of the test's own, and a client on a connection to it.
type place struct {
	t      testing.TB
	mirror *snapshot.Mirror
	log    *log
	door   *Door
	server *httptest.Server
	dials  func() net.Conn
	close  func() // every connection that was dialled
	visit  func() Visit
}

func newPlace(t testing.TB, answer http.HandlerFunc, rules ...role.KubeResource) *place {
	t.Helper()
	start := time.Now()
	p := &place{t: t, log: &log{}, mirror: snapshot.NewMirror(func() time.Duration { return time.Since(start) })}
	set := cluster.Default()
	p.apply(true, &set, &role.Role{Name: "devs", Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"devs", "readers"}, KubernetesResources: rules}})
	g := gate.New(p.mirror, p.log, identity.Host{ID: "k1", Role: identity.RoleKube}, time.Now)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { g.Run(ctx) })
	p.door = New(Config{Gate: g, Log: slog.New(slog.DiscardHandler), Now: time.Now})
	p.server = httptest.NewServer(answer)
	at, err := url.Parse(p.server.URL)
	if err != nil {
		t.Fatal(err)
	}
	up := &upstream.Server{URL: at, Plain: &http.Transport{DisableCompression: true}, Upgrade: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}
	p.visit = func() Visit {
		return Visit{Context: ctx, From: netip.MustParseAddr("203.0.113.7"), Server: func() (*upstream.Server, error) { return up, nil }, Cluster: &target.KubeCluster{Name: "dev"},
			User: &identity.User{Name: "alice", Kind: identity.Human, Roles: []string{"devs"}, Validity: identity.Validity{IssuedAt: start, Expires: start.Add(time.Hour)}}}
	}
	p.close = func() {}
	p.dials = func() net.Conn {
		a, b := pair(t)
		wg.Go(func() { p.door.Serve(b, p.visit()) })
		t.Cleanup(func() { a.Close() })
		before := p.close
		p.close = func() { before(); a.Close() }
		_ = a.SetDeadline(time.Now().Add(10 * time.Second))
		return a
	}
	t.Cleanup(func() {
		cancel()
		p.server.CloseClientConnections()
		p.door.Close()
		wg.Wait()
		p.server.Close()
		up.Close()
	})
	return p
}

// pair is a connection.
func pair(t testing.TB) (net.Conn, net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return a, b
}

func (p *place) apply(complete bool, specs ...any) {
	c := snapshot.Change{Run: 1, Revision: uint64(time.Now().UnixNano()), Complete: complete}
	for _, s := range specs {
		c.Put = append(c.Put, manifest.New(s, 0))
	}
	p.mirror.Apply(c)
	p.mirror.Confirm(p.mirror.Now())
}

// asks sends one raw request and reads the answer.
func (p *place) asks(raw string) (*http.Response, string) {
	p.t.Helper()
	c := p.dials()
	go func() { _, _ = io.WriteString(c, raw) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		p.t.Fatalf("%q: %v", raw, err)
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		p.t.Fatalf("%q: %v", raw, err)
	}
	return res, string(body)
}

// opens are the headers of a WebSocket's opening.
var opens = []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Protocol: v4.channel.k8s.io"}

func get(path string, headers ...string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + strings.Join(append(slices.Clone(headers), ""), "\r\n") + "\r\n"
}

// TestA50Identity: whatever the client says of who it is, in whatever spelling, the request is made as whom the roles say.
func TestA50Identity(t *testing.T) {
	seen := make(chan http.Header, 1)
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.Header
		fmt.Fprint(w, "{}")
	})
	for _, headers := range [][]string{
		nil,
		{"Impersonate-User: root", "Impersonate-Group: system:masters", "Impersonate-Uid: 0", "Impersonate-Extra-Scopes: all"},
		{"impersonate-user: root", "IMPERSONATE-GROUP: system:masters"},
		{"Impersonate_User: root", "Impersonate_Group: system:masters", "X_Remote_User: root"},
		{"Impersonate-User: alice", "Impersonate-User: root"},
		{"Connection: Impersonate-User, Impersonate-Group", "Impersonate-User: root"},
		{"Connection: close, Impersonate-User", "Impersonate-Group: system:masters"},
		{"X-Remote-User: root", "X-Remote-Group: system:masters", "X-Remote-Extra-Scopes: all", "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Forwarded-User: root"},
		{"Authorization: Bearer stolen", "Proxy-Authorization: Basic eA==", "Cookie: a=b"},
		{"Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.c3RvbGVu"},
		{"Sec-WebSocket-Protocol: BASE64URL.bearer.authorization.k8s.io.c3RvbGVu"},
	} {
		if res, body := p.asks(get("/api/v1/namespaces/dev/pods/web", headers...)); res.StatusCode != 200 {
			t.Fatalf("%q: %d %s", headers, res.StatusCode, body)
		}
		h := <-seen
		if u, g := h["Impersonate-User"], h["Impersonate-Group"]; len(u) != 1 || u[0] != "alice" || strings.Join(g, ",") != "devs,readers" {
			t.Errorf("%q: made as %q of %q", headers, u, g)
		}
		for name, v := range h {
			all := strings.Join(v, ",")
			if strings.Contains(all, "root") || strings.Contains(all, "masters") || strings.Contains(all, "stolen") || strings.Contains(strings.ToLower(all), "bearer") ||
				strings.HasPrefix(name, "X-Remote") || strings.HasPrefix(name, "X-Forwarded") || name == "Cookie" || name == "Authorization" || strings.Contains(name, "_") {
				t.Errorf("%q: the server gets %s: %s", headers, name, all)
			}
		}
	}
	if n := len(p.log.kinds(event.KubeRequest)); n != 11 {
		t.Errorf("%d requests are on record", n)
	}
}

// TestA51Refused: what is not read for sure does not reach the server.
func TestA51Refused(t *testing.T) {
	p := newPlace(t, func(http.ResponseWriter, *http.Request) { t.Error("it reached the server") })
	for _, raw := range []string{get("/api/v1/namespaces/dev/../prod/pods"), get("//api/v1/pods"), get("/api/v1/namespaces/%2e%2e/pods"),
		get("/api/v1/namespaces/dev/pods/web", "Upgrade: websocket", "Connection: upgrade"), get("/api/v1/namespaces/dev/pods/web/exec"),
		get("/api/v1/nodes/n1/proxy/metrics", opens...), get("/api/v1/nodes/https:n1:10250/proxy/exec/dev/web/c"), get("/api/v1/nodes/n1/proxy/r%75n/dev/web/c?cmd=id"),
		"POST /api/v1/namespaces/dev/pods/web/exec HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"} {
		if res, body := p.asks(raw); res.StatusCode != 400 || !strings.Contains(body, "the request was not taken") {
			t.Errorf("%q: %d %s", raw, res.StatusCode, body)
		}
	}
	if n := len(p.log.kinds(event.Auth)); n != 9 {
		t.Errorf("%d refusals are on record", n)
	}
}

// TestA52NoSwitch: an upgrade that the server does not answer with 101 gives nobody a connection to it.
func TestA52NoSwitch(t *testing.T) {
	reached := make(chan string, 10)
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		reached <- r.URL.Path + " " + r.Header.Get("Impersonate-User")
		fmt.Fprint(w, "no")
	})
	c := p.dials()
	smuggled := "GET /api/v1/secrets HTTP/1.1\r\nHost: x\r\nImpersonate-User: root\r\n\r\n"
	go func() {
		_, _ = io.WriteString(c, get("/api/v1/namespaces/dev/pods/web/exec", opens...)+smuggled)
	}()
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 200 {
		t.Fatalf("%v %v", res, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	res, err = http.ReadResponse(r, nil) // what came behind is another request, decided by itself
	if err == nil {
		_, _ = io.Copy(io.Discard, res.Body)
	}
	close(reached)
	for got := range reached {
		if strings.HasSuffix(got, "root") {
			t.Errorf("the server got %s", got)
		}
	}
}

// TestUnrecorded: what cannot be written is not answered.
func TestUnrecorded(t *testing.T) {
	p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "secret") })
	p.log.mu.Lock()
	p.log.fails = errors.New("disk full")
	p.log.mu.Unlock()
	if res, body := p.asks(get("/api/v1/namespaces/dev/pods/web")); res.StatusCode != 503 || strings.Contains(body, "secret") || !strings.Contains(body, "audit log cannot be written") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestFilter: lists, tables and watches show what is granted, whatever else is in them.
func TestFilter(t *testing.T) {
	object := func(ns, name string) string { return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":%q}}`, name, ns) }
	items := strings.Join([]string{object("dev", "web"), object("prod", "web"), object("dev", "db"), `{"metadata":{}}`, `3`}, ",")
	answers := map[string]string{
		"/api/v1/pods":       `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"7"},"items":[` + items + `]}`,
		"/api/v1/configmaps": `{"kind":"Table","columnDefinitions":[],"rows":[{"cells":[1],"object":` + object("dev", "web") + `},{"cells":[2],"object":` + object("prod", "x") + `},{"cells":[3]}]}`,
		"/api/v1/secrets":    `{"kind":"SecretList","items":{}}`,
		"/api/v1/events":     `{"kind":"Strange"}`,
		"/api/v1/endpoints":  `{"kind":"EndpointsList","items":[` + object("dev", "web") + `,{"meta`,
		"/api/v1/services":   `{"kind":"ServiceList","items":[],"rows":[` + object("prod", "x") + `]}`,
	}
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Query().Get("protobuf") != "" {
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
		}
		if r.URL.Query().Get("watch") != "" {
			for _, e := range []string{`{"type":"ADDED","object":` + object("dev", "web") + `}`, `{"type":"ADDED","object":` + object("prod", "web") + `}`, `{"type":"BOOKMARK","object":{"metadata":{}}}`,
				`{"type":"MODIFIED","object":{"kind":"Table","rows":[{"object":` + object("prod", "x") + `}]}}`, `{"type":"DELETED","object":` + object("dev", "db") + `}`} {
				fmt.Fprintln(w, e)
			}
			return
		}
		fmt.Fprint(w, answers[r.URL.Path])
	}, role.KubeResource{Kind: "*", Namespace: "dev", Name: "*", Verbs: []string{"*"}})
	for _, c := range []struct {
		path string
		code int
		want string
	}{
		{"/api/v1/pods", 200, `{"apiVersion":"v1","items":[` + object("dev", "web") + `,` + object("dev", "db") + `],"kind":"PodList","metadata":{"resourceVersion":"7"}}`},
		{"/api/v1/configmaps", 200, `{"columnDefinitions":[],"kind":"Table","rows":[{"cells":[1],"object":` + object("dev", "web") + `}]}`},
		{"/api/v1/secrets", 403, "could not be looked through"}, {"/api/v1/events", 403, "could not be looked through"}, {"/api/v1/endpoints", 403, "could not be looked through"}, {"/api/v1/services", 403, "could not be looked through"},
		{"/api/v1/pods?protobuf=1", 403, "cannot be looked through"},
	} {
		res, body := p.asks(get(c.path))
		if res.StatusCode != c.code || c.code == 200 && !sameJSON(body, c.want) || c.code != 200 && !strings.Contains(body, c.want) || strings.Contains(body, "prod") {
			t.Errorf("%s: %d %s", c.path, res.StatusCode, body)
		}
	}
	_, body := p.asks(get("/api/v1/pods?watch=1"))
	if strings.Contains(body, "prod") || strings.Count(body, "\n") != 3 || !strings.Contains(body, "BOOKMARK") || !strings.Contains(body, `"DELETED"`) {
		t.Errorf("watch: %s", body)
	}
}

// TestFilterAsks: what is looked through is asked for in a form that can be: the API server compresses long lists for clients
// that would take it, as kubectl does.
func TestFilterAsks(t *testing.T) {
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		body := `{"kind":"PodList","metadata":{},"items":[]}`
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			defer z.Close()
			_, _ = io.WriteString(z, body)
			return
		}
		fmt.Fprint(w, body)
	}, role.KubeResource{Kind: "*", Namespace: "dev", Name: "*", Verbs: []string{"*"}})
	if res, body := p.asks(get("/api/v1/pods", "Accept-Encoding: gzip")); res.StatusCode != 200 || !strings.Contains(body, "PodList") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	if res, _ := p.asks(get("/api/v1/namespaces/dev/pods", "Accept-Encoding: gzip")); res.Header.Get("Content-Encoding") != "gzip" {
		t.Error("what is not looked through lost its compression")
	}
}

// TestFilterColumns: of a watch as tables the server says the columns in the first event alone, which may be withheld.
func TestFilterColumns(t *testing.T) {
	p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for i, ns := range []string{"prod", "dev", "dev"} {
			columns := ""
			if i == 0 {
				columns = `"columnDefinitions":[{"name":"Age"}],`
			}
			fmt.Fprintf(w, `{"type":"ADDED","object":{"kind":"Table",%s"rows":[{"cells":[%d],"object":{"metadata":{"name":"x","namespace":%q}}}]}}`+"\n", columns, i, ns)
		}
	}, role.KubeResource{Kind: "*", Namespace: "dev", Name: "*", Verbs: []string{"*"}})
	_, body := p.asks(get("/api/v1/pods?watch=1"))
	first, second, _ := strings.Cut(body, "\n")
	if !strings.Contains(first, "Age") || !strings.Contains(first, "[1]") || strings.Contains(second, "Age") || !strings.Contains(second, "[2]") {
		t.Error(body)
	}
}

// TestA50NoUser: who has no Kubernetes user to be is not the agent.
func TestA50NoUser(t *testing.T) {
	p := newPlace(t, func(http.ResponseWriter, *http.Request) { t.Error("it reached the server") })
	p.apply(false, &role.Role{Name: "devs", Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}}, Deny: role.Conditions{KubernetesUsers: []string{"*"}}})
	if res, body := p.asks(get("/api/v1/namespaces/dev/pods/web")); res.StatusCode != 403 || !strings.Contains(body, "no Kubernetes user") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}

// TestA54Groups: a stream that was asked for as somebody whom the roles leave no more ends.
func TestA54Groups(t *testing.T) {
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"type":"ADDED","object":{}}`)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	c := p.dials()
	go func() { _, _ = io.WriteString(c, get("/api/v1/pods?watch=1")) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "ADDED") {
		t.Fatalf("%q %v", line, err)
	}
	p.apply(false, &role.Role{Name: "devs", Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"readers"}}})
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if line, err := lines.ReadString('\n'); !strings.Contains(line, `"ERROR"`) || !strings.Contains(line, "Kubernetes groups") {
		t.Errorf("%q %v", line, err)
	}
}

// TestStreamIsNotIdle: who types in a stream is not idle.
func TestStreamIsNotIdle(t *testing.T) {
	p := newPlace(t, (&pod{t: t}).ServeHTTP)
	set := cluster.Default()
	p.apply(false, &set, &role.Role{Name: "devs", Options: role.Options{ClientIdleTimeout: role.Duration(900 * time.Millisecond)},
		Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"devs"}}})
	c := p.exec("v5.channel.k8s.io", "stdin=1&stdout=1&command=cat")
	began, tick := time.Now(), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		if err := c.WriteMessage(2, []byte("\x00x")); err != nil {
			t.Fatalf("cut after %s: %v", time.Since(began), err)
		}
		if ch, got := c.next(); ch != 1 || got != "x" {
			t.Fatalf("cut after %s: %d %q", time.Since(began), ch, got)
		}
		if time.Since(began) > 3*time.Second {
			break
		}
	}
	if ch, got := c.next(); ch != 3 || !strings.Contains(got, "idle for too long") { // and who does nothing is
		t.Errorf("%d %q", ch, got)
	}
}

// TestA50Pages: names of what is withheld are not in a list's way to its next page, nor is how many there are.
func TestA50Pages(t *testing.T) {
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		next := base64.RawURLEncoding.EncodeToString([]byte(`{"v":"meta.k8s.io/v1","rv":7,"start":"prod/secret\u0000"}`))
		switch r.URL.Query().Get("continue") {
		case "":
			fmt.Fprintf(w, `{"kind":"PodList","metadata":{"continue":%q,"remainingItemCount":41,"resourceVersion":"7"},"items":[{"metadata":{"name":"secret","namespace":"prod"}}]}`, next)
		case next:
			fmt.Fprint(w, `{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"web","namespace":"dev"}}]}`)
		default:
			t.Errorf("the server was asked to continue at %q", r.URL.Query().Get("continue"))
		}
	}, role.KubeResource{Kind: "*", Namespace: "dev", Name: "*", Verbs: []string{"*"}})
	_, body := p.asks(get("/api/v1/pods?limit=1"))
	var list struct {
		Metadata map[string]any `json:"metadata"`
	}
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Metadata["resourceVersion"] != "7" || list.Metadata["remainingItemCount"] != nil {
		t.Fatalf("%v %s", err, body)
	}
	next, _ := list.Metadata["continue"].(string)
	raw, err := base64.RawURLEncoding.DecodeString(next)
	if err != nil || next == "" || strings.Contains(string(raw), "secret") {
		t.Fatalf("continue %q: %q %v", next, raw, err)
	}
	if res, body := p.asks(get("/api/v1/pods?limit=1&continue=" + next)); res.StatusCode != 200 || !strings.Contains(body, "web") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
	for _, made := range []string{next[1:], "x", base64.RawURLEncoding.EncodeToString([]byte(`{"start":"prod/a"}`))} {
		if res, body := p.asks(get("/api/v1/pods?limit=1&continue=" + made)); res.StatusCode != 410 || !strings.Contains(body, `"Expired"`) {
			t.Errorf("%q: %d %s", made, res.StatusCode, body)
		}
	}
}

func sameJSON(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return false
	}
	m, _ := json.Marshal(x)
	n, _ := json.Marshal(y)
	return string(m) == string(n)
}

// TestA54Watch: a watch that goes on ends with the trust, in the protocol's own words; so does an upgraded stream through a
// proxy, which is passed on as it is.
func TestA54Watch(t *testing.T) {
	hold := make(chan struct{})
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			_, _ = io.Copy(c, c)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintln(w, `{"type":"ADDED","object":{}}`)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	defer close(hold)
	watch, stream := p.dials(), p.dials()
	go func() { _, _ = io.WriteString(watch, get("/api/v1/pods?watch=1")) }()
	go func() {
		_, _ = io.WriteString(stream, get("/api/v1/namespaces/dev/pods/web/proxy/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: eA=="))
	}()
	res, err := http.ReadResponse(bufio.NewReader(watch), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "ADDED") {
		t.Fatalf("%q %v", line, err)
	}
	up := bufio.NewReader(stream)
	if res, err := http.ReadResponse(up, nil); err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	go func() { _, _ = io.WriteString(stream, "hi") }()
	if _, err := io.ReadFull(up, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	p.apply(false, &lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, Message: "stolen laptop"})
	line, _ := lines.ReadString('\n')
	if !strings.Contains(line, `"ERROR"`) || !strings.Contains(line, "lock targeting User") {
		t.Errorf("the watch ends with %q", line)
	}
	if _, err := up.ReadByte(); err == nil {
		t.Error("the stream lives on")
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("it took %s", d)
	}
	for deadline := time.Now().Add(5 * time.Second); len(p.log.kinds(event.SessionEnd)) == 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stream's end is not on record")
		}
	}
	if s := p.log.kinds(event.SessionStart); len(s) != 1 || s[0].Action.Verb != "proxy" || s[0].Resource.ResourceName != "dev/web" {
		t.Errorf("%+v", s)
	}
}

// TestNoWay: an agent that has no way to its cluster says so, in the protocol's form, and not why: that tells of its files.
func TestNoWay(t *testing.T) {
	p := newPlace(t, func(http.ResponseWriter, *http.Request) { t.Error("it reached the server") })
	a, b := net.Pipe()
	defer a.Close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		p.door.Serve(b, Visit{Context: t.Context(), From: netip.MustParseAddr("203.0.113.7"), Cluster: &target.KubeCluster{Name: "dev"},
			Server: func() (*upstream.Server, error) { return nil, errors.New("no file /etc/secret.kubeconfig") },
			User:   &identity.User{Name: "alice", Kind: identity.Human, Roles: []string{"devs"}, Validity: identity.Validity{IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)}}})
	}()
	_ = a.SetDeadline(time.Now().Add(10 * time.Second))
	go func() { _, _ = io.WriteString(a, get("/api/v1/namespaces/dev/pods/web")) }()
	res, err := http.ReadResponse(bufio.NewReader(a), nil)
	if err != nil {
		t.Fatal(err)
	}
	var s status
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil || res.StatusCode != 503 || s.Kind != "Status" || !strings.Contains(s.Message, `no way to cluster "dev"`) || strings.Contains(s.Message, "secret") {
		t.Errorf("%d %+v %v", res.StatusCode, s, err)
	}
	if r := p.log.kinds(event.KubeRequest); len(r) != 1 || r[0].Action.Status != 503 {
		t.Errorf("%+v", r)
	}
	a.Close()
	<-served
}

// TestTransport: what may take long, or be something that is not to be done twice, is not on the connections for short reads.
func TestTransport(t *testing.T) {
	server := &upstream.Server{Plain: &http.Transport{}, Short: &http.Transport{}, Upgrade: &http.Transport{}}
	names := map[*http.Transport]string{server.Plain: "plain", server.Short: "short", server.Upgrade: "upgrade"}
	for _, c := range [][3]string{
		{"GET", "/api/v1/namespaces/dev/pods/web", "short"}, {"GET", "/api/v1/pods", "short"}, {"GET", "/version", "short"},
		{"GET", "/api/v1/pods?watch=1", "plain"}, {"GET", "/api/v1/namespaces/dev/pods/web/log?follow=true", "plain"}, {"HEAD", "/api/v1/pods", "plain"},
		{"GET", "/api/v1/namespaces/dev/services/web/proxy/", "plain"}, {"POST", "/api/v1/namespaces/dev/pods", "plain"}, {"DELETE", "/api/v1/namespaces/dev/pods/web", "plain"},
		{"GET", "/api/v1/namespaces/dev/pods/web/exec", "upgrade"},
	} {
		at, err := url.Parse(c[1])
		if err != nil {
			t.Fatal(err)
		}
		q, err := request.Parse(c[0], at.EscapedPath(), at.Query())
		if err != nil {
			t.Fatal(err)
		}
		x := &exchange{request: q, server: server}
		if got := names[x.transport(c[0])]; got != c[2] {
			t.Errorf("%s %s goes %s", c[0], c[1], got)
		}
	}
}
