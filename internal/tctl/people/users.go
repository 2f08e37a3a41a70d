// Package people is tctl's commands for who may come in: users and the tokens of hosts.
package people

import (
	"context"
	"fmt"
	"io"
	"os"
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

// Commands are the package's commands of one run.
func Commands(run *tool.Tool) []*cobra.Command {
	t := commands{run}
	return []*cobra.Command{t.users(), t.bots(), t.tokens()}
}

type commands struct{ *tool.Tool }

func (t commands) users() *cobra.Command {
	return console.Group("users", "People who may log in", "tctl users add alice --roles=access --logins=root,ubuntu",
		t.usersAdd(), t.usersList(), t.usersRemove(), t.usersReset())
}

type usersAddFlags struct {
	roles        []string
	traits       map[string]*[]string
	passwordFile string
	format       console.Format
}

// traitFlags are the flags that become traits.
var traitFlags = map[string]string{
	"logins": "logins", "db-users": "db_users", "db-names": "db_names",
	"kubernetes-groups": "kubernetes_groups", "kubernetes-users": "kubernetes_users",
}

func (t commands) usersAdd() *cobra.Command {
	f := usersAddFlags{traits: map[string]*[]string{}}
	c := tool.Command("add NAME --roles=ROLE,…", "Make a user and print an invite", "tctl users add alice --roles=access --logins=root,ubuntu", 1,
		func(ctx context.Context, args []string) error { return t.addUser(ctx, args[0], &f) })
	c.Flags().StringSliceVar(&f.roles, "roles", nil, "the user's roles")
	for name, trait := range traitFlags {
		f.traits[trait] = c.Flags().StringSlice(name, nil, "what roles expand {{internal."+trait+"}} to")
	}
	c.Flags().StringVar(&f.passwordFile, "password-file", "", "set the password from a file, - for standard input, and print no invite")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) addUser(ctx context.Context, name string, f *usersAddFlags) error {
	if len(f.roles) == 0 {
		return console.Usagef("--roles must be set: tctl users add %s --roles=access", name)
	}
	a := &identity.Account{Name: name, Kind: identity.Human, Roles: f.roles, Traits: map[string][]string{}}
	for trait, values := range f.traits {
		if slices.ContainsFunc(*values, func(v string) bool { return strings.Contains(v, "*") }) {
			return console.Usagef("--%s: a user's trait is taken to the letter, and a * in it grants nothing: write it in a role's %s", strings.ReplaceAll(trait, "_", "-"), trait)
		}
		if len(*values) > 0 {
			a.Traits[trait] = *values
		}
	}
	if err := manifest.New(a, 0).Check(); err != nil {
		return err
	}
	password, err := t.password(f.passwordFile)
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	i, err := c.AddUser(ctx, a, password)
	if err != nil {
		return err
	}
	if password != "" {
		fmt.Fprintf(t.Out, "User %q has been created.\n", name)
		return nil
	}
	return t.invite(f.format, fmt.Sprintf("User %q has been created but has no password yet.", name), name, i)
}

// password reads the first line of a file; without one there is none.
func (t commands) password(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	in := t.In
	if file != "-" {
		opened, err := os.Open(file)
		if err != nil {
			return "", fault.New(fault.Invalid, "--password-file: %v", err)
		}
		defer opened.Close()
		in = opened
	}
	raw, err := io.ReadAll(io.LimitReader(in, 4097))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(raw), "\n")
	line = strings.TrimSuffix(line, "\r")
	if line == "" || len(line) > 4096 {
		return "", fault.New(fault.Invalid, "--password-file: no password in the first line of %s", file)
	}
	return line, nil
}

// invite prints the command that spends an invite.
func (t commands) invite(format console.Format, headline, user string, i client.Invite) error {
	shown := struct {
		User string `json:"user"`
		client.Invite
	}{user, i}
	return format.Print(t.Out, shown, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\nThe invite works once, until %s. To log in, run:\n\n%s\n", headline, tool.Until(i.Expires), inviteCommand(user, i))
		return err
	})
}

func inviteCommand(user string, i client.Invite) string {
	return fmt.Sprintf("tsh login --proxy=%s --ca-pin=%s --user=%s --invite=%s", tool.Or(i.Proxy, "HOST:3080"), i.CAPin, user, i.Token)
}

type userRow struct {
	Name   string              `json:"name"`
	Roles  []string            `json:"roles"`
	Traits map[string][]string `json:"traits,omitempty"`
	Locked bool                `json:"locked"`
	// Addresses are those that a bot logs in from.
	Addresses []string `json:"addresses,omitempty"`
}

// accounts lists users of one kind.
func (t commands) accounts(ctx context.Context, kind identity.Kind) ([]userRow, error) {
	c, err := t.Cluster(ctx)
	if err != nil {
		return nil, err
	}
	list, err := c.List(ctx, manifest.User)
	if err != nil {
		return nil, err
	}
	rows := []userRow{}
	for _, res := range list {
		a, ok := res.Spec.(*identity.Account)
		if ok && (a.Kind == identity.Bot) == (kind == identity.Bot) {
			rows = append(rows, userRow{a.Name, a.Roles, a.Traits, a.Locked(time.Now()), a.Addresses})
		}
	}
	return rows, nil
}

func (t commands) usersList() *cobra.Command {
	var format console.Format
	c := tool.Command("ls", "List users", "tctl users ls", 0, func(ctx context.Context, _ []string) error {
		rows, err := t.accounts(ctx, identity.Human)
		if err != nil {
			return err
		}
		return t.printAccounts(format, rows)
	})
	tool.FormatFlag(c, &format)
	return c
}

func (t commands) printAccounts(format console.Format, rows []userRow) error {
	return format.Print(t.Out, rows, func(w io.Writer) error {
		console.Table(w, []string{"User", "Roles", "Logins", "Status"}, cellsOf(rows))
		return nil
	})
}

func cellsOf(rows []userRow) (cells [][]string) {
	for _, r := range rows {
		status := "active"
		if r.Locked {
			status = "locked"
		}
		cells = append(cells, []string{r.Name, strings.Join(r.Roles, ","), strings.Join(r.Traits["logins"], ","), status})
	}
	return cells
}

func (t commands) usersRemove() *cobra.Command {
	return tool.Command("rm NAME", "Remove a user and end what was issued to them", "tctl users rm alice", 1, func(ctx context.Context, args []string) error {
		return t.removeAccount(ctx, args[0], identity.Human)
	})
}

// removeAccount removes a user of one kind.
func (t commands) removeAccount(ctx context.Context, name string, kind identity.Kind) error {
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	if err := t.isOf(ctx, c, name, kind); err != nil {
		return err
	}
	if _, err := c.Delete(ctx, manifest.User, name); err != nil {
		return err
	}
	word := "User"
	if kind == identity.Bot {
		word = "Bot"
	}
	fmt.Fprintf(t.Out, "%s %q has been removed\n", word, name)
	return nil
}

// isOf refuses an account of the other kind.
func (t commands) isOf(ctx context.Context, c *client.Cluster, name string, kind identity.Kind) error {
	res, err := c.Get(ctx, manifest.User, name)
	if err != nil {
		return err
	}
	if a, ok := res.Spec.(*identity.Account); !ok || (a.Kind == identity.Bot) != (kind == identity.Bot) {
		return fault.New(fault.NotFound, "%s %q not found", kind, name).WithFix("tctl get user/%s", name)
	}
	return nil
}

func (t commands) usersReset() *cobra.Command {
	var format console.Format
	c := tool.Command("reset NAME", "Take a user's password and codes and print a new invite", "tctl users reset alice", 1, func(ctx context.Context, args []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		if err := t.isOf(ctx, c, args[0], identity.Human); err != nil {
			return err
		}
		i, err := c.ResetUser(ctx, args[0])
		if err != nil {
			return err
		}
		return t.invite(format, fmt.Sprintf("User %q has been reset: password and codes are gone, certificates issued before are refused.", args[0]), args[0], i)
	})
	tool.FormatFlag(c, &format)
	return c
}
