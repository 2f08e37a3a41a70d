package machines

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

// lockTerms are why a lock is there and how long.
type lockTerms struct {
	message string
	ttl     time.Duration
	expires string
}

func (f *lockTerms) add(c *cobra.Command) {
	c.Flags().StringVar(&f.message, "message", "", "why")
	c.Flags().DurationVar(&f.ttl, "ttl", 0, "how long it is in force; for ever unless told")
	c.Flags().StringVar(&f.expires, "expires", "", "until when it is in force, as 2006-01-02T15:04:05Z")
}

// lock makes a lock with these terms.
func (f *lockTerms) lock(to lock.Target, now time.Time) (*lock.Lock, error) {
	l := &lock.Lock{Target: to, Message: f.message}
	switch {
	case f.ttl != 0 && f.expires != "":
		return nil, console.Usagef("only one of --ttl and --expires can be set")
	case f.ttl < 0:
		return nil, console.Usagef("--ttl: %s is over already", f.ttl)
	case f.ttl > 0:
		l.Expires = now.UTC().Add(f.ttl).Truncate(time.Second)
	case f.expires != "":
		at, err := tool.Moment(f.expires, now)
		if err != nil || !at.After(now) {
			return nil, console.Usagef("--expires: %q is no time to come, as 2006-01-02T15:04:05Z", f.expires)
		}
		l.Expires = at
	}
	return l, nil
}

type lockFlags struct {
	lockTerms
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
	f.add(c)
	return c
}

func (t commands) makeLock(ctx context.Context, f lockFlags) error {
	if f.target == (lock.Target{}) {
		return console.Usagef("one of --user, --role, --login, --device, --node, --mfa-device must be set")
	}
	l, err := f.lock(f.target, time.Now())
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	if l.Target.Device != "" && uuid.Validate(l.Target.Device) != nil {
		d, err := find(ctx, c, client.DeviceRef{Tag: device.NormalTag(l.Target.Device)})
		if err != nil {
			return err
		}
		l.Target.Device = d.ID
	}
	if l.Target.ServerID != "" && uuid.Validate(l.Target.ServerID) != nil {
		res, err := c.Get(ctx, manifest.Node, l.Target.ServerID)
		if err != nil {
			return err
		}
		l.Target.ServerID = res.Metadata.Name
	}
	return t.writeLock(ctx, c, l)
}

func (t commands) writeLock(ctx context.Context, c *client.Cluster, l *lock.Lock) error {
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

func (t commands) devicesLock() *cobra.Command {
	var f deviceFlags
	var terms lockTerms
	c := tool.Command("lock --asset-tag=TAG", "Refuse a device at once", "tctl devices lock --asset-tag=C00AA0AAAA0A --message='laptop lost'", 0, func(ctx context.Context, _ []string) error {
		l, err := terms.lock(lock.Target{}, time.Now())
		if err != nil {
			return err
		}
		c, d, err := t.named(ctx, f)
		if err != nil {
			return err
		}
		l.Target.Device = d.ID
		return t.writeLock(ctx, c, l)
	})
	f.add(c)
	terms.add(c)
	return c
}
