package daemon

import (
	"context"
	"crypto/tls"

	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/node"
	"github.com/sallyport/sallyport/internal/tunnel"
)

func version() string { return cluster.Version }

func keypairs(list []config.Keypair) ([]tls.Certificate, error) {
	var out []tls.Certificate
	for _, k := range list {
		c, err := loadKeypair(k.Cert, k.Key)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// startNode runs an SSH node.
func (d *daemon) startNode() error {
	a, err := d.agent(identity.RoleNode, d.Config.NodeName)
	if err != nil {
		return err
	}
	d.follow(a.calls, a.Member, hosts.Follower{Mirror: a.mirror, Sessions: a.gate, Served: func() *identity.Server {
		return &identity.Server{Labels: d.Config.SSH.Labels, Version: version()}
	}})
	tapes, err := d.recorder(a)
	if err != nil {
		return err
	}
	door, err := node.New(node.Config{Host: a.Host(), HostKey: a.HostKey, Gate: a.gate, Recorder: a.events, Pictures: a.mirror, Recordings: tapes,
		Labels: func() label.Set { return d.Config.SSH.Labels }, Log: a.log, Now: a.now, SFTP: []string{d.Executable, "sftp-server"}})
	if err != nil {
		return err
	}
	d.serve(a, tunnel.DoorSSH, func(ctx context.Context, s *tunnel.Stream) { door.Handle(ctx, s) })
	d.state.Node = a.Host().Name
	if d.state.Node == "" {
		d.state.Node = a.Host().ID
	}
	return nil
}

// loopback is how a process reaches its own listener.
func loopback(bound string) string {
	host, port, err := splitBound(bound)
	if err != nil || !host.IsUnspecified() {
		return bound
	}
	if host.Is4() {
		return "127.0.0.1:" + port
	}
	return "[::1]:" + port
}
