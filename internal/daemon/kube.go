package daemon

import (
	"context"
	"sync"

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
	ways := &apiServers{open: map[*target.KubeCluster]*upstream.Server{}}
	d.later(ways.close)
	return d.resources(a, resources{what: "clusters", door: tunnel.DoorKube, protocols: []string{"h2", "http/1.1"}, wanted: d.clusters,
		handle: func(ctx context.Context, v entry.Visit, spec any) {
			k, _ := spec.(*target.KubeCluster)
			server, err := ways.of(k)
			if err != nil {
				a.log.Error("cluster cannot be reached", "name", v.Resource, "err", err)
			}
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

// apiServers are the ways to API servers, opened when they are first needed; one that cannot be is tried again.
type apiServers struct {
	mu   sync.Mutex
	open map[*target.KubeCluster]*upstream.Server // guarded by mu
}

func (w *apiServers) of(k *target.KubeCluster) (*upstream.Server, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s := w.open[k]; s != nil {
		return s, nil
	}
	s, err := upstream.Open(k)
	if err == nil {
		w.open[k] = s
	}
	return s, err
}

func (w *apiServers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.open {
		s.Close()
	}
}
