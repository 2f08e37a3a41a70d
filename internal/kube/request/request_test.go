package request

import (
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/target"
)

func parse(t *testing.T, method, raw string) (Request, error) {
	t.Helper()
	path, query, _ := strings.Cut(raw, "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		t.Fatal(err)
	}
	return Parse(method, path, q)
}

// TestParse reads requests as the API server reads them.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		method, path, verb string
		object             target.KubeObject
	}{
		{"GET", "/api/v1/pods", "list", target.KubeObject{Resource: "pods"}},
		{"GET", "/api/v1/pods/", "list", target.KubeObject{Resource: "pods"}},
		{"GET", "/api/v1/namespaces/dev/pods/web", "get", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"HEAD", "/api/v1/namespaces/dev/pods/web", "get", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/pods?watch=true", "watch", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"GET", "/api/v1/namespaces/dev/pods?watch", "watch", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"GET", "/api/v1/namespaces/dev/pods?watch=fal%C5%BFe", "list", target.KubeObject{Resource: "pods", Namespace: "dev"}}, // the server folds
		{"GET", "/api/v1/namespaces/dev/pods?watch=", "watch", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"GET", "/api/v1/namespaces/dev/pods?watch=0", "list", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"GET", "/apis/apps/v1/namespaces/dev/deployments/web/scale", "get", target.KubeObject{Group: "apps", Resource: "deployments", Subresource: "", Namespace: "dev", Name: "web"}},
		{"POST", "/api/v1/namespaces/dev/pods", "create", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"PUT", "/api/v1/namespaces/dev/pods/web/status", "update", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"PATCH", "/api/v1/namespaces/dev/pods/web/ephemeralcontainers", "patch", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"DELETE", "/api/v1/namespaces/dev/pods/web", "delete", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"DELETE", "/api/v1/namespaces/dev/pods", "deletecollection", target.KubeObject{Resource: "pods", Namespace: "dev"}},
		{"POST", "/api/v1/namespaces/dev/pods/web/eviction", "delete", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/pods/web/exec", "exec", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"POST", "/api/v1/namespaces/dev/pods/web/attach", "exec", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"POST", "/api/v1/namespaces/dev/pods/web/portforward", "portforward", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/services/web/proxy/a/b", "proxy", target.KubeObject{Resource: "services", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/services/web:80/proxy/a", "proxy", target.KubeObject{Resource: "services", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/services/https:web:443/proxy", "proxy", target.KubeObject{Resource: "services", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/namespaces/dev/pods/:web:port/proxy/", "proxy", target.KubeObject{Resource: "pods", Namespace: "dev", Name: "web"}},
		{"GET", "/api/v1/nodes/https:n1:10250/proxy/pods", "proxy", target.KubeObject{Resource: "nodes", Name: "n1"}},
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/robot/token", "create", target.KubeObject{Resource: "serviceaccounts", Subresource: "token", Namespace: "dev", Name: "robot"}},
		{"GET", "/apis/example.com/v1/namespaces/dev/things/x/exec", "exec", target.KubeObject{Group: "example.com", Resource: "things", Subresource: "exec", Namespace: "dev", Name: "x"}},
		{"GET", "/api/v1/namespaces", "list", target.KubeObject{Resource: "namespaces"}},
		{"GET", "/api/v1/namespaces/dev", "get", target.KubeObject{Resource: "namespaces", Name: "dev"}},
		{"PUT", "/api/v1/namespaces/dev/finalize", "update", target.KubeObject{Resource: "namespaces", Subresource: "finalize", Name: "dev"}},
		{"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node", "get", target.KubeObject{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "system:node"}},
		{"GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode", "get", target.KubeObject{Group: "rbac.authorization.k8s.io", Resource: "clusterroles", Name: "system:node"}},
		{"GET", "/api", "get", target.KubeObject{Path: "/api"}},
		{"GET", "/apis/apps/v1", "get", target.KubeObject{Path: "/apis/apps/v1"}},
		{"GET", "/version", "get", target.KubeObject{Path: "/version"}},
		{"GET", "/", "get", target.KubeObject{Path: "/"}},
	} {
		r, err := parse(t, c.method, c.path)
		if err != nil || r.Verb != c.verb || r.Object != c.object {
			t.Errorf("%s %s: %q %+v %v", c.method, c.path, r.Verb, r.Object, err)
		}
	}
}

// TestA51ProxyNames: a proxy's name with scheme and port that the API server would not take apart is not taken.
func TestA51ProxyNames(t *testing.T) {
	for _, name := range []string{":", "a:", "::", ":80", "ftp:web:80", "a:b:c:d", "https::443"} {
		if r, err := parse(t, "GET", "/api/v1/namespaces/dev/services/"+name+"/proxy/"); err == nil && r.Object.Name != "a" {
			t.Errorf("%q is taken as %q", name, r.Object.Name)
		}
	}
}

// TestA51Paths: what the API server, or something in front of it, could read as another path is not taken.
func TestA51Paths(t *testing.T) {
	for _, path := range []string{
		"", "api/v1/pods", "//api/v1/pods", "/api//v1/pods", "/api/v1/namespaces//pods", "/api/v1/pods//", "//",
		"/api/v1/namespaces/dev/../prod/pods", "/api/v1/namespaces/dev/./pods", "/api/v1/namespaces/..", "/api/v1/namespaces/dev/pods/.",
		"/api/v1/namespaces/dev/%2e%2e/prod/pods", "/api/v1/namespaces/%2E%2E/pods", "/api/v1/namespaces/dev%2f..%2fprod/pods", "/api/v1/namespaces/dev%2Fpods",
		"/api/v1/namespaces/dev%5cprod/pods", `/api/v1/namespaces/dev\prod/pods`, "/api/v1/namespaces/de%00v/pods", "/api/v1/namespaces/de%0av/pods", "/api/v1/namespaces/dev%252f/pods",
		"/api/v1/namespaces/dev%/pods", "/api/v1/namespaces/dev%zz/pods", "/api/v1/namespaces/dev;x=y/pods", "/api/v1/namespaces/d%c0%afv/pods",
		"/api/v1/watch/namespaces/dev/pods", "/api/v1/proxy/namespaces/dev/pods/web", "/api/v1/namespaces/dev/pods/web/log/more", "/api/v1/namespaces/dev/pods/web/exec/more",
		"/" + strings.Repeat("a", 5000),
	} {
		if r, err := Parse(http.MethodGet, path, nil); err == nil {
			t.Errorf("%q is taken as %q %+v", path, r.Verb, r.Object)
		}
	}
	for _, c := range [][2]string{{"CONNECT", "/api/v1/pods"}, {"TRACE", "/api/v1/pods"}, {"get", "/api/v1/pods"}, {"PROPFIND", "/api/v1/pods"}, {"POST", "/apis/example.com/v1/namespaces/dev/things/web-1"}, {"POST", "/api/v1/namespaces/dev"},
		{"GET", "/api/v1/pods?watch=0&watch=1"}} {
		if r, err := parse(t, c[0], c[1]); err == nil {
			t.Errorf("%v is taken as %q", c, r.Verb)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"/api/v1/namespaces/dev/pods/web", "/apis/apps/v1/deployments", "/api/v1/namespaces/%2e%2e/pods", "//", "/version/"} {
		f.Add("GET", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		r, err := Parse(method, path, nil)
		if err != nil {
			return
		}
		// What is sent on is read as the same again, by a reader that decodes and cleans too.
		again, err := Parse(method, r.Path, nil)
		if err != nil || again.Verb != r.Verb || again.Object != r.Object || again.Path != r.Path {
			t.Fatalf("%q becomes %q, read as %+v and %+v (%v)", path, r.Path, r, again, err)
		}
		decoded, err := url.PathUnescape(r.Path)
		if err != nil || strings.Contains(decoded, "//") || strings.Contains(decoded+"/", "/../") || strings.Contains(decoded+"/", "/./") {
			t.Fatalf("%q becomes %q", path, decoded)
		}
	})
}

// TestOptions reads a command's options as the API server does.
func TestOptions(t *testing.T) {
	for query, want := range map[string]string{
		"":                                       "stderr=false&stdin=false&stdout=false&tty=false",
		"stdin&tty=":                             "stderr=false&stdin=true&stdout=false&tty=true",
		"stdin=0&stdout=False&stderr=no&tty=2":   "stderr=true&stdin=false&stdout=false&tty=true",
		"stdin=false&stdin=true&stdout=1&stdout": "stderr=false&stdin=false&stdout=true&tty=false",
		"command=a+b&command=&command=%2Fc&container=x&container=y&Stdin=true&timeout=1": "command=a+b&command=&command=%2Fc&container=x&stderr=false&stdin=false&stdout=false&tty=false",
	} {
		q, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got := ReadOptions(q).Query(); got != want {
			t.Errorf("%q: %s", query, got)
		}
	}
	if got := (Options{Command: []string{"sh", "-c", "rm -rf /\x1b[2J", "", "ä"}}).Line(); got != `sh -c "rm -rf /\x1b[2J" "" "ä"` {
		t.Error(got)
	}
}

// FuzzOptions: what is sent on is read as the same again.
func FuzzOptions(f *testing.F) {
	f.Add("stdin=1&stdout=true&command=sh&command=-c&container=c")
	f.Fuzz(func(t *testing.T, query string) {
		q, _ := url.ParseQuery(query)
		o := ReadOptions(q)
		again, err := url.ParseQuery(o.Query())
		if err != nil || !reflect.DeepEqual(ReadOptions(again), o) {
			t.Errorf("%q: %+v becomes %q %v", query, o, o.Query(), err)
		}
		if strings.ContainsFunc(o.Line(), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			t.Errorf("%q", o.Line())
		}
	})
}
