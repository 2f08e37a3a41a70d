package daemon

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/internal/client/authority"
	hosts "github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/mongo"
	"github.com/sallyport/sallyport/internal/database/mysql"
	"github.com/sallyport/sallyport/internal/database/mysql/server"
	"github.com/sallyport/sallyport/internal/database/postgres"
	"github.com/sallyport/sallyport/internal/database/postgres/upstream"
	"github.com/sallyport/sallyport/internal/database/redis"
	"github.com/sallyport/sallyport/internal/database/servers"
	"github.com/sallyport/sallyport/internal/entry"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// startDatabases runs a database agent.
func (d *daemon) startDatabases() error {
	a, err := d.agent(identity.RoleDB, d.Config.NodeName)
	if err != nil {
		return err
	}
	door := database.New(database.Config{Gate: a.gate, Servers: servers.New(authority.New(a.calls)), Engines: engines()})
	err = d.resources(a, resources{what: "databases", door: tunnel.DoorDB, protocols: []string{"postgresql"}, wanted: d.databases,
		handle: func(ctx context.Context, v entry.Visit, spec any) {
			db, _ := spec.(*target.DatabaseServer)
			door.Serve(ctx, v.Conn, database.Visit{User: v.User, From: v.From, Database: db, DBUser: v.DBUser})
		}})
	if err == nil {
		makers := map[target.Protocol]database.Maker{target.PostgreSQL: upstream.Maker{}, target.MySQL: server.Maker{}}
		d.run("users on demand", func(ctx context.Context) error {
			door.Tidy(ctx, database.Tidy{Makers: makers, Log: a.log, Databases: func() ([]*target.DatabaseServer, <-chan struct{}) {
				list, changed := d.databases(a)
				return entry.Specs[target.DatabaseServer](list), changed
			}})
			return nil
		})
	}
	return err
}

// resources are what an agent serves by name: what that is, at which door, in which protocols, which, and how one visit is served.
type resources struct {
	what      string
	door      tunnel.Door
	protocols []string
	wanted    func(*agent) ([]entry.Resource, <-chan struct{})
	handle    func(ctx context.Context, v entry.Visit, spec any)
}

// resources serves what an agent serves by name.
func (d *daemon) resources(a *agent, r resources) error {
	catalog := entry.NewCatalog(authority.New(a.calls), a.Host(), a.log)
	e, err := entry.New(entry.Config{Cluster: a.addr.Cluster, Pictures: a.mirror, Certificate: catalog.Certificate, Resource: catalog.Resource,
		Protocols: r.protocols, Log: a.log, Now: a.now,
		Handle: func(ctx context.Context, v entry.Visit) {
			found, ctx, done, ok := catalog.Open(ctx, v.Resource)
			if !ok {
				v.Conn.Close()
				return
			}
			defer done()
			r.handle(ctx, v, found.Spec)
		}})
	if err != nil {
		return err
	}
	d.follow(a.calls, a.Member, hosts.Follower{Mirror: a.mirror, Sessions: a.gate, Again: catalog.Changed(), Served: func() *identity.Server {
		return &identity.Server{Version: version(), Serves: catalog.Serves()}
	}})
	ready := make(chan struct{})
	d.run("resources of "+string(a.Host().Role), func(ctx context.Context) error {
		catalog.Run(ctx, func() ([]entry.Resource, <-chan struct{}) { return r.wanted(a) }, func() { close(ready) })
		return nil
	})
	select {
	case <-ready:
	case <-time.After(10 * time.Second): // auth is away: what is served comes when it is back
	case <-d.ctx.Done():
	}
	if d.state.Serves == nil {
		d.state.Serves = map[string][]string{}
	}
	for _, s := range catalog.Serves() {
		d.state.Serves[r.what] = append(d.state.Serves[r.what], s.Name)
	}
	d.serve(a, r.door, func(ctx context.Context, s *tunnel.Stream) { e.Serve(ctx, s) })
	return nil
}

// databases are those that this agent is to serve.
func (d *daemon) databases(a *agent) ([]entry.Resource, <-chan struct{}) {
	changed := a.mirror.Changed()
	return entry.Wanted(a.mirror, a.Host(), d.Config.DB.Databases, func(p *snapshot.Picture) map[string]*target.DatabaseServer { return p.Databases },
		func(db *target.DatabaseServer) (target.Served, error) {
			return target.Served{Name: db.Name, Protocol: db.Protocol, Labels: db.Labels}, db.Check()
		}), changed
}

// engines are the protocols that this build speaks.
func engines() map[target.Protocol]database.Engine {
	return map[target.Protocol]database.Engine{target.PostgreSQL: postgres.New(), target.MySQL: mysql.Engine{}, target.Redis: redis.Engine{}, target.MongoDB: mongo.New()}
}
