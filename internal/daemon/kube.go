package daemon

import (
	"context"

	"github.com/sallyport/sallyport/internal/entry"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kube"
	"github.com/sallyport/sallyport/internal/kube/upstream"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// startKube runs a Kubernetes agent.
func (d *daemon) startKube() error {
	a, err := d.agent(identity.RoleKube, d.Config.NodeName)
	if err != nil {
		return err
	}
	tapes, err := d.recorder(a)
	if err != nil {
		return err
	}
	door := kube.New(kube.Config{Gate: a.gate, Log: a.log, Now: a.now, Record: kube.Recorded(tapes)})
	d.later(door.Close)
	ways := upstream.NewServers(a.now)
	d.later(ways.Close)
	wanted := func(a *agent) ([]entry.Resource, <-chan struct{}) {
		list, changed := d.clusters(a)
		named := map[string]bool{}
		for _, r := range list {
			named[r.Name] = true
		}
		ways.Keep(named)
		return list, changed
	}
	return d.resources(a, resources{what: "clusters", door: tunnel.DoorKube, protocols: []string{"h2", "http/1.1"}, wanted: wanted,
		handle: func(ctx context.Context, v entry.Visit, spec any) {
			k, _ := spec.(*target.KubeCluster)
			server := func() (*upstream.Server, error) { return ways.Of(k) }
			door.Serve(v.Conn, kube.Visit{Context: ctx, User: v.User, From: v.From, Cluster: k, Server: server})
		}})
}

// clusters are those that this agent is to serve.
func (d *daemon) clusters(a *agent) ([]entry.Resource, <-chan struct{}) {
	changed := a.mirror.Changed()
	return entry.Wanted(a.mirror, a.Host(), d.Config.Kube.Clusters, func(p *snapshot.Picture) map[string]*target.KubeCluster { return p.Clusters },
		func(k *target.KubeCluster) (target.Served, error) {
			return target.Served{Name: k.Name, Labels: k.Labels}, k.Check()
		}), changed
}
