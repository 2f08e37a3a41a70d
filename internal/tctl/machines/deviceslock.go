package machines

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/tctl/sessions"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) devicesLock() *cobra.Command {
	var f deviceFlags
	var terms sessions.Terms
	c := tool.Command("lock --asset-tag=TAG", "Refuse a device at once", "tctl devices lock --asset-tag=C00AA0AAAA0A --message='laptop lost'", 0, func(ctx context.Context, _ []string) error {
		l, err := terms.Lock(lock.Target{}, time.Now())
		if err != nil {
			return err
		}
		c, d, err := t.named(ctx, f)
		if err != nil {
			return err
		}
		l.Target.Device = d.ID
		return terms.Make(ctx, t.Tool, c, l)
	})
	f.add(c)
	terms.Add(c)
	return c
}
