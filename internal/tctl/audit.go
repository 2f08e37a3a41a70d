package tctl

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) audit() *cobra.Command {
	return console.Group("audit", "The audit log", "tctl audit ls --from=24h --user=alice", t.auditList(), t.auditExport(), t.auditVerify())
}

type auditListFlags struct {
	from, to string
	filter   client.EventFilter
	format   console.Format
}

func (t commands) auditList() *cobra.Command {
	var f auditListFlags
	c := tool.Command("ls", "List audit events", "tctl audit ls --from=24h --event=device.enroll", 0,
		func(ctx context.Context, _ []string) error { return t.listEvents(ctx, f) })
	c.Flags().StringVar(&f.from, "from", "", "from when: 2006-01-02, 2006-01-02T15:04:05Z, or 24h for a day ago")
	c.Flags().StringVar(&f.to, "to", "", "until when")
	c.Flags().StringVar(&f.filter.Event, "event", "", "one kind of event, as device.enroll")
	c.Flags().StringVar(&f.filter.User, "user", "", "one user")
	c.Flags().StringVar(&f.filter.Device, "device", "", "one device, by id or asset tag")
	c.Flags().IntVar(&f.filter.Limit, "limit", 0, "how many at most; all unless told")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) listEvents(ctx context.Context, f auditListFlags) error {
	var err error
	if f.filter.From, f.filter.To, err = console.Span(f.from, f.to, time.Now()); err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	list, err := c.Events(ctx, f.filter)
	if err != nil {
		return err
	}
	if f.filter.Limit > 0 && len(list) > f.filter.Limit {
		list = list[:f.filter.Limit]
	}
	raws := make([]json.RawMessage, 0, len(list))
	for _, raw := range list {
		raws = append(raws, raw)
	}
	return f.format.Print(t.Out, raws, func(w io.Writer) error { return printEvents(w, raws) })
}

func printEvents(w io.Writer, raws []json.RawMessage) error {
	var cells [][]string
	for _, raw := range raws {
		var e event.Event
		if err := json.Unmarshal(raw, &e); err != nil {
			return fmt.Errorf("read an event: %w", err)
		}
		tag, what := "", e.Message
		if e.Device != nil {
			tag = e.Device.AssetTag
		}
		if e.Resource != nil && e.Resource.ResourceName != "" {
			what = e.Resource.ResourceKind + "/" + e.Resource.ResourceName + " " + what
		}
		what = strings.TrimSpace(strings.Join(where(e), " ") + " " + what)
		if !e.Success {
			what = "refused: " + what
		}
		cells = append(cells, []string{e.Time.Local().Format("2006-01-02 15:04:05 -0700 MST"), e.Code, string(e.Kind), e.User, tag, what})
	}
	console.Table(w, []string{"Time", "Code", "Event", "User", "Device", "What"}, cells)
	return nil
}

// where says on which node, as which login, and what was run, copied or forwarded there.
func where(e event.Event) []string {
	var out []string
	if s := e.Session; s != nil && s.ServerName != "" {
		out = append(out, s.Login+"@"+s.ServerName)
	}
	if a := e.Action; a != nil {
		for _, word := range []string{a.Command, a.Direction, a.Path, a.Target} {
			if word != "" {
				out = append(out, word)
			}
		}
	}
	return out
}

func (t commands) auditExport() *cobra.Command {
	var format string
	c := tool.Command("export", "Write the whole audit log to standard output", "tctl audit export --format=jsonl > audit.jsonl", 0, func(ctx context.Context, _ []string) error {
		if format != "jsonl" {
			return console.Usagef("--format: %q is not jsonl", format)
		}
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		return c.Export(ctx, t.Out)
	})
	c.Flags().StringVar(&format, "format", "jsonl", "jsonl")
	return c
}

type auditVerifyFlags struct {
	head, saveHead string
	format         console.Format
}

func (t commands) auditVerify() *cobra.Command {
	var f auditVerifyFlags
	c := tool.Command("verify", "Check the audit log for damage", "tctl audit verify --head=head.json", 0,
		func(ctx context.Context, _ []string) error { return t.verify(ctx, f) })
	c.Flags().StringVar(&f.head, "head", "", "a signed list of heads that was kept elsewhere")
	c.Flags().StringVar(&f.saveHead, "save-head", "", "write the signed list of heads of an intact log to a file")
	tool.FormatFlag(c, &f.format)
	return c
}

func (t commands) verify(ctx context.Context, f auditVerifyFlags) error {
	var head []byte
	if f.head != "" {
		var err error
		if head, err = os.ReadFile(f.head); err != nil {
			return fault.New(fault.Invalid, "--head: %v", err)
		}
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	v, err := c.Verify(ctx, head)
	if err != nil {
		return err
	}
	if v.Findings == nil {
		v.Findings = []string{}
	}
	err = f.format.Print(t.Out, v, func(w io.Writer) error {
		for _, line := range v.Findings {
			fmt.Fprintln(w, console.Safe(line))
		}
		if v.Intact {
			fmt.Fprintf(w, "The audit log is intact: %d chains, %d entries.\n", v.Chains, v.Entries)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !v.Intact {
		return fault.New(fault.Denied, "the audit log is not intact").WithReason("audit_damaged").
			WithCause("%d findings in %d chains with %d entries", len(v.Findings), v.Chains, v.Entries)
	}
	return saveHead(f.saveHead, v.Head)
}

// saveHead writes a list of heads beside where it is to be, then puts it there: an older one is never half replaced.
func saveHead(path string, head []byte) error {
	if path == "" {
		return nil
	}
	if len(head) == 0 {
		return fault.New(fault.Unavailable, "the cluster has signed no list of heads yet").WithFix("wait 10 seconds and try again")
	}
	if err := os.WriteFile(path+".new", append(head, '\n'), 0o600); err != nil {
		return fault.New(fault.Unavailable, "--save-head: %v", err)
	}
	return os.Rename(path+".new", path)
}
