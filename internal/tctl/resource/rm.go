package resource

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) rm() *cobra.Command {
	return tool.Command("rm KIND/NAME", "Remove a resource", "tctl rm role/old", 1, func(ctx context.Context, args []string) error {
		kind, name, err := manifest.ParseRef(args[0])
		if err != nil {
			return err
		}
		if name == "" {
			return console.Usagef("name what to remove: tctl rm %s/NAME", kind)
		}
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		shown, err := c.Delete(ctx, kind, name)
		if err != nil {
			return err
		}
		if kind == manifest.Device {
			fmt.Fprintf(t.Out, "Device %q removed\n", shown)
			return nil
		}
		fmt.Fprintf(t.Out, "%s %q has been removed\n", kind, shown)
		return nil
	})
}
