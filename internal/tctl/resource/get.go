// Package resource is tctl's commands that read and write resources as files.
package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// Commands are the package's commands of one run.
func Commands(run *tool.Tool) []*cobra.Command {
	t := commands{run}
	return []*cobra.Command{t.get(), t.create(), t.edit(), t.rm()}
}

type commands struct{ *tool.Tool }

func (t commands) get() *cobra.Command {
	var format console.Format
	c := tool.Command("get KIND[/NAME]…", "Print resources", "tctl get users/myuser > myuser.yaml", -1, func(ctx context.Context, args []string) error {
		list, err := t.resources(ctx, args)
		if err != nil {
			return err
		}
		_, name, _ := manifest.ParseRef(args[0])
		if len(list) == 0 {
			fmt.Fprintln(t.Err, "No resources found")
		}
		return t.printResources(format, list, len(args) == 1 && name != "")
	})
	tool.FormatFlag(c, &format)
	f := c.Flags().Lookup("format")
	f.DefValue = "yaml"
	format = "yaml"
	return c
}

// resources reads what the references name.
func (t commands) resources(ctx context.Context, refs []string) ([]*manifest.Resource, error) {
	type ref struct {
		kind manifest.Kind
		name string
	}
	var wanted []ref
	for _, s := range refs {
		kind, name, err := manifest.ParseRef(s)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, ref{kind, name})
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	var out []*manifest.Resource
	for _, w := range wanted {
		list, err := read(ctx, c, w.kind, w.name)
		if err != nil {
			return nil, err
		}
		out = append(out, list...)
	}
	return out, nil
}

// read reads one resource, or all of a kind.
func read(ctx context.Context, c *client.Cluster, kind manifest.Kind, name string) ([]*manifest.Resource, error) {
	if name == "" {
		return c.List(ctx, kind)
	}
	res, err := c.Get(ctx, kind, name)
	return []*manifest.Resource{res}, err
}

// printResources prints YAML documents, a JSON array (one resource that was named: an object), or a table.
func (t commands) printResources(format console.Format, list []*manifest.Resource, one bool) error {
	docs := [][]byte{}
	for _, res := range list {
		raw, err := res.JSON()
		if err != nil {
			return err
		}
		docs = append(docs, raw)
	}
	switch {
	case format == "yaml" && len(docs) == 0:
		return nil
	case format == "yaml":
		return manifest.WriteYAML(t.Out, docs...)
	case format == "json" && one:
		return format.Print(t.Out, json.RawMessage(docs[0]), nil)
	}
	raws := make([]json.RawMessage, 0, len(docs))
	for _, d := range docs {
		raws = append(raws, d)
	}
	return format.Print(t.Out, raws, func(w io.Writer) error {
		var cells [][]string
		for _, res := range list {
			cells = append(cells, []string{string(res.Kind), res.Metadata.Name, fmt.Sprint(res.Metadata.Revision)})
		}
		console.Table(w, []string{"Kind", "Name", "Revision"}, cells)
		return nil
	})
}
