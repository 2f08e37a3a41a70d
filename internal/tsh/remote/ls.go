package remote

import (
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/spf13/cobra"
)

type lsFlags struct {
	verbose bool
	search  string
	query   string
	format  string
}

func (a commands) lsCommand() *cobra.Command {
	var f lsFlags
	c := &cobra.Command{Use: "ls [label=value…]", Short: "List the nodes that you may reach", Example: "  tsh ls\n  tsh ls env=prod --format=json",
		RunE: func(cmd *cobra.Command, args []string) error { return a.ls(cmd, f, args) }}
	c.Flags().BoolVarP(&f.verbose, "verbose", "v", false, "show ids")
	c.Flags().StringVar(&f.query, "query", "", `show nodes for which this holds, such as: resource.labels.env == "prod" && resource.name.startsWith("web")`)
	c.Flags().StringVar(&f.search, "search", "", "show nodes whose name or labels hold every one of these words (comma-separated)")
	c.Flags().StringVar(&f.format, "format", "text", "text, json or yaml")
	return c
}

func (a commands) ls(cmd *cobra.Command, f lsFlags, args []string) error {
	want := label.Selector{}
	for _, arg := range args {
		k, v, ok := strings.Cut(arg, "=")
		if !ok {
			return console.Usagef("want label=value, got %q", arg)
		}
		want[k] = append(want[k], v)
	}
	_, list, err := a.Targets(cmd.Context(), "node", f.query)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(t client.Target) bool {
		return (len(want) > 0 && !want.Matches(t.Labels)) || !found(t, f.search)
	})
	return console.Format(f.format).Print(a.Out, list, func(w io.Writer) error {
		header := []string{"Node Name", "Address", "Labels"}
		if f.verbose {
			header = []string{"Node Name", "Node ID", "Address", "Labels"}
		}
		var rows [][]string
		for _, t := range list {
			row := []string{t.Name, a.Tunnel(), t.Labels.String()}
			if f.verbose {
				row = slices.Insert(row, 1, t.ID)
			}
			rows = append(rows, row)
		}
		console.Table(w, header, rows)
		return nil
	})
}

// found reports whether a node's name or labels hold every word of a search.
func found(t client.Target, search string) bool {
	text := strings.ToLower(t.Name + " " + t.Labels.String() + " " + strings.Join(slices.Sorted(maps.Values(t.Labels)), " "))
	for word := range strings.SplitSeq(search, ",") {
		if !strings.Contains(text, strings.ToLower(strings.TrimSpace(word))) {
			return false
		}
	}
	return true
}
