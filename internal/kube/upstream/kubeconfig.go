// Package upstream is an agent's way to Kubernetes API servers, by a kubeconfig or as a pod of the cluster.
package upstream

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// Server is one API server, reached as the agent. Requests go through Plain, those that upgrade their connection through
// Upgrade, which speaks HTTP/1.1 alone; reads that are over soon through Short, where there is one, which costs less for each.
type Server struct {
	URL     *url.URL
	Plain   *http.Transport
	Short   *http.Transport
	Upgrade *http.Transport
	token   func() (string, error)
	files   files // that it was made of, but for a token's, which is read again by itself
}

// Authorize puts the agent's own credentials into a request that has no others.
func (s *Server) Authorize(h http.Header) error {
	h.Del("Authorization")
	if s.token == nil {
		return nil
	}
	t, err := s.token()
	if err == nil {
		h.Set("Authorization", "Bearer "+t)
	}
	return err
}

// Close gives the connections back.
func (s *Server) Close() {
	s.Plain.CloseIdleConnections()
	if s.Short != nil {
		s.Short.CloseIdleConnections()
	}
	s.Upgrade.CloseIdleConnections()
}

// file is a kubeconfig, as far as an agent can use it.
type file struct {
	Current  string `yaml:"current-context"`
	Contexts []struct {
		Name    string `yaml:"name"`
		Context struct {
			Cluster string `yaml:"cluster"`
			User    string `yaml:"user"`
		} `yaml:"context"`
	} `yaml:"contexts"`
	Clusters []struct {
		Name    string  `yaml:"name"`
		Cluster cluster `yaml:"cluster"`
	} `yaml:"clusters"`
	Users []struct {
		Name string `yaml:"name"`
		User user   `yaml:"user"`
	} `yaml:"users"`
}

type cluster struct {
	Server     string `yaml:"server"`
	CAFile     string `yaml:"certificate-authority"`
	CAData     string `yaml:"certificate-authority-data"`
	ServerName string `yaml:"tls-server-name"`
	Insecure   bool   `yaml:"insecure-skip-tls-verify"`
	ProxyURL   string `yaml:"proxy-url"`
}

type user struct {
	CertFile  string    `yaml:"client-certificate"`
	CertData  string    `yaml:"client-certificate-data"`
	KeyFile   string    `yaml:"client-key"`
	KeyData   string    `yaml:"client-key-data"`
	Token     string    `yaml:"token"`
	TokenFile string    `yaml:"tokenFile"`
	Exec      yaml.Node `yaml:"exec"`
	Provider  yaml.Node `yaml:"auth-provider"`
	Username  string    `yaml:"username"`
}

// Open makes the way to a cluster.
func Open(k *target.KubeCluster) (*Server, error) {
	if k.Kubeconfig == "" {
		return inCluster()
	}
	read := files{}
	raw, err := read.file(k.Kubeconfig)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the agent cannot read the kubeconfig of cluster %q", k.Name).WithReason("kubeconfig").Wrapping(err)
	}
	s, err := parse(raw, k.Context, filepath.Dir(k.Kubeconfig), read)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the kubeconfig of cluster %q cannot be used", k.Name).WithReason("kubeconfig").WithCause("%v", err)
	}
	return s, nil
}

func parse(raw []byte, context, dir string, read files) (*Server, error) {
	var f file
	if err := yaml.Unmarshal(raw, &f); err != nil {
		return nil, fmt.Errorf("it is no kubeconfig: %w", err)
	}
	if context == "" {
		context = f.Current
	}
	var c *cluster
	var u user
	for _, x := range f.Contexts {
		if x.Name != context {
			continue
		}
		for i := range f.Clusters {
			if f.Clusters[i].Name == x.Context.Cluster {
				c = &f.Clusters[i].Cluster
			}
		}
		for i := range f.Users {
			if f.Users[i].Name == x.Context.User {
				u = f.Users[i].User
			}
		}
	}
	if c == nil {
		return nil, fmt.Errorf("there is no context %q with a cluster", context)
	}
	return build(c, u, dir, read)
}

func build(c *cluster, u user, dir string, read files) (*Server, error) {
	switch {
	case c.Insecure:
		return nil, errors.New("insecure-skip-tls-verify: an agent verifies its server")
	case c.ProxyURL != "":
		return nil, errors.New("proxy-url is not enforced by this build")
	case u.Exec.Kind != 0, u.Provider.Kind != 0:
		return nil, errors.New("exec and auth-provider are not enforced by this build: use a token, a tokenFile or a client certificate")
	case u.Username != "":
		return nil, errors.New("username and password are not taken by Kubernetes any more")
	}
	base, err := url.Parse(c.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("server %q is no https URL", c.Server)
	}
	in := func(path string) string {
		if path == "" || filepath.IsAbs(path) {
			return path
		}
		return filepath.Join(dir, path)
	}
	ca, err := read.either(in(c.CAFile), c.CAData)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if ca != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("certificate-authority holds no certificate")
		}
	}
	cert, err := read.either(in(u.CertFile), u.CertData)
	if err != nil {
		return nil, err
	}
	key, err := read.either(in(u.KeyFile), u.KeyData)
	if err != nil {
		return nil, err
	}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, errors.New("client-certificate and client-key do not belong together")
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	s := New(base, conf)
	s.files = read
	if u.TokenFile != "" {
		s.token = fromFile(in(u.TokenFile))
	} else if u.Token != "" {
		s.token = func() (string, error) { return u.Token, nil }
	}
	return s, nil
}

func (f files) either(path, data string) ([]byte, error) {
	if data != "" {
		return base64.StdEncoding.DecodeString(data)
	}
	if path == "" {
		return nil, nil
	}
	return f.file(path)
}

// New is a server that is reached by a base URL and a TLS configuration, and wants no credentials beside it.
func New(base *url.URL, conf *tls.Config) *Server {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	plain := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: conf, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
		MaxIdleConnsPerHost: 64, IdleConnTimeout: 2 * time.Minute, DisableCompression: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}}
	only := conf.Clone()
	only.NextProtos = []string{"http/1.1"}
	only.ClientSessionCache = tls.NewLRUClientSessionCache(8) // each stream is a connection of its own
	h1 := new(http.Protocols)
	h1.SetHTTP1(true)
	// An API server answers a read within a minute (--request-timeout), and keeps a connection that is not used for 90 s.
	short := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: only, Protocols: h1, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
		MaxIdleConnsPerHost: 64, IdleConnTimeout: time.Minute, ResponseHeaderTimeout: 2 * time.Minute}
	upgrade := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: only, Protocols: h1, TLSHandshakeTimeout: 10 * time.Second, DisableCompression: true,
		DisableKeepAlives: true}
	return &Server{URL: base, Plain: plain, Short: short, Upgrade: upgrade}
}

// The files that a pod finds of its cluster (kubernetes.io/docs, "Accessing the Kubernetes API from a Pod").
const podDir = "/var/run/secrets/kubernetes.io/serviceaccount/"

func inCluster() (*Server, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, fault.New(fault.Invalid, "this agent runs in no cluster, and has no kubeconfig").WithReason("kubeconfig").
			WithFix("kubernetes: [{name: …, kubeconfig: FILE}]")
	}
	read := files{}
	ca, err := read.file(podDir + "ca.crt")
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the pod has no service account").WithReason("kubeconfig").Wrapping(err)
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if !conf.RootCAs.AppendCertsFromPEM(ca) {
		return nil, errors.New("the pod's ca.crt holds no certificate")
	}
	s := New(&url.URL{Scheme: "https", Host: net.JoinHostPort(host, port)}, conf)
	s.token, s.files = fromFile(podDir+"token"), read
	return s, nil
}

// tokenAge is how long a token that was read from a file is used before it is read again: they are renewed there.
const tokenAge = time.Minute

func fromFile(path string) func() (string, error) {
	var mu sync.Mutex
	var token string
	var read time.Time
	return func() (string, error) {
		mu.Lock()
		defer mu.Unlock()
		if token != "" && time.Since(read) < tokenAge {
			return token, nil
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return "", fault.New(fault.Unavailable, "the agent cannot read its token").WithReason("kubeconfig").Wrapping(err)
		}
		token, read = strings.TrimSpace(string(raw)), time.Now()
		return token, nil
	}
}
