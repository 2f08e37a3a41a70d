package tctl

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/census"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) access() *cobra.Command {
	return console.Group("access", "Who may do what", "tctl access explain --user=alice --resource=node/web-1 --login=root", t.accessExplain())
}

type explainFlags struct {
	user, device, resource, login, verb, dbUser, dbName string
	session                                             string
	format                                              console.Format
}

func (t commands) accessExplain() *cobra.Command {
	var f explainFlags
	c := tool.Command("explain --user=USER --resource=KIND/NAME", "Say what is decided, by which rule, and what would change it",
		"tctl access explain --user=alice --device=C00AA0AAAA0A --resource=node/web-1 --login=root", 0,
		func(ctx context.Context, _ []string) error { return t.explain(ctx, f) })
	c.Flags().StringVar(&f.user, "user", "", "the user")
	c.Flags().StringVar(&f.device, "device", "", "the device that the user logs in on, by asset tag or id")
	c.Flags().StringVar(&f.resource, "resource", "", "what is to be reached, as node/web-1, or a kind, as role")
	c.Flags().StringVar(&f.login, "login", "", "the login on a node")
	c.Flags().StringVar(&f.dbUser, "db-user", "", "the user in a database")
	c.Flags().StringVar(&f.dbName, "db-name", "", "the database on its server")
	c.Flags().StringVar(&f.verb, "verb", "", "what is to be done with a kind, as update")
	c.Flags().StringVar(&f.session, "session", "", "a live session, by its id, instead: by which rule it lives, and what would end it")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) explain(ctx context.Context, f explainFlags) error {
	if f.session != "" {
		return t.explainSession(ctx, f)
	}
	if f.user == "" || f.resource == "" {
		return console.Usagef("--user and --resource must be set")
	}
	kind, name, _ := strings.Cut(f.resource, "/")
	if kind == "node" && name != "" && f.login == "" && f.verb == "" {
		return console.Usagef("--login must be set, for roles grant logins on a node: --login=root")
	}
	if kind == "db" && name != "" && f.dbUser == "" && f.verb == "" {
		return console.Usagef("--db-user must be set, for roles grant users and names in a database: --db-user=alice --db-name=shop")
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	a, err := c.Explain(ctx, client.Question{User: f.user, Device: f.device, Kind: kind, Name: name, Login: f.login, Verb: f.verb, DBUser: f.dbUser, DBName: f.dbName})
	if err != nil {
		return err
	}
	return f.print(t.Out, a, "")
}

// explainSession explains a session that is there.
func (t commands) explainSession(ctx context.Context, f explainFlags) error {
	if f.user+f.device+f.resource+f.login+f.verb+f.dbUser+f.dbName != "" {
		return console.Usagef("--session says all: no other flag goes with it")
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	a, l, err := census.New(c).Explain(ctx, f.session)
	if err != nil {
		return err
	}
	on := ""
	if d := l.Identity.Device; d != nil {
		on = fmt.Sprintf(" on device %s (%s)", d.AssetTag, d.Level)
	}
	return f.print(t.Out, a, fmt.Sprintf("session %s: %s as %s on %s%s, since %s", l.ID, l.Identity.Name, l.Action.Login, l.Target.Name, on,
		l.Since.Local().Format("2006-01-02 15:04:05 MST")))
}

func (f explainFlags) print(out io.Writer, a client.Answer, about string) error {
	if a.Changes == nil {
		a.Changes = []string{}
	}
	return f.format.Print(out, a, func(w io.Writer) error {
		if about != "" {
			fmt.Fprintln(w, console.Safe(about))
		}
		head, change := "allowed", "What would change it:"
		if !a.Allowed {
			head = "refused (" + a.Reason + ")"
		}
		fmt.Fprintf(w, "%s\n", head)
		for line := range strings.Lines(a.Text) {
			fmt.Fprintf(w, "  %s\n", console.Safe(strings.TrimRight(line, "\n")))
		}
		if len(a.Changes) > 0 {
			fmt.Fprintln(w, change)
		}
		for _, line := range a.Changes {
			fmt.Fprintf(w, "  - %s\n", console.Safe(line))
		}
		return nil
	})
}
