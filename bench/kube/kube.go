// Package kube measures the door to Kubernetes at the agent itself (client, agent, API server), the audit log on, beside a
// connection with a client certificate, beside kubectl proxy, and beside a relay that only copies.
package kube

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof" // BENCH_PPROF names an address to profile at
	"net/netip"
	"os"
	"time"

	"github.com/sallyport/sallyport/bench/rig"
	"github.com/sallyport/sallyport/internal/identity"
	door "github.com/sallyport/sallyport/internal/kube"
	"github.com/sallyport/sallyport/internal/kube/upstream"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// Env tells a process of the bench's to be an agent or a relay: the place is in it, as JSON.
const Env = "BENCH_KUBE"

// place is where an agent or a relay stands.
type place struct {
	Copy       bool   // only copies
	Filters    bool   // the role has kubernetes_resources, so lists and watches are looked through; and it records nothing
	Server     string // HOST:PORT
	Kubeconfig string // the agent's
	Dir        string // of its audit log
	Client     string // the files of who connects to the server by a certificate
	Front      string // the files of what clients meet
}

// protocols are what kubectl asks for, and what the listener does.
var protocols = []string{"h2", "http/1.1", tunnel.ALPNMux}

// Serve is the process that Env asks for.
func Serve() error {
	var p place
	if err := json.Unmarshal([]byte(os.Getenv(Env)), &p); err != nil {
		return err
	}
	front, err := rig.Load(p.Front)
	if err != nil {
		return err
	}
	front.NextProtos, front.DynamicRecordSizingDisabled = protocols, true // as entry has it
	handle := p.copies
	if !p.Copy {
		if handle, err = p.agent(); err != nil {
			return err
		}
	}
	if at := os.Getenv("BENCH_PPROF"); at != "" && !p.Copy && !p.Filters {
		go func() { _ = http.ListenAndServe(at, nil) }() // for who looks
	}
	return rig.Listen(func(c net.Conn) { handle(tls.Server(c, front)) })
}

// copies carries one connection, in the protocol that the client asked for.
func (p *place) copies(c *tls.Conn) {
	defer c.Close()
	up, err := rig.Load(p.Client)
	if err != nil || c.Handshake() != nil {
		return
	}
	if proto := c.ConnectionState().NegotiatedProtocol; proto != "" {
		up.NextProtos = []string{proto}
	}
	server, err := tls.Dial("tcp", p.Server, up)
	if err != nil {
		return
	}
	rig.Join(c, server)
}

// agent is a door as an agent has it.
func (p *place) agent() (func(*tls.Conn), error) {
	is := role.Role{Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"devs"}}}
	if p.Filters {
		is.Options.RecordSession = role.RecordOff
		all := "*"
		is.Allow.KubernetesResources = []role.KubeResource{{Kind: "pods", Namespace: all, Name: all, Verbs: []string{all}}}
	}
	ctx := context.Background()
	self, err := rig.NewAgent(ctx, p.Dir, identity.RoleKube, is)
	if err != nil {
		return nil, err
	}
	k := &target.KubeCluster{Name: "bench", Kubeconfig: p.Kubeconfig}
	up, err := upstream.Open(k)
	if err != nil {
		return nil, err
	}
	d := door.New(door.Config{Gate: self.Gate, Log: slog.New(slog.DiscardHandler), Now: time.Now, Record: door.Recorded(self.Recorder)})
	from := netip.MustParseAddr("192.0.2.1")
	return func(c *tls.Conn) {
		if c.Handshake() != nil {
			c.Close()
			return
		}
		v := door.Visit{Context: ctx, User: self.User, From: from, Cluster: k, Server: func() (*upstream.Server, error) { return up, nil }}
		if c.ConnectionState().NegotiatedProtocol != tunnel.ALPNMux {
			d.Serve(c, v)
			return
		}
		if mux, err := tunnel.Server(c); err == nil { // as a listener comes
			_ = mux.Serve(func(s *tunnel.Stream) { d.Serve(s, v) })
		}
	}, nil
}
