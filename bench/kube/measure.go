package kube

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/bench/rig"
	"github.com/sallyport/sallyport/internal/peer/kubeserver"
)

// Size is how much is measured.
type Size struct {
	Rounds  int           // how often each way is measured
	Time    time.Duration // how long each time
	Pods    int           // of the long list
	Watches int           // that are idle
	Bulk    int64         // bytes that an exec says
}

// Full is what the table is of, Small shows that it runs.
var (
	Full  = Size{5, 2 * time.Second, 5000, 1000, 256 << 20}
	Small = Size{1, 300 * time.Millisecond, 500, 100, 16 << 20}
)

// bench is a cluster and the ways to it.
type bench struct {
	*rig.Rig
	Size
	ctx    context.Context
	server *kubeserver.Server
	ways   map[string]way
	rows   []rig.Row
}

// Run measures.
func Run(ctx context.Context, size Size) ([]rig.Row, error) {
	return rig.Measure(func(r *rig.Rig) []rig.Row {
		b := &bench{Rig: r, Size: size, ctx: ctx, ways: map[string]way{}}
		b.cluster()
		b.open()
		b.get()
		b.list()
		b.watches()
		b.execs()
		b.idle()
		return b.rows
	})
}

func (b *bench) row(what, value, beside, ratio, goal string) {
	b.rows = append(b.rows, rig.Line("Kubernetes: "+what, value, beside, ratio, goal))
}

func (b *bench) post(path, body string) {
	_, err := b.server.Do(b.ctx, "POST", path, body)
	b.Check(err)
}

// cluster starts one with pods that are only listed, and one that runs.
func (b *bench) cluster() {
	s, err := kubeserver.Start(b.ctx)
	b.Check(err)
	b.Cleanup(s.Stop)
	b.server = s
	b.Check(s.Kubelet(b.ctx))
	b.Check(s.Grant(b.ctx, "devs", "bench", "many"))
	const rbac = "/apis/rbac.authorization.k8s.io/v1/"
	b.post(rbac+"clusterrolebindings", `{"metadata":{"name":"alice"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"devs"},"subjects":[{"kind":"User","name":"alice"}]}`)
	b.post("/api/v1/namespaces/bench/configmaps", `{"metadata":{"name":"small"},"data":{"a":"b"}}`)
	b.Check(s.Run(b.ctx, "bench", "app", "sleep", "3600"))
	for i := range b.Pods {
		b.post("/api/v1/namespaces/many/pods", fmt.Sprintf(`{"metadata":{"name":"pod-%d","labels":{"app":"many","of":"%d"}},"spec":{"containers":[{"name":"c","image":"registry.example.com/team/app:1.2.3","env":[{"name":"A","value":"b"}]}]}}`, i, i))
	}
}

// open starts what stands in each way.
func (b *bench) open() {
	ca := b.server.Authority()
	client, front := b.Files(ca, ca.Client("alice")), b.Files(ca, ca.Server())
	at := strings.TrimPrefix(b.server.URL, "https://")
	conf, err := rig.Load(client)
	b.Check(err)
	agent, err := b.server.Kubeconfig(kubeserver.AgentToken)
	b.Check(err)
	b.ways["direct"] = way{name: "direct", addr: at, conf: conf}
	for name, p := range map[string]place{"agent": {}, "relay": {Copy: true}, "filtering": {Filters: true}} {
		p.Server, p.Client, p.Front, p.Kubeconfig = at, client, front, agent
		p.Dir = b.Dir()
		addr, pid := b.Begin(Env, p)
		b.ways[name] = way{name: name, addr: addr, conf: conf, pid: pid}
	}
	file := client + "/kubeconfig"
	b.Check(os.WriteFile(file, fmt.Appendf(nil, "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]\nusers: [{name: u, user: {client-certificate: %q, client-key: %q}}]\ncontexts: [{name: c, context: {cluster: c, user: u}}]\n",
		b.server.URL, client+"/ca.pem", client+"/cert.pem", client+"/key.pem"), 0o600))
	c := exec.Command(kubeserver.Bin("kubectl"), "--kubeconfig="+file, "proxy", "--port=0", "--reject-paths=^$", "--disable-filter=true")
	said, pid := b.Start(c)
	_, port, err := net.SplitHostPort(said[strings.LastIndexByte(said, ' ')+1:])
	b.Check(err)
	b.ways["kubectl proxy"] = way{name: "kubectl proxy", addr: "127.0.0.1:" + port, pid: pid}
}

// rate is how often a second f is done by so many at once.
func (b *bench) rate(clients int, f func(worker int) error) (float64, int64) {
	var done atomic.Int64
	var failed atomic.Pointer[error]
	var all sync.WaitGroup
	began := time.Now()
	for i := range clients {
		all.Go(func() {
			for time.Since(began) < b.Time {
				if err := f(i); err != nil {
					failed.Store(&err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	if err := failed.Load(); err != nil {
		b.Fatal(*err)
	}
	return float64(done.Load()) / time.Since(began).Seconds(), done.Load()
}

// cost counts what of a process's time each deed took.
type cost struct {
	spent time.Duration
	done  int64
}

func (c *cost) each() time.Duration { return c.spent / time.Duration(max(c.done, 1)) }

func (c *cost) perSecond() float64 { return float64(c.done) / max(c.spent.Seconds(), 0.001) }

// rated measures how often a second a thing is done by every way, with clients that have a connection each; what it costs the
// process between is added to costs.
func (b *bench) rated(names []string, clients int, costs map[string]*cost, path string) map[string]float64 {
	return rig.Turns(b.Rounds, names, func(name string) float64 {
		w := b.ways[name]
		conns := make([]func() error, clients)
		for i := range conns {
			c := w.client()
			defer c.CloseIdleConnections()
			conns[i] = func() error { _, err := w.get(b.ctx, c, path); return err }
			b.Check(conns[i]()) // the connection is there
		}
		before := rig.CPU(w.pid)
		rate, done := b.rate(clients, func(i int) error { return conns[i]() })
		if c := costs[name]; c != nil {
			c.spent, c.done = c.spent+rig.CPU(w.pid)-before, c.done+done
		}
		return rate
	})
}

var everyWay = []string{"agent", "relay", "kubectl proxy", "direct"}

func (b *bench) get() {
	costs := map[string]*cost{"agent": {}, "relay": {}, "kubectl proxy": {}}
	for _, clients := range []int{1, 16, 64} {
		m := b.rated(everyWay, clients, costs, "/api/v1/namespaces/bench/configmaps/small")
		b.row(fmt.Sprintf("GET of a small object, %d connections", clients), fmt.Sprintf("%.0f/s", m["agent"]),
			fmt.Sprintf("relay %.0f, kubectl proxy %.0f, direct %.0f", m["relay"], m["kubectl proxy"], m["direct"]), fmt.Sprintf("%.2f of relay", m["agent"]/m["relay"]), "≥ 0.8 of relay")
	}
	b.row("requests for a second of the process's own CPU time", fmt.Sprintf("%.0f", costs["agent"].perSecond()),
		fmt.Sprintf("relay %.0f, kubectl proxy %.0f", costs["relay"].perSecond(), costs["kubectl proxy"].perSecond()), "", "≥ 1,800")
}

func (b *bench) list() {
	costs := map[string]*cost{"agent": {}, "relay": {}, "kubectl proxy": {}, "filtering": {}}
	m := b.rated([]string{"agent", "relay", "kubectl proxy", "direct", "filtering"}, 1, costs, "/api/v1/namespaces/many/pods")
	what := fmt.Sprintf("list of %d pods, JSON", b.Pods)
	beside := fmt.Sprintf("relay %.2f, kubectl proxy %.2f, direct %.2f", m["relay"], m["kubectl proxy"], m["direct"])
	b.row(what, fmt.Sprintf("%.2f/s", m["agent"]), beside, fmt.Sprintf("%.2f of relay", m["agent"]/m["relay"]), "≥ 0.8 of relay")
	b.row(what+", looked through by kubernetes_resources", fmt.Sprintf("%.2f/s", m["filtering"]), beside, fmt.Sprintf("%.2f of relay", m["filtering"]/m["relay"]), "")
	b.row(what+", CPU of the process each", ms(costs["agent"].each()), fmt.Sprintf("relay %s, kubectl proxy %s, looked through %s", ms(costs["relay"].each()), ms(costs["kubectl proxy"].each()), ms(costs["filtering"].each())), "", "")
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

var revision = regexp.MustCompile(`"resourceVersion":"(\d+)"`)

// watchOf is the path of a watch of one object from now on, as kubectl begins it behind a list.
func (b *bench) watchOf(kind, name string) string {
	path := "/api/v1/namespaces/bench/" + kind + "?fieldSelector=metadata.name%3D" + name
	list, err := b.server.Do(b.ctx, "GET", path, "")
	b.Check(err)
	at := revision.FindStringSubmatch(list)
	if at == nil {
		b.Fatal("a list without a version")
	}
	return path + "&watch=true&resourceVersion=" + at[1]
}

// watches changes an object, and takes how long each way's watch of it is behind the change.
func (b *bench) watches() {
	ctx, stop := context.WithCancel(b.ctx)
	defer stop()
	b.post("/api/v1/namespaces/bench/configmaps", `{"metadata":{"name":"moves"},"data":{"a":"0"}}`)
	names := append([]string{"filtering"}, everyWay...)
	events, late := map[string]<-chan string{}, map[string][]time.Duration{}
	for _, name := range names {
		p := b.watchOf("configmaps", "moves")
		if name == "filtering" {
			p = b.watchOf("pods", "app")
		}
		var err error
		events[name], err = b.ways[name].watch(ctx, p)
		b.Check(err)
	}
	for i := range 40 * b.Rounds {
		var mu sync.Mutex
		var all sync.WaitGroup
		began := time.Now()
		for _, name := range everyWay {
			all.Go(func() {
				<-events[name]
				mu.Lock()
				late[name] = append(late[name], time.Since(began))
				mu.Unlock()
			})
		}
		_, err := b.server.Do(ctx, "PUT", "/api/v1/namespaces/bench/configmaps/moves", fmt.Sprintf(`{"metadata":{"name":"moves"},"data":{"a":"%d"}}`, i+1))
		b.Check(err)
		all.Wait()
	}
	for i := range 10 * b.Rounds {
		began := time.Now()
		_, err := b.server.Do(ctx, "PUT", "/api/v1/namespaces/bench/pods/app/status", fmt.Sprintf(`{"metadata":{"name":"app"},"status":{"message":"%d"}}`, i))
		b.Check(err)
		<-events["filtering"]
		late["filtering"] = append(late["filtering"], time.Since(began))
	}
	m := map[string]time.Duration{}
	for name, all := range late {
		m[name] = median(all)
	}
	b.row("watch, from the change to the event", ms(m["agent"]), fmt.Sprintf("relay %s, kubectl proxy %s, direct %s", ms(m["relay"]), ms(m["kubectl proxy"]), ms(m["direct"])),
		fmt.Sprintf("%s more than direct", ms(m["agent"]-m["direct"])), "≤ 2 ms more")
	b.row("watch that is looked through, of another object", ms(m["filtering"]), "", "", "")
}

// execs measures how long a command takes that does nothing, what many cost, and how fast one speaks.
func (b *bench) execs() {
	start := rig.Turns(b.Rounds, everyWay, func(name string) float64 {
		var all []time.Duration
		for range 20 {
			began := time.Now()
			_, err := b.ways[name].exec(b.ctx, "app", "true")
			b.Check(err)
			all = append(all, time.Since(began))
		}
		return float64(median(all))
	})
	d := func(name string) time.Duration { return time.Duration(start[name]) }
	b.row("exec of true", ms(d("agent")), fmt.Sprintf("relay %s, kubectl proxy %s, direct %s", ms(d("relay")), ms(d("kubectl proxy")), ms(d("direct"))),
		fmt.Sprintf("%s more than direct", ms(d("agent")-d("direct"))), "≤ 20 ms more")
	var err error
	b.ways["listener"], err = b.ways["agent"].listener(b.ctx)
	b.Check(err)
	b.ways["unrecorded"], err = b.ways["filtering"].listener(b.ctx)
	b.Check(err)
	costs := map[string]*cost{"agent": {}, "relay": {}, "listener": {}, "unrecorded": {}}
	rig.Turns(b.Rounds, []string{"listener", "unrecorded", "agent", "relay"}, func(name string) float64 {
		w := b.ways[name]
		before := rig.CPU(w.pid)
		rate, done := b.rate(4, func(int) error { _, err := w.exec(b.ctx, "app", "true"); return err })
		costs[name].spent, costs[name].done = costs[name].spent+rig.CPU(w.pid)-before, costs[name].done+done
		return rate
	})
	b.row("exec for a second of the process's own CPU time, on the one connection of a listener", fmt.Sprintf("%.0f", costs["unrecorded"].perSecond()), fmt.Sprintf("recorded: %.0f, recorded and with a TLS connection each: %.0f, relay %.0f",
		costs["listener"].perSecond(), costs["agent"].perSecond(), costs["relay"].perSecond()), "", "≥ 500")
	bulk := rig.Turns(b.Rounds, everyWay, func(name string) float64 {
		began := time.Now()
		n, err := b.ways[name].exec(b.ctx, "app", "head", "-c", fmt.Sprint(b.Bulk), "/dev/zero")
		b.Check(err)
		if n != b.Bulk {
			b.Fatalf("%s: %d bytes of %d", name, n, b.Bulk)
		}
		return float64(n) / (1 << 20) / time.Since(began).Seconds()
	})
	b.row(fmt.Sprintf("exec that says %d MiB", b.Bulk>>20), fmt.Sprintf("%.0f MiB/s", bulk["agent"]),
		fmt.Sprintf("relay %.0f, kubectl proxy %.0f, direct %.0f", bulk["relay"], bulk["kubectl proxy"], bulk["direct"]), fmt.Sprintf("%.2f of relay", bulk["agent"]/bulk["relay"]), "≥ 0.8 of relay")
}

// idle holds watches on which nothing comes, and weighs the process.
func (b *bench) idle() {
	each := map[string]float64{}
	for _, name := range []string{"agent", "relay"} {
		w := b.ways[name]
		ctx, stop := context.WithCancel(b.ctx)
		before := rig.RSS(w.pid)
		path := b.watchOf("configmaps", "none")
		for range b.Watches {
			_, err := w.watch(ctx, path)
			b.Check(err)
		}
		each[name] = float64(rig.RSS(w.pid)-before) / float64(b.Watches) / 1000
		stop()
	}
	b.row(fmt.Sprintf("%d idle watches, memory of the process each", b.Watches), fmt.Sprintf("%.0f kB", each["agent"]), fmt.Sprintf("relay %.0f kB", each["relay"]), "", "≤ 100 kB")
}
