package daemon

import (
	"context"
	"crypto/tls"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/client"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/node"
	"github.com/sallyport/sallyport/internal/snapshot"
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

// startNode runs an SSH node behind the proxy of this process, or the one that the config names.
func (d *daemon) startNode() error {
	proxyAddr := loopback(d.state.Listen)
	if d.Config.Proxy == nil {
		proxyAddr = d.Config.Join.Proxy
	}
	m, err := d.member(identity.RoleNode, d.Config.NodeName, proxyAddr, nil)
	if err != nil {
		return err
	}
	addr, err := m.address(proxyAddr)
	if err != nil {
		return err
	}
	log := d.Log.With("part", "node")
	calls := addr.CallWith(m.Certificate)
	d.later(calls.Close)
	mirror := snapshot.NewMirror(bootTime)
	events, err := spool.Open(spool.Config{Dir: filepath.Join(d.Config.DataDir, "audit", "node"), Writer: m.host().ID, Cluster: addr.Cluster, Now: time.Now})
	if err != nil {
		return err
	}
	d.later(func() {
		if err := events.Close(); err != nil {
			log.Error("audit spool was not closed in order", "err", err)
		}
	})
	d.run("audit spool", func(ctx context.Context) error {
		if err := events.Run(ctx, hosts.New(calls).Ingest); ctx.Err() == nil {
			return err
		}
		return nil
	})
	now := func() time.Time { return mirror.Time(time.Now()) }
	g := gate.New(mirror, events, m.host(), now)
	d.follow(calls, m, hosts.Follower{Mirror: mirror, Sessions: g, Served: func() *identity.Server {
		return &identity.Server{Labels: d.Config.SSH.Labels, Version: version()}
	}})
	d.run("gate", func(ctx context.Context) error { g.Run(ctx); return nil })
	door, err := node.New(node.Config{Host: m.host(), HostKey: m.HostKey, Gate: g, Recorder: events, Pictures: mirror,
		Labels: func() label.Set { return d.Config.SSH.Labels }, Log: log, Now: now, SFTP: []string{d.Executable, "sftp-server"}})
	if err != nil {
		return err
	}
	d.run("node", func(ctx context.Context) error {
		return retry(ctx, log, "tunnel", func(ctx context.Context) error { return serveTunnel(ctx, addr, m, door) })
	})
	d.state.Node = m.host().Name
	if d.state.Node == "" {
		d.state.Node = m.host().ID
	}
	d.state.Cluster, d.state.CAPin = addr.Cluster, cluster.Pin(addr.Authority)
	return nil
}

// serveTunnel keeps one tunnel to the proxy and hands its streams to the door.
func serveTunnel(ctx context.Context, addr client.Address, m *member, door *node.Node) error {
	mux, err := addr.Tunnel(ctx, m.Certificate())
	if err != nil {
		return err
	}
	defer mux.Close()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, func() { mux.Close() }) })
	defer stop()
	return mux.Serve(func(s *tunnel.Stream) {
		if s.Header.Door != tunnel.DoorSSH {
			s.Close()
			return
		}
		door.Handle(ctx, s)
	})
}

// drain is how long sessions that were told that the agent stops have to say so.
const drain = 500 * time.Millisecond

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
