package tctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) auth() *cobra.Command {
	return console.Group("auth", "The cluster's authorities", "tctl auth export --type=ssh-host", t.authExport(), t.authSign())
}

func (t commands) authExport() *cobra.Command {
	var use string
	var format console.Format
	c := tool.Command("export", "Print the public keys of the cluster's authorities", "tctl auth export --type=ssh-host >> ~/.ssh/known_hosts", 0, func(ctx context.Context, _ []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		keys, err := c.Authorities(ctx)
		if err != nil {
			return err
		}
		uses := slices.Sorted(maps.Keys(keys))
		if use != "" {
			if _, ok := keys[use]; !ok {
				return console.Usagef("--type: %q is none of %s", use, strings.Join(uses, ", "))
			}
			maps.DeleteFunc(keys, func(k, _ string) bool { return k != use })
			uses = []string{use}
		}
		return format.Print(t.Out, keys, func(w io.Writer) error {
			for _, k := range uses {
				if use == "" {
					fmt.Fprintf(w, "# %s\n", k)
				}
				fmt.Fprintln(w, strings.TrimRight(keys[k], "\n"))
			}
			return nil
		})
	})
	c.Flags().StringVar(&use, "type", "", "one of audit-heads, dial-tickets, ssh-host, ssh-user, tls-host, tls-user")
	tool.FormatFlag(c, &format)
	return c
}
