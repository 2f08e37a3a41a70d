package daemon

import (
	"context"

	"github.com/sallyport/sallyport/internal/entry"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kube"
	"github.com/sallyport/sallyport/internal/kube/upstream"
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

// clusters are those that this agent is to serve: of the config, and of those that were created, which win.
func (d *daemon) clusters(a *agent) ([]entry.Resource, <-chan struct{}) {
	changed := a.mirror.Changed()
	picture, _ := a.mirror.Current()
	list := []entry.Resource{}
	add := func(k *target.KubeCluster) {
		list = append(list, entry.Resource{Served: target.Served{Name: k.Name, Labels: k.Labels}, Spec: k})
	}
	for i := range d.Config.Kube.Clusters {
		if k := &d.Config.Kube.Clusters[i]; picture.Clusters[k.Name] == nil {
			add(k)
		}
	}
	for name, k := range picture.Clusters {
		if _, serves := picture.Assigned(a.Host(), name); serves && k.Check() == nil {
			add(k)
		}
	}
	return list, changed
}
