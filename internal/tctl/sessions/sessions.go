// Package sessions is tctl's commands for live sessions, and the locks that end them.
package sessions

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client/census"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// Commands are the package's commands of one run.
func Commands(run *tool.Tool) []*cobra.Command {
	t := commands{run}
	return []*cobra.Command{t.sessions(), t.lock()}
}

type commands struct{ *tool.Tool }

func (t commands) sessions() *cobra.Command {
	return console.Group("sessions", "Live sessions", "tctl sessions ls", t.list(), t.end())
}

type listFlags struct {
	user, node string
	format     console.Format
}

func (t commands) list() *cobra.Command {
	var f listFlags
	c := tool.Command("ls", "List live sessions: who, where, since when, on which device, by which role", "tctl sessions ls --user=alice", 0,
		func(ctx context.Context, _ []string) error { return t.listSessions(ctx, f) })
	c.Flags().StringVar(&f.user, "user", "", "those of a user")
	c.Flags().StringVar(&f.node, "node", "", "those on a node, by its name or id")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) listSessions(ctx context.Context, f listFlags) error {
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	list, err := census.New(c).List(ctx)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(l live.Session) bool {
		return (f.user != "" && l.Identity.Name != f.user) || (f.node != "" && l.Target.Name != f.node && l.Target.ID != f.node)
	})
	slices.SortFunc(list, func(a, b live.Session) int {
		return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID))
	})
	return f.format.Print(t.Out, list, func(w io.Writer) error {
		if len(list) == 0 {
			fmt.Fprintln(w, "No live sessions")
			return nil
		}
		printSessions(w, list)
		return nil
	})
}

// shortID is as much of an id as people are shown: enough to name it by.
const shortID = 8

func printSessions(w io.Writer, list []live.Session) {
	rows := make([][]string, 0, len(list))
	for _, l := range list {
		device := "-"
		if d := l.Identity.Device; d != nil {
			device = d.AssetTag
		}
		where := l.Target.Name
		if login := cmp.Or(l.Action.Login, l.Action.DBUser); login != "" {
			where = login + "@" + where
		}
		rows = append(rows, []string{l.ID[:min(shortID, len(l.ID))], l.Identity.Name, where, cmp.Or(l.Protocol, "-"),
			l.Since.Local().Format("2006-01-02 15:04:05 MST"), device, l.Role})
	}
	console.Table(w, []string{"Session", "User", "Where", "Door", "Since", "Device", "Role"}, rows)
}

func (t commands) end() *cobra.Command {
	var message string
	c := tool.Command("end SESSION", "End a live session at once", "tctl sessions end 3f2b9c1a --message='maintenance'", 1,
		func(ctx context.Context, args []string) error {
			c, err := t.Cluster(ctx)
			if err != nil {
				return err
			}
			l, err := census.New(c).End(ctx, args[0], message)
			if err != nil {
				return err
			}
			fmt.Fprintf(t.Out, "session %q of user %q has been ended\n", l.ID, l.Identity.Name)
			return nil
		})
	c.Flags().StringVar(&message, "message", "", "why; the person is told")
	return c
}
