// Package kubeserver is Kubernetes' own API server with Debian's etcd, started by a test, and with a small kubelet where one is
// asked for. Their binaries are built by scripts/kube.sh. No shipped binary links it.
package kubeserver

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/peer/authority"
)

// AdminToken is of a user in system:masters; AgentToken of the user `agent`, who may impersonate and nothing else.
const (
	AdminToken = "admin-token"
	AgentToken = "agent-token"
)

// Server is one that runs.
type Server struct {
	URL string
	Dir string
	ca  *authority.Authority // of the servers and clients; front of the API server towards those behind it, in another's name

	front     *authority.Authority
	etcd, api *exec.Cmd
	kubelet   *kubelet
	args      []string
}

// Bin is where scripts/kube.sh puts apiserver and kubectl.
func Bin(name string) string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "../../../.cache/kube", name)
}

// Start starts etcd and an API server in a new directory.
func Start(ctx context.Context) (*Server, error) {
	dir, err := os.MkdirTemp("", "kube")
	if err != nil {
		return nil, err
	}
	s := &Server{Dir: dir, ca: authority.New("kube test"), front: authority.New("front test")}
	if err := s.start(ctx); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func free() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, err
}

func (s *Server) path(name string) string { return filepath.Join(s.Dir, name) }

func (s *Server) start(ctx context.Context) error {
	for dir, write := range map[string]func(string) error{
		"":        func(dir string) error { return s.ca.Files(dir, s.ca.Server()) },
		"kubelet": func(dir string) error { return s.ca.Files(dir, s.ca.Server()) },
		"client":  func(dir string) error { return s.ca.Files(dir, s.ca.Client("kube-apiserver")) },
		"front":   func(dir string) error { return s.front.Files(dir, s.front.Client("front-proxy")) },
	} {
		if err := errors.Join(os.MkdirAll(s.path(dir), 0o700), write(s.path(dir))); err != nil {
			return err
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	tokens := AdminToken + ",admin,1,system:masters\n" + AgentToken + ",agent,2\n"
	for name, raw := range map[string][]byte{"sa.key": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), "tokens": []byte(tokens)} {
		if err := os.WriteFile(s.path(name), raw, 0o600); err != nil {
			return err
		}
	}
	client, err := free()
	if err != nil {
		return err
	}
	peer, err := free()
	if err != nil {
		return err
	}
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		return err
	}
	at := "http://127.0.0.1:" + client
	if s.etcd, err = s.launch("etcd", etcd, "--data-dir", s.path("etcd"), "--unsafe-no-fsync", "--listen-client-urls", at, "--advertise-client-urls", at,
		"--listen-peer-urls", "http://127.0.0.1:"+peer, "--initial-advertise-peer-urls", "http://127.0.0.1:"+peer, "--initial-cluster", "default=http://127.0.0.1:"+peer); err != nil {
		return err
	}
	port, err := free()
	if err != nil {
		return err
	}
	s.URL = "https://127.0.0.1:" + port
	s.args = []string{"--etcd-servers=" + at, "--secure-port=" + port, "--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--tls-cert-file=" + s.path("cert.pem"), "--tls-private-key-file=" + s.path("key.pem"),
		"--service-account-key-file=" + s.path("sa.key"), "--service-account-signing-key-file=" + s.path("sa.key"), "--service-account-issuer=https://kubernetes.default.svc",
		"--service-cluster-ip-range=10.0.0.0/24", "--authorization-mode=RBAC", "--token-auth-file=" + s.path("tokens"), "--disable-admission-plugins=ServiceAccount", "--v=0",
		"--client-ca-file=" + s.path("ca.pem"), "--kubelet-certificate-authority=" + s.path("ca.pem"), "--kubelet-client-certificate=" + s.path("client/cert.pem"), "--kubelet-client-key=" + s.path("client/key.pem"),
		"--kubelet-preferred-address-types=InternalIP", "--requestheader-client-ca-file=" + s.path("front/ca.pem"), "--requestheader-allowed-names=front-proxy", "--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-extra-headers-prefix=X-Remote-Extra-", "--proxy-client-cert-file=" + s.path("front/cert.pem"), "--proxy-client-key-file=" + s.path("front/key.pem")}
	return s.Restart(ctx)
}

// Restart starts the API server where it does not run, and waits until it is ready.
func (s *Server) Restart(ctx context.Context) error {
	var err error
	if s.api, err = s.launch("api", Bin("apiserver"), s.args...); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	for {
		if res, err := s.Do(ctx, http.MethodGet, "/readyz", ""); err == nil && strings.TrimSpace(res) == "ok" {
			return nil
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			log, _ := os.ReadFile(s.path("api.log"))
			return fmt.Errorf("the API server is not ready:\n%s", log[max(0, len(log)-4000):])
		}
	}
}

func (s *Server) launch(name, path string, args ...string) (*exec.Cmd, error) {
	c := exec.Command(path, args...)
	c.Dir, c.Env = s.Dir, []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.Dir}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(s.path(name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	return c, c.Start()
}

// Kill ends the API server as a crash would.
func (s *Server) Kill() {
	if s.api != nil && s.api.Process != nil {
		_ = s.api.Process.Kill()
		_ = s.api.Wait()
		s.api = nil
	}
}

// Stop ends all of them and removes what they had.
func (s *Server) Stop() {
	s.kubelet.stop()
	s.Kill()
	if s.etcd != nil && s.etcd.Process != nil {
		_ = s.etcd.Process.Kill()
		_ = s.etcd.Wait()
	}
	_ = os.RemoveAll(s.Dir)
}

// Authority made the server's certificate, and is believed of clients'.
func (s *Server) Authority() *authority.Authority { return s.ca }

// Front made the certificate that the server shows to aggregated servers, which believe it who asks.
func (s *Server) Front() *authority.Authority { return s.front }

// TLS verifies the server.
func (s *Server) TLS() *tls.Config { return &tls.Config{RootCAs: s.ca.Pool} }

// Do makes a request as the administrator and gives the answer's body.
func (s *Server) Do(ctx context.Context, method, path, body string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, s.URL+path, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	req.Header.Set("Authorization", "Bearer "+AdminToken)
	req.Header.Set("Content-Type", "application/json")
	t := &http.Transport{TLSClientConfig: s.TLS()}
	defer t.CloseIdleConnections()
	res, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		return "", err
	}
	if res.StatusCode >= 300 {
		return b.String(), errors.New(res.Status + ": " + b.String())
	}
	return b.String(), nil
}

// Kubeconfig writes one for a token, and returns its path.
func (s *Server) Kubeconfig(token string) (string, error) {
	path := s.path("kubeconfig-" + token)
	return path, os.WriteFile(path, fmt.Appendf(nil, "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]\nusers: [{name: u, user: {token: %s}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n",
		s.URL, s.path("ca.pem"), token), 0o600)
}

// Grant lets the agent impersonate, a group read pods and do all with config maps in every namespace, and makes namespaces.
func (s *Server) Grant(ctx context.Context, group string, namespaces ...string) error {
	type call struct{ path, body string }
	calls := []call{
		{"/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"impersonate"},"rules":[{"apiGroups":[""],"resources":["users","groups"],"verbs":["impersonate"]}]}`},
		{"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"metadata":{"name":"agent"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"impersonate"},"subjects":[{"kind":"User","name":"agent"}]}`},
		{"/apis/rbac.authorization.k8s.io/v1/clusterroles", `{"metadata":{"name":"devs"},"rules":[{"apiGroups":[""],"resources":["pods","configmaps","pods/log","pods/exec"],"verbs":["*"]}]}`},
		{"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", `{"metadata":{"name":"devs"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"devs"},"subjects":[{"kind":"Group","name":"` + group + `"}]}`},
	}
	for _, n := range namespaces {
		calls = append(calls, call{"/api/v1/namespaces", `{"metadata":{"name":"` + n + `"}}`})
	}
	for _, c := range calls {
		if _, err := s.Do(ctx, http.MethodPost, c.path, c.body); err != nil {
			return fmt.Errorf("%s: %w", c.path, err)
		}
	}
	return nil
}
