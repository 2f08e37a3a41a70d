// Package kube is tsh's commands for Kubernetes clusters.
package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/kubeconfig"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/listener/localcert"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// kind is under which the choices of clusters are kept in TSH_HOME.
const kind = "kube"

type commands struct{ *tool.Tool }

// choice is what was chosen for a cluster.
type choice struct {
	Name   string `json:"name"`
	Port   int    `json:"port"`
	Direct bool   `json:"direct,omitempty"` // the way through the proxy's own port, without the listener
}

// Command is `tsh kube`.
func Command(t *tool.Tool) *cobra.Command {
	a := commands{t}
	return console.Group("kube", "Reach Kubernetes clusters", "tsh kube login dev; kubectl get pods",
		a.lsCommand(), a.loginCommand(), a.logoutCommand(), a.execCommand(), a.credentialsCommand())
}

func (a commands) lsCommand() *cobra.Command {
	var format, query string
	c := &cobra.Command{Use: "ls", Short: "List the clusters that you may reach", Args: tool.Exactly(0), Example: "  tsh kube ls\n  tsh kube ls --format=json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, list, err := a.Targets(cmd.Context(), "kube_cluster", query)
			if err != nil {
				return err
			}
			return console.Format(format).Print(a.Out, list, func(w io.Writer) error {
				var rows [][]string
				for _, t := range list {
					var c choice
					in := ""
					if has, err := s.Home.Choice(s.Profile, kind, t.Name, &c); has && err == nil {
						in = "*"
					}
					rows = append(rows, []string{t.Name, t.Labels.String(), in})
				}
				console.Table(w, []string{"Kube Cluster Name", "Labels", "Selected"}, rows)
				return nil
			})
		}}
	c.Flags().StringVar(&query, "query", "", `show clusters for which this holds, such as: resource.labels.env == "prod"`)
	c.Flags().StringVar(&format, "format", "text", "text, json or yaml")
	return c
}

// spec is the door of a choice: always a port, for kubectl knows no sockets.
func spec(s *tool.State, c choice) listener.Spec {
	return listener.Spec{Cluster: s.Profile.Cluster, Role: identity.RoleKube, Resource: c.Name, Port: c.Port, Home: s.Home.LocalDir(s.Profile)}
}

func (a commands) loginCommand() *cobra.Command {
	var port int
	var direct bool
	c := &cobra.Command{Use: "login NAME", Short: "Make kubectl reach a cluster", Args: tool.Exactly(1), Example: "  tsh kube login dev\n  kubectl get pods",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, list, err := a.Targets(cmd.Context(), "kube_cluster", "")
			if err != nil {
				return err
			}
			if !slices.ContainsFunc(list, func(t client.Target) bool { return t.Name == args[0] }) {
				return fault.New(fault.NotFound, "Kubernetes cluster %q not found", args[0]).WithReason("not_found").WithFix("tsh kube ls")
			}
			var c choice
			if _, err := s.Home.Choice(s.Profile, kind, args[0], &c); err != nil {
				return err
			}
			c.Name = args[0]
			if cmd.Flags().Changed("port") {
				c.Port = port
			}
			if c.Direct = direct; direct {
				err = passable(s, c)
			} else if d, oerr := a.Listener(s).Open(cmd.Context(), spec(s, c)); oerr != nil {
				err = oerr
			} else {
				c.Port = d.Port
			}
			if err != nil {
				return err
			}
			if err := s.Home.Choose(s.Profile, kind, c.Name, c); err != nil {
				return err
			}
			e, err := a.entry(s, c)
			if err != nil {
				return err
			}
			path := kubeconfig.Path(a.Env)
			if err := kubeconfig.Put(path, e); err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "Logged into Kubernetes cluster %q: context %q in %s.\nTry: kubectl version\n", c.Name, e.Name, path)
			return nil
		}}
	c.Flags().IntVar(&port, "port", 0, "the port of this machine, any that is free unless told")
	c.Flags().BoolVar(&direct, "direct", false, "the way through the proxy's own port, with the login's certificate: for keys that are no hardware's")
	return c
}

// contextName is how a cluster is called in a kubeconfig.
func contextName(s *tool.State, name string) string { return s.Profile.Cluster + "-" + name }

func (a commands) entry(s *tool.State, c choice) (kubeconfig.Entry, error) {
	self, err := os.Executable()
	if err != nil {
		return kubeconfig.Entry{}, err
	}
	e := kubeconfig.Entry{Name: contextName(s, c.Name), Server: fmt.Sprintf("https://127.0.0.1:%d", c.Port), CAFile: localcert.FilesOf(s.Home.LocalDir(s.Profile)).CA,
		Command: self, Args: []string{"kube", "credentials", "--kube-cluster=" + c.Name, "--proxy=" + s.Profile.Proxy}, Env: map[string]string{"TSH_HOME": s.Home.Dir()}}
	if c.Direct {
		e.Server, e.TLSName, e.CAFile = "https://"+s.Profile.Proxy, servedName(s, c), s.Home.AuthorityFile(s.Profile)
	}
	return e, nil
}

func (a commands) logoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout [NAME]", Short: "Take a cluster, or all of them, out of the kubeconfig", Args: tool.Between(0, 1), Example: "  tsh kube logout dev",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Read()
			if s == nil || s.Profile == nil {
				return err
			}
			name := ""
			if len(args) == 1 {
				name = args[0]
			}
			list, err := s.Home.Choices(s.Profile, kind)
			if err != nil {
				return err
			}
			found := false
			for _, raw := range list {
				var c choice
				if json.Unmarshal(raw, &c) != nil || name != "" && c.Name != name {
					continue
				}
				found = true
				if !c.Direct {
					if err := a.Listener(s).Close(cmd.Context(), spec(s, c)); err != nil {
						return err
					}
				}
				if err := s.Home.Forget(s.Profile, kind, c.Name); err != nil {
					return err
				}
			}
			if name != "" && !found {
				return fault.New(fault.NotFound, "not logged into Kubernetes cluster %q", name).WithFix("tsh kube ls")
			}
			if err := kubeconfig.Remove(kubeconfig.Path(a.Env), kubeconfig.Ours(s.Profile.Proxy, name)); err != nil {
				return err
			}
			fmt.Fprintln(a.Out, "Logged out of Kubernetes.")
			return nil
		}}
}

func (a commands) execCommand() *cobra.Command {
	return &cobra.Command{Use: "exec [kubectl exec's arguments]", Short: "Run a command in a pod, by kubectl", DisableFlagParsing: true, Example: "  tsh kube exec -it web-0 -- sh",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || slices.Contains(args, "--help") || args[0] == "-h" {
				return cmd.Help()
			}
			path, err := exec.LookPath("kubectl")
			if err != nil {
				return fault.New(fault.NotFound, "kubectl is not installed here").WithReason("no_client")
			}
			return a.Run(path, append([]string{"exec"}, args...), nil)
		}}
}

// credential is an ExecCredential of client.authentication.k8s.io.
type credential struct {
	Kind       string           `json:"kind"`
	APIVersion string           `json:"apiVersion"`
	Spec       struct{}         `json:"spec"`
	Status     credentialStatus `json:"status"`
}

type credentialStatus struct {
	Expires     time.Time `json:"expirationTimestamp"`
	Certificate string    `json:"clientCertificateData"`
	Key         string    `json:"clientKeyData"`
}

// asked is what of KUBERNETES_EXEC_INFO counts: which version of the answer the client reads.
func asked(env func(string) string) string {
	var info struct {
		APIVersion string `json:"apiVersion"`
	}
	_ = json.Unmarshal([]byte(env("KUBERNETES_EXEC_INFO")), &info)
	if info.APIVersion == "client.authentication.k8s.io/v1" {
		return info.APIVersion
	}
	return "client.authentication.k8s.io/v1beta1"
}

func (a commands) credentialsCommand() *cobra.Command {
	var name, proxy string
	var held bool
	c := &cobra.Command{Use: "credentials --kube-cluster=NAME", Short: "Be kubectl's exec plugin: open the local door, and say by which certificate it lets in", Args: tool.Exactly(0),
		Example: "  tsh kube credentials --kube-cluster=dev", RunE: func(cmd *cobra.Command, _ []string) error {
			if held {
				return a.heldCredentials(proxy)
			}
			return a.credentials(cmd.Context(), name, proxy)
		}}
	c.Flags().BoolVar(&held, "held", false, "the door is another command's, which holds it open")
	c.Flags().StringVar(&name, "kube-cluster", "", "the cluster")
	c.Flags().StringVar(&proxy, "proxy", "", "the proxy of the login that the entry was made with")
	return c
}

// credentialLife is how long a client may keep an answer: the door itself stands longer.
const credentialLife = 10 * time.Minute

// credentials opens no key: the listener does, when somebody comes.
func (a commands) credentials(ctx context.Context, name, proxy string) error {
	s, err := a.ReadLogin(proxy)
	if err != nil {
		return err
	}
	var c choice
	if has, err := s.Home.Choice(s.Profile, kind, name, &c); err != nil || !has {
		return fault.New(fault.NotFound, "not logged into Kubernetes cluster %q", name).WithReason("no_choice").WithFix("tsh kube login %s", name)
	}
	if c.Direct {
		return a.ownCredentials(s, c)
	}
	if _, err := a.Listener(s).Open(ctx, spec(s, c)); err != nil {
		return err
	}
	return a.localCredentials(s)
}

// heldCredentials are those to a door that `tsh proxy kube` holds: there is none to be opened.
func (a commands) heldCredentials(proxy string) error {
	s, err := a.ReadLogin(proxy)
	if err != nil {
		return err
	}
	return a.localCredentials(s)
}

// localCredentials answers with the certificate that the doors of this machine let in.
func (a commands) localCredentials(s *tool.State) error {
	f := localcert.FilesOf(s.Home.LocalDir(s.Profile))
	cert, err := os.ReadFile(f.Cert)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(f.Key)
	if err != nil {
		return err
	}
	return a.answer(a.Now().Add(credentialLife), cert, key)
}

// answer says what lets kubectl in, and until when it may keep it.
func (a commands) answer(until time.Time, cert, key []byte) error {
	out := credential{Kind: "ExecCredential", APIVersion: asked(a.Env), Status: credentialStatus{until.UTC().Truncate(time.Second), string(cert), string(key)}}
	return json.NewEncoder(a.Out).Encode(out)
}

// Proxy is `tsh proxy kube`.
func Proxy(t *tool.Tool) *cobra.Command {
	a := commands{t}
	var port int
	c := &cobra.Command{Use: "kube NAME", Short: "Hold a port of this machine open for a cluster, with a kubeconfig of its own, until interrupted", Args: tool.Exactly(1),
		Example: "  tsh proxy kube dev", RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.Load(cmd.Context())
			if err != nil {
				return err
			}
			own := spec(s, choice{Name: args[0], Port: port})
			own.Holder = listener.ProxyHolder()
			d, err := a.Listener(s).Open(cmd.Context(), own)
			if err != nil {
				return err
			}
			e, err := a.entry(s, choice{Name: args[0], Port: d.Port})
			if err != nil {
				return err
			}
			e.Args = append(e.Args, "--held")
			path := filepath.Join(s.Home.LocalDir(s.Profile), fmt.Sprintf("kubeconfig-%s-%d", args[0], os.Getpid()))
			if err := kubeconfig.Put(path, e); err != nil {
				return err
			}
			defer os.Remove(path)
			fmt.Fprintf(a.Out, "Cluster %q is reached at %s until this is interrupted.\n\nexport KUBECONFIG=%s\n", args[0], e.Server, console.Quoted(path))
			return a.Listener(s).Hold(cmd.Context(), d)
		}}
	c.Flags().IntVar(&port, "port", 0, "the port, any that is free unless told")
	return c
}
