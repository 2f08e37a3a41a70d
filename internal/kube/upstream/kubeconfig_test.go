package upstream

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"encoding/pem"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

func config(cluster, user string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: %s}]\nusers: [{name: u, user: %s}]\ncontexts: [{name: c, context: {cluster: c, user: u}}, {name: lost, context: {cluster: nowhere, user: u}}]\n", cluster, user)
}

// TestOpen reaches a server by a file: its authority, and a token that is in the file or beside it.
func TestOpen(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Authorization") }))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("ca.pem", string(ca))
	write("token", "from-file\n")
	inline := fmt.Sprintf("{server: %q, certificate-authority-data: %s}", srv.URL, base64.StdEncoding.EncodeToString(ca))
	beside := fmt.Sprintf("{server: %q, certificate-authority: ca.pem}", srv.URL)
	for _, c := range []struct{ name, text, want string }{
		{"inline", config(inline, "{token: t}"), "Bearer t"},
		{"beside", config(beside, "{tokenFile: token}"), "Bearer from-file"},
		{"neither", config(beside, "{}"), ""},
	} {
		s, err := Open(&target.KubeCluster{Name: "dev", Kubeconfig: write("config", c.text)})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		req, _ := http.NewRequest("GET", s.URL.String(), nil)
		req.Header.Set("Authorization", "Bearer client's")
		if err := s.Authorize(req.Header); err != nil {
			t.Fatal(err)
		}
		res, err := s.Plain.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		res.Body.Close()
		if h := <-got; h != c.want {
			t.Errorf("%s: %q", c.name, h)
		}
		for way, want := range map[*http.Transport]int{s.Plain: 2, s.Short: 1, s.Upgrade: 1} {
			res, err := way.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			res.Body.Close()
			if <-got; res.ProtoMajor != want {
				t.Errorf("%s: HTTP/%d, not %d", c.name, res.ProtoMajor, want)
			}
		}
		s.Close()
	}
}

// TestRefused: what an agent could not keep its word by is refused, and says why.
func TestRefused(t *testing.T) {
	ok := `{server: "https://127.0.0.1:1"}`
	for _, c := range []struct{ name, text, context, want string }{
		{"no verification", config(`{server: "https://127.0.0.1:1", insecure-skip-tls-verify: true}`, "{}"), "", "insecure-skip-tls-verify"},
		{"in clear", config(`{server: "http://127.0.0.1:1"}`, "{}"), "", "is no https URL"},
		{"a program", config(ok, "{exec: {command: aws}}"), "", "exec and auth-provider"},
		{"a password", config(ok, "{username: a, password: b}"), "", "username and password"},
		{"a proxy", config(`{server: "https://127.0.0.1:1", proxy-url: "http://x"}`, "{}"), "", "proxy-url"},
		{"another context", config(ok, "{}"), "nosuch", `no context "nosuch"`},
		{"a context without a cluster", config(ok, "{}"), "lost", `no context "lost"`},
		{"an empty authority", config(`{server: "https://127.0.0.1:1", certificate-authority-data: eA==}`, "{}"), "", "holds no certificate"},
		{"a certificate without a key", config(ok, "{client-certificate-data: eA==}"), "", "do not belong together"},
		{"no YAML", "{", "", "no kubeconfig"},
	} {
		path := filepath.Join(t.TempDir(), "config")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(&target.KubeCluster{Name: "dev", Kubeconfig: path, Context: c.context})
		if f := fault.Of(err); err == nil || f.Reason != "kubeconfig" || !strings.Contains(f.Cause, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for name, k := range map[string]*target.KubeCluster{"no file": {Name: "dev", Kubeconfig: "/nowhere"}, "no cluster around": {Name: "dev"}} {
		if _, err := Open(k); !fault.Because(err, "kubeconfig") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDialTakesUp: a further stream's connection takes up the TLS session of one before it, which halves what it costs.
func TestDialTakesUp(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	path := filepath.Join(t.TempDir(), "config")
	text := config(fmt.Sprintf("{server: %q, certificate-authority-data: %s}", srv.URL, base64.StdEncoding.EncodeToString(ca)), "{token: t}")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(&target.KubeCluster{Name: "dev", Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i, want := range []bool{false, true} {
		c, err := s.Dial(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := c.(*tls.Conn).ConnectionState().DidResume; got != want {
			t.Errorf("connection %d: taken up is %v", i, got)
		}
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
}
