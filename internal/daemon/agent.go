package daemon

import (
	"context"
	"path/filepath"
	"time"

	"log/slog"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/client"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/daemon/host"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// agent is what the agents of one role have: who they are, what they decide by, and where they write.
type agent struct {
	*host.Member
	addr   client.Address
	calls  *client.Cluster
	mirror *snapshot.Mirror
	events *spool.Spool
	gate   *gate.Gate
	log    *slog.Logger
	now    func() time.Time
}

// agent joins, or comes back as, an agent of a role, behind the proxy of this process or the one that the config names.
func (d *daemon) agent(role identity.HostRole, name string) (*agent, error) {
	proxyAddr := loopback(d.state.Listen)
	if d.Config.Proxy == nil {
		proxyAddr = d.Config.Join.Proxy
	}
	m, err := d.member(role, name, proxyAddr, nil)
	if err != nil {
		return nil, err
	}
	a := &agent{Member: m, log: d.Log.With("part", string(role)), mirror: snapshot.NewMirror(bootTime)}
	if a.addr, err = m.Address(proxyAddr); err != nil {
		return nil, err
	}
	a.calls = a.addr.CallWith(m.Certificate)
	d.later(a.calls.Close)
	a.events, err = spool.Open(spool.Config{Dir: filepath.Join(d.Config.DataDir, "audit", string(role)), Writer: m.Host().ID, Cluster: a.addr.Cluster, Now: time.Now})
	if err != nil {
		return nil, err
	}
	d.later(func() {
		if err := a.events.Close(); err != nil {
			a.log.Error("audit spool was not closed in order", "err", err)
		}
	})
	d.run("audit spool", func(ctx context.Context) error {
		if err := a.events.Run(ctx, hosts.New(a.calls).Ingest); ctx.Err() == nil {
			return err
		}
		return nil
	})
	a.now = func() time.Time { return a.mirror.Time(time.Now()) }
	a.gate = gate.New(a.mirror, a.events, m.Host(), a.now)
	d.run("gate", func(ctx context.Context) error { a.gate.Run(ctx); return nil })
	d.state.Cluster, d.state.CAPin = a.addr.Cluster, cluster.Pin(a.addr.Authority)
	return a, nil
}

// serve keeps the tunnel to the proxy and hands the streams of a door to handle.
func (d *daemon) serve(a *agent, door tunnel.Door, handle func(context.Context, *tunnel.Stream)) {
	d.run(string(a.Host().Role), func(ctx context.Context) error {
		return retry(ctx, a.log, "tunnel", func(ctx context.Context) error {
			mux, err := a.addr.Tunnel(ctx, a.Certificate())
			if err != nil {
				return err
			}
			defer mux.Close()
			stop := context.AfterFunc(ctx, func() { time.AfterFunc(drain, func() { mux.Close() }) })
			defer stop()
			return mux.Serve(func(s *tunnel.Stream) {
				if s.Header.Door != door {
					s.Close()
					return
				}
				handle(ctx, s)
			})
		})
	})
}

// drain is how long sessions that were told that the agent stops have to say so.
const drain = 500 * time.Millisecond
