package daemon

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/client"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/daemon/host"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/membership"
	"github.com/sallyport/sallyport/internal/proxy"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/tunnel"
)

func (d *daemon) startProxy() error {
	c := d.Config.Proxy
	l, err := listen(c.Listen, "proxy.listen")
	if err != nil {
		return err
	}
	public := publicAddr(c.PublicAddr, l.Addr().String())
	authAddr := d.state.Auth
	if d.auth == nil {
		authAddr = d.Config.Join.Auth
	}
	m, err := d.member(identity.RoleProxy, "", authAddr, public)
	if err != nil {
		l.Close()
		return err
	}
	addr, err := m.Address(authAddr)
	if err != nil {
		return err
	}
	link := proxy.NewLink(addr, m.Certificate, d.Log)
	d.run("link to auth", link.Run)
	calls := addr.CallOver(func(ctx context.Context) (net.Conn, error) {
		return link.Open(ctx, tunnel.Header{Door: tunnel.DoorRPC})
	}, m.Certificate)
	d.later(calls.Close)
	mirror := snapshot.NewMirror(bootTime)
	d.follow(calls, m, hosts.Follower{Mirror: mirror, Served: func() *identity.Server { return &identity.Server{PublicAddr: public, Version: version()} }})
	web, err := keypairs(c.HTTPSKeypairs)
	if err != nil {
		return err
	}
	p := proxy.New(proxy.Config{Cluster: addr.Cluster, TLSHost: addr.Authority, Certificate: m.Certificate, HostKey: m.HostKey, Web: web,
		ProxyProtocolFrom: c.ProxyProtocolFrom, Pictures: mirror, Auth: link, Log: d.Log.With("part", "proxy"), Now: time.Now})
	d.run("proxy", func(ctx context.Context) error { return p.Serve(ctx, l) })
	d.state.Listen, d.state.Proxy, d.state.Cluster = l.Addr().String(), public[0], addr.Cluster
	d.state.CAPin = cluster.Pin(addr.Authority)
	return nil
}

// publicAddr is what people type; without any in the config it is this host's name, and where the port is bound to
// one address, that address.
func publicAddr(given []string, bound string) []string {
	if len(given) > 0 {
		return given
	}
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return []string{bound}
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() {
		return []string{bound}
	}
	name, err := os.Hostname()
	if err != nil {
		name = "localhost"
	}
	return []string{net.JoinHostPort(strings.ToLower(name), port), net.JoinHostPort("localhost", port),
		net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
}

// follow keeps a mirror by the feed, and the member's certificates renewed.
func (d *daemon) follow(c *client.Cluster, m *host.Member, f hosts.Follower) {
	f.Every, f.Heads = membership.PresenceEvery, d.keepHeads(m.Host().Role)
	log := d.Log.With("part", string(m.Host().Role))
	d.run("feed of "+string(m.Host().Role), func(ctx context.Context) error {
		return retry(ctx, log, "feed", func(ctx context.Context) error {
			return hosts.New(c).Follow(ctx, f)
		})
	})
	d.run("certificates of "+string(m.Host().Role), func(ctx context.Context) error { return m.KeepRenewed(ctx, c) })
}

// keepHeads writes each signed list of audit heads beside the host's own state: a cut log then shows there.
func (d *daemon) keepHeads(role identity.HostRole) func([]byte) {
	file := strings.TrimSuffix(d.memberFile(role), ".json") + ".heads.json"
	return func(raw []byte) {
		if err := host.WriteFile(file, raw); err != nil {
			d.Log.Warn("audit heads were not kept", "err", err)
		}
	}
}

func loadKeypair(cert, key string) (tls.Certificate, error) {
	c, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return c, fault.New(fault.Invalid, "https_keypairs: %v", err).WithReason("config")
	}
	return c, nil
}
