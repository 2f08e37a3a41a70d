package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/peer/kubeserver"
)

// clusters are the running ones by the script's directory.
var clusters shelf[*kubeserver.Server]

// cmdKube starts a Kubernetes API server whose group `devs` may read and write pods and config maps, with namespaces, and
// writes agent.kubeconfig for an agent that may impersonate and admin.kubeconfig for the cluster's administrator: kube
// NAMESPACE…; kube kill and kube restart do that to it, kube node starts a kubelet.
func cmdKube(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	work := ts.Getenv("WORK")
	if s := clusters.get(work); s != nil {
		switch args[0] {
		case "kill":
			s.Kill()
		case "restart":
			ts.Check(s.Restart(ctx))
		case "node":
			ts.Check(s.Kubelet(ctx))
		default:
			ts.Fatalf("kube %s", args[0])
		}
		return
	}
	s, err := kubeserver.Start(ctx)
	ts.Check(err)
	ts.Defer(s.Stop)
	clusters.put(work, s)
	ts.Check(s.Grant(ctx, "devs", args...))
	for name, token := range map[string]string{"agent": kubeserver.AgentToken, "admin": kubeserver.AdminToken} {
		from, err := s.Kubeconfig(token)
		ts.Check(err)
		raw, err := os.ReadFile(from)
		ts.Check(err)
		ts.Check(os.WriteFile(filepath.Join(work, name+".kubeconfig"), raw, 0o600))
	}
	dir := filepath.Join(work, "kubectl")
	ts.Check(os.MkdirAll(dir, 0o755))
	for _, name := range []string{"kubectl", "kubectl-old", "helm"} {
		ts.Check(os.Symlink(kubeserver.Bin(name), filepath.Join(dir, name)))
	}
	ts.Setenv("PATH", dir+":"+ts.Getenv("PATH"))
	ts.Setenv("KUBECONFIG", filepath.Join(work, "kubeconfig"))
	for _, n := range strings.Fields("web db") { // pods without a node: objects to list
		for _, ns := range args {
			_, err := s.Do(ctx, "POST", "/api/v1/namespaces/"+ns+"/pods", `{"metadata":{"name":"`+n+`"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
			ts.Check(err)
		}
	}
}

// cmdEchoes listens on a port of this machine that says back what is said to it: echoes VAR.
func cmdEchoes(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Defer(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ts.Setenv(args[0], port)
}

// cmdThrough sends a MiB to a port of this machine and compares what comes back: through PORT [NAME]; as NAME the connection
// is held, and `through NAME cut` waits at most a second for its end.
func cmdThrough(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) > 1 && args[1] == "cut" {
		c := held.get(ts.Getenv("WORK") + args[0])
		_ = c.SetDeadline(time.Now().Add(time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			ts.Fatalf("after a second the connection stands: %v", err)
		}
		return
	}
	c, err := net.Dial("tcp", "127.0.0.1:"+args[0])
	ts.Check(err)
	ts.Check(c.SetDeadline(time.Now().Add(30 * time.Second)))
	sent, back := make([]byte, 1<<20), make([]byte, 1<<20)
	_, _ = rand.Read(sent)
	wrote := make(chan error, 1)
	go func() {
		_, err := c.Write(sent)
		wrote <- err
	}()
	_, err = io.ReadFull(c, back)
	ts.Check(err)
	ts.Check(<-wrote)
	if !bytes.Equal(sent, back) {
		ts.Fatalf("other bytes came back")
	}
	if len(args) == 1 {
		c.Close()
		return
	}
	ts.Defer(func() { c.Close() })
	held.put(ts.Getenv("WORK")+args[1], c)
}

// held are the connections that cmdThrough keeps.
var held shelf[net.Conn]

// cmdGone waits at most a second until an opened program has ended, by itself: gone NAME [TEXT], with a text in what it
// printed.
func cmdGone(ts *testscript.TestScript, _ bool, args []string) { gone(ts, time.Second, args) }

// cmdEnded is cmdGone for an end that was asked for, and that nobody promised for when: ended NAME [TEXT].
func cmdEnded(ts *testscript.TestScript, _ bool, args []string) { gone(ts, 15*time.Second, args) }

func gone(ts *testscript.TestScript, limit time.Duration, args []string) {
	o := programs.get(ts.Getenv("WORK") + args[0])
	began := time.Now()
	select {
	case <-o.ended:
	case <-time.After(limit):
		ts.Fatalf("after %s %s still runs", limit, args[0])
	}
	ts.Logf("%s ended after %v", args[0], time.Since(began).Round(time.Millisecond))
	if raw, err := os.ReadFile(o.log); len(args) > 1 && !strings.Contains(string(raw), args[1]) {
		ts.Fatalf("%s printed %q: %v", args[0], raw, err)
	}
}

// cmdAggregate serves an API group of the script's own behind the cluster's API server (gadgets.test.example.com, in the
// namespaces that are named), which it believes who asks, and says that in each object: aggregate NAMESPACE…
func cmdAggregate(ts *testscript.TestScript, _ bool, args []string) {
	s := clusters.get(ts.Getenv("WORK"))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	srv := &http.Server{Handler: gadgets(args), ReadHeaderTimeout: 10 * time.Second}
	conf := &tls.Config{Certificates: []tls.Certificate{s.Authority().Server("gadgets.default.svc")}, ClientCAs: s.Front().Pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	go func() { _ = srv.Serve(tls.NewListener(l, conf)) }()
	ts.Defer(func() { srv.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	ca, err := json.Marshal(s.Authority().PEM)
	ts.Check(err)
	for path, body := range map[string]string{
		"/api/v1/namespaces/default/services":         `{"metadata":{"name":"gadgets"},"spec":{"type":"ExternalName","externalName":"localhost"}}`,
		"/apis/apiregistration.k8s.io/v1/apiservices": `{"metadata":{"name":"v1.test.example.com"},"spec":{"group":"test.example.com","version":"v1","groupPriorityMinimum":10,"versionPriority":10,"caBundle":` + string(ca) + `,"service":{"name":"gadgets","namespace":"default","port":` + port + `}}}`,
	} {
		_, err := s.Do(ctx, http.MethodPost, path, body)
		ts.Check(err)
	}
	for {
		got, err := s.Do(ctx, http.MethodGet, "/apis/apiregistration.k8s.io/v1/apiservices/v1.test.example.com", "")
		ts.Check(err)
		if strings.Contains(got, `"status":"True"`) {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			ts.Fatalf("the API is not available: %s", got)
		}
	}
}

// gadgets is an aggregated API server with one gadget, called one, in each namespace.
func gadgets(namespaces []string) http.Handler {
	m := http.NewServeMux()
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	object := func(r *http.Request, ns string) map[string]any {
		return map[string]any{"kind": "Gadget", "apiVersion": "test.example.com/v1", "metadata": map[string]any{"name": "one", "namespace": ns, "resourceVersion": "1", "uid": ns},
			"spec": map[string]any{"seenBy": r.Header.Get("X-Remote-User"), "groups": r.Header["X-Remote-Group"]}}
	}
	m.HandleFunc("GET /apis/test.example.com/v1", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "test.example.com/v1",
			"resources": []any{map[string]any{"name": "gadgets", "singularName": "gadget", "kind": "Gadget", "namespaced": true, "verbs": []string{"get", "list"}}}})
	})
	list := func(w http.ResponseWriter, r *http.Request, in []string) {
		items := []any{}
		for _, ns := range in {
			items = append(items, object(r, ns))
		}
		answer(w, map[string]any{"kind": "GadgetList", "apiVersion": "test.example.com/v1", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
	}
	m.HandleFunc("GET /apis/test.example.com/v1/gadgets", func(w http.ResponseWriter, r *http.Request) { list(w, r, namespaces) })
	m.HandleFunc("GET /apis/test.example.com/v1/namespaces/{ns}/gadgets", func(w http.ResponseWriter, r *http.Request) { list(w, r, []string{r.PathValue("ns")}) })
	m.HandleFunc("GET /apis/test.example.com/v1/namespaces/{ns}/gadgets/one", func(w http.ResponseWriter, r *http.Request) { answer(w, object(r, r.PathValue("ns"))) })
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	return m
}
