package remote

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/sshagent"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

func (a commands) configCommand() *cobra.Command {
	return &cobra.Command{Use: "config", Short: "Print OpenSSH configuration for the nodes that you may reach", Args: tool.Exactly(0),
		Example: "  tsh config >> ~/.ssh/config\n  tsh agent &\n  ssh root@web.example.com",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, list, err := a.Targets(cmd.Context(), "node", "")
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			fmt.Fprintf(a.Out, "# Nodes of %s; the keys are served by: tsh agent\n", s.Profile.Cluster)
			for _, t := range list {
				fmt.Fprintf(a.Out, "Host %s.%s\n    HostKeyAlias %s\n    ProxyCommand %s proxy ssh %%r@%s\n", console.Safe(t.Name), s.Profile.Cluster, t.Name, quoted(self), t.Name)
				fmt.Fprintf(a.Out, "    UserKnownHostsFile %s\n    IdentityAgent %s\n", quoted(s.Home.KnownHosts(s.Profile)), quoted(a.agentSocket(s)))
				fmt.Fprintln(a.Out, "    Ciphers aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com")
			}
			return nil
		}}
}

// quoted makes a path one word of ssh_config.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t") {
		return `"` + path + `"`
	}
	return path
}

func (a commands) agentSocket(s *tool.State) string {
	return filepath.Join(s.Home.Dir(), "agent.sock")
}

type agentFlags struct{ socket string }

func (a commands) agentCommand() *cobra.Command {
	var f agentFlags
	c := &cobra.Command{Use: "agent", Short: "Serve the session key as an SSH agent, for user authentication alone", Args: tool.Exactly(0),
		Example: "  tsh agent &\n  SSH_AUTH_SOCK=~/.tsh/agent.sock ssh -J alice@proxy.example.com:3080 root@web",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.agent(cmd.Context(), f) }}
	c.Flags().StringVar(&f.socket, "socket", "", "path of the socket; TSH_HOME/agent.sock unless told")
	return c
}

func (a commands) agent(ctx context.Context, f agentFlags) error {
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	path := f.socket
	if path == "" {
		path = a.agentSocket(s)
	}
	l, err := sshagent.Listen(path)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Fprintf(a.Out, "SSH_AUTH_SOCK=%s; export SSH_AUTH_SOCK;\n", path)
	// The login is read anew for each use, so that a new one is served at once.
	agent := sshagent.New(sshagent.Config{HostAuthorities: s.Login.HostAuthorities, Comment: s.Profile.User + "@" + s.Profile.Cluster, Now: a.Now,
		Signer: func() (ssh.Signer, error) {
			now, err := a.Read()
			if err != nil {
				return nil, err
			}
			return now.Signer()
		}})
	err = agent.Serve(ctx, l)
	if ctx.Err() != nil {
		return nil
	}
	return fault.Of(err)
}
