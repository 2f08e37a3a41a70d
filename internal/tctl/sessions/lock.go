package sessions

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/census"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// Terms are why a lock is there and how long, and whether it is to be made or only looked at.
type Terms struct {
	message string
	ttl     time.Duration
	expires string
	dryRun  bool
}

// Add adds the flags.
func (f *Terms) Add(c *cobra.Command) {
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "say which live sessions the lock would cut, and make none")
	c.Flags().StringVar(&f.message, "message", "", "why; the person is told")
	c.Flags().DurationVar(&f.ttl, "ttl", 0, "how long it is in force; for ever unless told")
	c.Flags().StringVar(&f.expires, "expires", "", "until when it is in force, as 2006-01-02T15:04:05Z")
}

// Lock is a lock with these terms.
func (f *Terms) Lock(to lock.Target, now time.Time) (*lock.Lock, error) {
	l := &lock.Lock{Target: to, Message: f.message}
	switch {
	case f.ttl != 0 && f.expires != "":
		return nil, console.Usagef("only one of --ttl and --expires can be set")
	case f.ttl < 0:
		return nil, console.Usagef("--ttl: %s is over already", f.ttl)
	case f.ttl > 0:
		l.Expires = now.UTC().Add(f.ttl).Truncate(time.Second)
	case f.expires != "":
		at, err := console.Moment(f.expires, now)
		if err != nil || !at.After(now) {
			return nil, console.Usagef("--expires: %q is no time to come, as 2006-01-02T15:04:05Z", f.expires)
		}
		l.Expires = at
	}
	return l, nil
}

type lockFlags struct {
	Terms
	target lock.Target
}

func (t commands) lock() *cobra.Command {
	var f lockFlags
	c := tool.Command("lock", "Refuse somebody or something at once, and end their sessions", "tctl lock --user=alice --message='laptop lost' --ttl=24h", 0,
		func(ctx context.Context, _ []string) error { return t.makeLock(ctx, f) })
	c.Flags().StringVar(&f.target.User, "user", "", "a user")
	c.Flags().StringVar(&f.target.Role, "role", "", "everybody with a role")
	c.Flags().StringVar(&f.target.Login, "login", "", "a login on nodes")
	c.Flags().StringVar(&f.target.Device, "device", "", "a device, by id or asset tag")
	c.Flags().StringVar(&f.target.ServerID, "node", "", "a node, by id or name")
	c.Flags().StringVar(&f.target.MFADevice, "mfa-device", "", "a second factor, by id")
	f.Add(c)
	return c
}

func (t commands) makeLock(ctx context.Context, f lockFlags) error {
	if f.target == (lock.Target{}) {
		return console.Usagef("one of --user, --role, --login, --device, --node, --mfa-device must be set")
	}
	l, err := f.Lock(f.target, time.Now())
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	if err := resolve(ctx, c, l); err != nil {
		return err
	}
	t.doubt(ctx, c, l)
	return f.Make(ctx, t.Tool, c, l)
}

// resolve turns what people call devices and nodes into ids.
func resolve(ctx context.Context, c *client.Cluster, l *lock.Lock) error {
	if l.Target.Device != "" && uuid.Validate(l.Target.Device) != nil {
		res, err := c.Get(ctx, manifest.Device, device.NormalTag(l.Target.Device))
		if err != nil {
			return err
		}
		l.Target.Device = res.Metadata.Name
	}
	if l.Target.ServerID != "" && uuid.Validate(l.Target.ServerID) != nil {
		res, err := c.Get(ctx, manifest.Node, l.Target.ServerID)
		if err != nil {
			return err
		}
		l.Target.ServerID = res.Metadata.Name
	}
	return nil
}

// doubt says on standard error that nobody, or no role, is called so: the lock is made all the same, for a name that
// comes later is locked too.
func (t commands) doubt(ctx context.Context, c *client.Cluster, l *lock.Lock) {
	for kind, name := range map[manifest.Kind]string{manifest.User: l.Target.User, manifest.Role: l.Target.Role} {
		if name == "" {
			continue
		}
		if _, err := c.Get(ctx, kind, name); fault.Is(err, fault.NotFound) {
			fmt.Fprintf(t.Err, "there is no %s %q; the lock waits for one\n", kind, console.Safe(name))
		}
	}
}

// previewTime bounds the look at what a lock cuts.
const previewTime = 2 * time.Second

// Make says which live sessions a lock cuts, and makes it.
func (f *Terms) Make(ctx context.Context, t *tool.Tool, c *client.Cluster, l *lock.Lock) error {
	wait := ctx
	if !f.dryRun {
		var cancel context.CancelFunc
		wait, cancel = context.WithTimeout(ctx, previewTime)
		defer cancel()
	}
	cut, count, err := census.New(c).Preview(wait, l)
	switch {
	case err != nil && f.dryRun:
		return err
	case err != nil: // the lock is what matters, and soon
		fmt.Fprintf(t.Err, "which sessions it cuts cannot be told: %s\n", fault.Of(err).Text)
	default:
		printPreview(t, cut, count, f.dryRun)
	}
	if f.dryRun {
		return nil
	}
	l.Name = uuid.NewString()
	written, err := c.Write(ctx, []*manifest.Resource{manifest.New(l, 0)}, false)
	if err != nil {
		return err
	}
	for _, w := range written {
		fmt.Fprintf(t.Out, "Created a lock with name %q.\n", w.Name)
	}
	return nil
}

// printPreview lists what a lock cuts, where it cuts anything.
func printPreview(t *tool.Tool, cut []live.Session, count int, dryRun bool) {
	verb := "cuts"
	if dryRun {
		verb = "would cut"
	}
	switch {
	case count == 0 && dryRun:
		fmt.Fprintf(t.Out, "The lock %s no live session.\n", verb)
	case count == 1:
		fmt.Fprintf(t.Out, "The lock %s 1 live session:\n", verb)
	case count > 1:
		fmt.Fprintf(t.Out, "The lock %s %d live sessions:\n", verb, count)
	}
	if len(cut) > 0 {
		printSessions(t.Out, cut)
	}
	if more := count - len(cut); more > 0 && count > 0 {
		fmt.Fprintf(t.Out, "… and %d more\n", more)
	}
}
