package e2e

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport/sallyport/internal/peer/kubeserver"
)

// clusters are the running ones by the script's directory.
var clusters = map[string]*kubeserver.Server{}

// cmdKube starts a Kubernetes API server whose group `devs` may read and write pods and config maps, with namespaces, and
// writes agent.kubeconfig for an agent that may impersonate: kube NAMESPACE…; kube kill and kube restart do that to it.
func cmdKube(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	work := ts.Getenv("WORK")
	if s := clusters[work]; s != nil {
		switch args[0] {
		case "kill":
			s.Kill()
		case "restart":
			ts.Check(s.Restart(ctx))
		}
		return
	}
	s, err := kubeserver.Start(ctx)
	ts.Check(err)
	ts.Defer(s.Stop)
	clusters[work] = s
	ts.Check(s.Grant(ctx, "devs", args...))
	from, err := s.Kubeconfig(kubeserver.AgentToken)
	ts.Check(err)
	raw, err := os.ReadFile(from)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(work, "agent.kubeconfig"), raw, 0o600))
	dir := filepath.Join(work, "kubectl")
	ts.Check(os.MkdirAll(dir, 0o755))
	ts.Check(os.Symlink(kubeserver.Bin("kubectl"), filepath.Join(dir, "kubectl")))
	ts.Setenv("PATH", dir+":"+ts.Getenv("PATH"))
	ts.Setenv("KUBECONFIG", filepath.Join(work, "kubeconfig"))
	for _, n := range strings.Fields("web db") { // pods without a node: objects to list
		for _, ns := range args {
			_, err := s.Do(ctx, "POST", "/api/v1/namespaces/"+ns+"/pods", `{"metadata":{"name":"`+n+`"},"spec":{"containers":[{"name":"c","image":"i"}]}}`)
			ts.Check(err)
		}
	}
}
