package tctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) status() *cobra.Command {
	var format console.Format
	c := tool.Command("status", "Show the state of the cluster and what to mind", "tctl status", 0, func(ctx context.Context, _ []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		st.Warnings = append([]string{}, st.Warnings...) // never null in --format=json
		st.SecondFactors = append([]string{}, st.SecondFactors...)
		if err := format.Print(t.Out, st, func(w io.Writer) error { return printStatus(w, st) }); err != nil {
			return err
		}
		if format != "text" {
			return nil
		}
		for _, line := range st.Warnings {
			fmt.Fprintln(t.Err, "WARNING: "+console.Safe(line))
		}
		return nil
	})
	tool.FormatFlag(c, &format)
	return c
}

// locking says how strict sessions are, and for how long agents go on without auth.
func locking(st client.Status) string {
	mode := tool.Or(st.LockingMode, "strict")
	if mode == "best_effort" || st.PictureAge == "" {
		return mode
	}
	return mode + " (" + st.PictureAge + ")"
}

func printStatus(w io.Writer, st client.Status) error {
	factors := strings.Join(st.SecondFactors, ", ")
	if factors == "" {
		factors = "off"
	}
	lines := [][2]string{{"Cluster", st.Cluster}, {"Version", st.Version}, {"CA pin", st.CAPin}, {"Proxy", tool.Or(st.Proxy, "none has joined")},
		{"Device trust", st.DeviceMode}, {"Second factors", factors}, {"Locking", locking(st)}}
	for _, kind := range slices.Sorted(maps.Keys(st.Counts)) {
		lines = append(lines, [2]string{strings.ToUpper(kind[:1]) + kind[1:], fmt.Sprint(st.Counts[kind])})
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%-16s%s\n", l[0]+":", console.Safe(l[1])); err != nil {
			return err
		}
	}
	return nil
}
