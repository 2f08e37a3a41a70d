package people

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) bots() *cobra.Command {
	return tool.Group("bots", "Programs that may log in", "tctl bots add ci --roles=access --address=10.0.0.0/24",
		t.botsAdd(), t.botsList(), t.botsRemove())
}

type botsAddFlags struct {
	roles   []string
	address string
	format  console.Format
}

func (t commands) botsAdd() *cobra.Command {
	var f botsAddFlags
	c := tool.Command("add NAME --roles=ROLE,…", "Make a bot and print the token of its first login", "tctl bots add ci --roles=access --address=10.0.0.0/24", 1,
		func(ctx context.Context, args []string) error { return t.addBot(ctx, args[0], f) })
	c.Flags().StringSliceVar(&f.roles, "roles", nil, "the bot's roles")
	c.Flags().StringVar(&f.address, "address", "", "a CIDR: where it may come from")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) addBot(ctx context.Context, name string, f botsAddFlags) error {
	if len(f.roles) == 0 {
		return console.Usagef("--roles must be set: bots add %s --roles=access", name)
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	i, err := c.AddBot(ctx, name, f.roles, f.address)
	if err != nil {
		return err
	}
	return f.format.Print(t.Out, i, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "Bot %q has been created.\nIts token works once, until %s:\n\n%s\n\nKeep it in a file on the bot's machine and run there:\n\n"+
			"tsh login --proxy=%s --ca-pin=%s --user=%s --token=@FILE\n", name, tool.Until(i.Expires), i.Token, tool.Or(i.Proxy, "HOST:3080"), i.CAPin, name)
		return err
	})
}

func (t commands) botsList() *cobra.Command {
	var format console.Format
	c := tool.Command("ls", "List bots", "tctl bots ls", 0, func(ctx context.Context, _ []string) error {
		rows, err := t.accounts(ctx, identity.Bot)
		if err != nil {
			return err
		}
		return t.printAccounts(format, rows)
	})
	tool.FormatFlag(c, &format)
	return c
}

func (t commands) botsRemove() *cobra.Command {
	return tool.Command("rm NAME", "Remove a bot and end what was issued to it", "tctl bots rm ci", 1, func(ctx context.Context, args []string) error {
		return t.removeAccount(ctx, args[0], identity.Bot)
	})
}
