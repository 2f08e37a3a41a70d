package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"time"

	"github.com/sallyport/sallyport/bench/path"
	"github.com/sallyport/sallyport/bench/rig"
	"github.com/sallyport/sallyport/internal/peer/kubeserver"
)

const password = "correct horse battery\n"

// person is somebody's machine in a running cluster.
type person struct {
	*bench
	world  path.World
	config string // kubeconfig
}

// Path measures all that is between a person and an API server, listener, proxy, tunnel and agent, and the exec plugin.
func Path(ctx context.Context, world path.World, size Size) ([]rig.Row, error) {
	return rig.Measure(func(r *rig.Rig) []rig.Row {
		b := &bench{Rig: r, Size: size, ctx: ctx, ways: map[string]way{}}
		b.Pods = 0
		b.cluster()
		b.open()
		p := &person{b, world, filepath.Join(world.Dir, "kubeconfig")}
		p.join()
		p.measure()
		return b.rows
	})
}

// join makes the API server a resource, and logs somebody in.
func (p *person) join() {
	agent, err := p.server.Kubeconfig(kubeserver.AgentToken)
	p.Check(err)
	for name, text := range map[string]string{
		"cluster.yaml": fmt.Sprintf("kind: kube_cluster\nversion: v3\nmetadata: {name: bench}\nspec: {kubeconfig: %q}\n", agent),
		"kube.yaml":    "kind: role\nversion: v7\nmetadata: {name: kubebench}\nspec: {allow: {kubernetes_labels: {\"*\": \"*\"}, kubernetes_groups: [devs]}}\n",
	} {
		file := filepath.Join(p.Dir(), name)
		p.Check(os.WriteFile(file, []byte(text), 0o600))
		p.Check(p.world.Run(p.ctx, "", "tctl", "create", file))
	}
	p.Check(p.world.Run(p.ctx, password, "tctl", "users", "add", "kube", "--roles=kubebench", "--password-file=-"))
	pin, proxy := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(p.world.Out), regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(p.world.Out)
	p.Check(p.world.Run(p.ctx, password, "tsh", "login", "--proxy="+proxy[1], "--ca-pin="+pin[1], "--user=kube"))
	for range 100 {
		if _, err = p.tsh("kube", "login", "bench"); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	p.Check(err)
}

func (p *person) tsh(args ...string) ([]byte, error) {
	c := exec.CommandContext(p.ctx, filepath.Join(p.world.Bin, "tsh"), args...)
	c.Env = append(p.world.Env[:len(p.world.Env):len(p.world.Env)], "KUBECONFIG="+p.config)
	out, err := c.Output()
	if e, is := err.(*exec.ExitError); is {
		err = fmt.Errorf("tsh %v: %w: %s", args, err, e.Stderr)
	}
	return out, err
}

// local is the way through the listener, as the kubeconfig and the exec plugin say it.
func (p *person) local() way {
	raw, err := os.ReadFile(p.config)
	p.Check(err)
	server, file := regexp.MustCompile(`server: "?https://([0-9.:]+)`).FindSubmatch(raw), regexp.MustCompile(`certificate-authority: "?([^"\n]+)`).FindSubmatch(raw)
	if server == nil || file == nil {
		p.Fatalf("the kubeconfig is %s", raw)
	}
	out, err := p.tsh("kube", "credentials", "--kube-cluster=bench")
	p.Check(err)
	var got struct {
		Status struct{ ClientCertificateData, ClientKeyData string }
	}
	p.Check(json.Unmarshal(out, &got))
	cert, err := tls.X509KeyPair([]byte(got.Status.ClientCertificateData), []byte(got.Status.ClientKeyData))
	p.Check(err)
	ca, err := os.ReadFile(string(file[1]))
	p.Check(err)
	conf := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS13, ServerName: "127.0.0.1"}
	conf.RootCAs.AppendCertsFromPEM(ca)
	return way{name: "path", addr: string(server[1]), conf: conf}
}

func (p *person) measure() {
	p.ways["path"] = p.local()
	const through = "through listener, proxy and tunnel: "
	for _, clients := range []int{1, 16} {
		m := p.rated([]string{"path", "agent", "direct"}, clients, nil, "/api/v1/namespaces/bench/configmaps/small")
		p.row(fmt.Sprintf("%sGET of a small object, %d connections", through, clients), fmt.Sprintf("%.0f/s", m["path"]),
			fmt.Sprintf("at the agent %.0f, direct %.0f", m["agent"], m["direct"]), fmt.Sprintf("%.2f of direct", m["path"]/m["direct"]), "no floor")
	}
	start := rig.Turns(p.Rounds, []string{"path", "direct"}, func(name string) float64 {
		var all []time.Duration
		for range 20 {
			began := time.Now()
			_, err := p.ways[name].exec(p.ctx, "app", "true")
			p.Check(err)
			all = append(all, time.Since(began))
		}
		return float64(median(all))
	})
	p.row(through+"exec of true", ms(time.Duration(start["path"])), "direct "+ms(time.Duration(start["direct"])), "", "no floor")
	var plugin, version []time.Duration
	for range 20 * p.Rounds {
		began := time.Now()
		_, err := p.tsh("kube", "credentials", "--kube-cluster=bench")
		p.Check(err)
		plugin, began = append(plugin, time.Since(began)), time.Now()
		_, err = p.tsh("version")
		p.Check(err)
		version = append(version, time.Since(began))
	}
	p.row("`tsh kube credentials`, the listener running", ms(median(plugin)), "`tsh version` "+ms(median(version)), "", "≤ 20 ms")
}
