package people

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) tokens() *cobra.Command {
	return console.Group("tokens", "Tokens with which hosts join", "tctl tokens add --type=node", t.tokensAdd(), t.tokensList(), t.tokensRemove())
}

type tokensAddFlags struct {
	types  []string
	name   string
	ttl    time.Duration
	format console.Format
}

func (t commands) tokensAdd() *cobra.Command {
	var f tokensAddFlags
	c := tool.Command("add --type=proxy|node|db|kube", "Make a join token and print the command that spends it", "tctl tokens add --type=node --name=web-1", 0,
		func(ctx context.Context, _ []string) error { return t.addToken(ctx, f) })
	c.Flags().StringSliceVar(&f.types, "type", nil, "what the host may be: proxy, node, db, kube")
	c.Flags().StringVar(&f.name, "name", "", "the name that the host will have")
	c.Flags().DurationVar(&f.ttl, "ttl", time.Hour, "how long the token lives")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) addToken(ctx context.Context, f tokensAddFlags) error {
	if len(f.types) == 0 {
		return console.Usagef("--type must be set: tctl tokens add --type=node")
	}
	for _, r := range f.types {
		if _, ok := identity.ParseHostRole(r); !ok {
			return console.Usagef("--type: %q is none of proxy, node, db, kube, app", r)
		}
		if r == string(identity.RoleApp) {
			return fault.New(fault.Unsupported, "--type: %s is not enforced by this build", r)
		}
	}
	if f.ttl < time.Second {
		return console.Usagef("--ttl: %s is no time to live", f.ttl)
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	i, err := c.AddToken(ctx, f.types, f.name, f.ttl)
	if err != nil {
		return err
	}
	return f.format.Print(t.Out, i, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "The token works until %s. On the host, run:\n\n%s\n", tool.Until(i.Expires), strings.Join(joinCommands(f.types, i), "\n"))
		return err
	})
}

// joinCommands are what hosts run: a proxy dials auth, everybody else a proxy.
func joinCommands(types []string, i client.Invite) []string {
	var out []string
	agents := slices.DeleteFunc(slices.Clone(types), func(r string) bool { return r == string(identity.RoleProxy) })
	if len(agents) < len(types) {
		out = append(out, fmt.Sprintf("sallyport start --roles=proxy --token=%s --auth=%s --ca-pin=%s", i.Token, tool.Or(i.Auth, "HOST:3025"), i.CAPin))
	}
	if len(agents) > 0 {
		out = append(out, fmt.Sprintf("sallyport start --roles=%s --token=%s --proxy=%s --ca-pin=%s", strings.Join(agents, ","), i.Token, tool.Or(i.Proxy, "HOST:3080"), i.CAPin))
	}
	return out
}

type tokenRow struct {
	ID      string              `json:"id"`
	Roles   []identity.HostRole `json:"roles"`
	Name    string              `json:"name,omitempty"`
	Expires time.Time           `json:"expires"`
}

func (t commands) tokensList() *cobra.Command {
	var format console.Format
	c := tool.Command("ls", "List join tokens, without their secrets", "tctl tokens ls", 0, func(ctx context.Context, _ []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		list, err := c.List(ctx, manifest.Token)
		if err != nil {
			return err
		}
		rows := []tokenRow{}
		for _, res := range list {
			if tok, ok := res.Spec.(*identity.JoinToken); ok {
				rows = append(rows, tokenRow{tok.ID, tok.Roles, tok.Name, tok.Expires.UTC()})
			}
		}
		return format.Print(t.Out, rows, func(w io.Writer) error { return printTokens(w, rows) })
	})
	tool.FormatFlag(c, &format)
	return c
}

func printTokens(w io.Writer, rows []tokenRow) error {
	var cells [][]string
	for _, r := range rows {
		var roles []string
		for _, x := range r.Roles {
			roles = append(roles, string(x))
		}
		cells = append(cells, []string{r.ID, strings.Join(roles, ","), r.Name, tool.Until(r.Expires)})
	}
	console.Table(w, []string{"Token ID", "Types", "Name", "Expires"}, cells)
	return nil
}

func (t commands) tokensRemove() *cobra.Command {
	return tool.Command("rm ID", "Take a join token back", "tctl tokens rm 3f2a…", 1, func(ctx context.Context, args []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		shown, err := c.Delete(ctx, manifest.Token, args[0])
		if err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "Token %q has been removed\n", shown)
		return nil
	})
}
