package people

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) bots() *cobra.Command {
	return console.Group("bots", "Machines that log in without a person", "tctl bots add ci --roles=deploy --address=10.0.0.0/8",
		t.botsAdd(), t.botsList(), t.botsReset(), &cobra.Command{Use: "rm NAME", Short: "Remove a bot and end what was issued to it", Example: "  tctl bots rm ci",
			Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
				return t.removeAccount(cmd.Context(), args[0], identity.Bot)
			}})
}

type botsAddFlags struct {
	roles     []string
	logins    []string
	addresses []string
	format    console.Format
}

func (t commands) botsAdd() *cobra.Command {
	var f botsAddFlags
	c := tool.Command("add NAME --roles=ROLE,…", "Make a bot and print the token for its first login", "tctl bots add ci --roles=deploy --address=10.0.0.0/8", 1,
		func(ctx context.Context, args []string) error { return t.addBot(ctx, args[0], f) })
	c.Long = "Make a bot and print a single-use token. Its first login binds the bot to its machine: to the machine's\n" +
		"device, which the token enrolls, else to a key that is kept there and good from --address only."
	c.Flags().StringSliceVar(&f.roles, "roles", nil, "the bot's roles")
	c.Flags().StringSliceVar(&f.logins, "logins", nil, "what roles expand {{internal.logins}} to")
	c.Flags().StringSliceVar(&f.addresses, "address", nil, "CIDRs that it logs in from, such as 10.0.0.0/8; wanted where its machine has no TPM")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) addBot(ctx context.Context, name string, f botsAddFlags) error {
	if len(f.roles) == 0 {
		return console.Usagef("--roles must be set: tctl bots add %s --roles=access", name)
	}
	a := &identity.Account{Name: name, Kind: identity.Bot, Roles: f.roles, Traits: map[string][]string{}}
	if len(f.logins) > 0 {
		a.Traits["logins"] = f.logins
	}
	for _, s := range f.addresses {
		if addr, err := netip.ParseAddr(s); err == nil {
			s = netip.PrefixFrom(addr, addr.BitLen()).String()
		}
		a.Addresses = append(a.Addresses, s)
	}
	if err := manifest.New(a, 0).Check(); err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	i, err := c.AddUser(ctx, a, "")
	if err != nil {
		return err
	}
	return t.botToken(f.format, fmt.Sprintf("Bot %q has been created.", name), name, i)
}

// botToken prints the token of a bot's first login, and the command that spends it.
func (t commands) botToken(format console.Format, headline, name string, i client.Invite) error {
	shown := struct {
		Bot string `json:"bot"`
		client.Invite
	}{name, i}
	return format.Print(t.Out, shown, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\nIts token works once, until %s:\n\n%s\n\nOn its machine, with the token in a file:\n\ntsh login --proxy=%s --ca-pin=%s --user=%s --token=@FILE\n",
			headline, tool.Until(i.Expires), i.Token, tool.Or(i.Proxy, "HOST:3080"), i.CAPin, name)
		return err
	})
}

func (t commands) botsReset() *cobra.Command {
	var format console.Format
	c := tool.Command("reset NAME", "Unbind a bot from its machine and print a new token", "tctl bots reset ci", 1, func(ctx context.Context, args []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		if err := t.isOf(ctx, c, args[0], identity.Bot); err != nil {
			return err
		}
		i, err := c.ResetUser(ctx, args[0])
		if err != nil {
			return err
		}
		return t.botToken(format, fmt.Sprintf("Bot %q is bound to no machine now, and certificates issued before are refused.", args[0]), args[0], i)
	})
	tool.FormatFlag(c, &format)
	return c
}

func (t commands) botsList() *cobra.Command {
	var format console.Format
	c := tool.Command("ls", "List bots", "tctl bots ls", 0, func(ctx context.Context, _ []string) error {
		rows, err := t.accounts(ctx, identity.Bot)
		if err != nil {
			return err
		}
		return format.Print(t.Out, rows, func(w io.Writer) error {
			cells := cellsOf(rows)
			for i := range cells {
				cells[i] = append(cells[i], tool.Or(strings.Join(rows[i].Addresses, ","), "any"))
			}
			console.Table(w, []string{"Bot", "Roles", "Logins", "Status", "Addresses"}, cells)
			return nil
		})
	})
	tool.FormatFlag(c, &format)
	return c
}
