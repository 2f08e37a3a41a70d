package tool

import (
	"fmt"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kubeconfig"
	"github.com/sallyport/sallyport/internal/listener"
	"github.com/sallyport/sallyport/internal/profile"
	"github.com/spf13/cobra"
)

// LogoutCommand is `tsh logout`.
func (t *Tool) LogoutCommand() *cobra.Command {
	return &cobra.Command{Use: "logout", Short: "Remove certificates and session keys", Example: "  tsh logout", Args: Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			home, err := profile.Open(t.Env)
			if err != nil {
				return err
			}
			p, err := home.Current()
			if fault.Is(err, fault.NotFound) {
				fmt.Fprintln(t.Out, "Not logged in.")
				return nil
			}
			if err != nil {
				return err
			}
			if err := (listener.Client{Home: home.Dir()}).Stop(cmd.Context()); err != nil {
				return err
			}
			if err := kubeconfig.Remove(kubeconfig.Path(t.Env), kubeconfig.Ours(p.Proxy, "")); err != nil {
				return err
			}
			if err := home.Logout(p); err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "Logged out of %s.\n", p.Cluster)
			return nil
		}}
}
