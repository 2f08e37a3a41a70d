package resource

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) create() *cobra.Command {
	var force bool
	c := tool.Command("create [-f] FILE|-", "Make resources from a file, all of its documents or none", "tctl create -f myuser.yaml", 1, func(ctx context.Context, args []string) error {
		list, err := t.parseFile(args[0])
		if err != nil {
			return err
		}
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		written, err := c.Write(ctx, list, force)
		if err != nil {
			return err
		}
		t.sayWritten(written)
		return nil
	})
	c.Flags().BoolVarP(&force, "force", "f", false, "replace what exists")
	return c
}

func (t commands) parseFile(name string) ([]*manifest.Resource, error) {
	if name == "-" {
		return manifest.Parse(t.In)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "%v", err)
	}
	defer f.Close()
	return manifest.Parse(f)
}

func (t commands) sayWritten(list []client.Written) {
	for _, w := range list {
		verb := "updated"
		if w.Created {
			verb = "created"
		}
		fmt.Fprintf(t.Out, "%s %q has been %s\n", w.Kind, w.Name, verb)
	}
}
