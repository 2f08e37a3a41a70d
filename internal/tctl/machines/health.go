package machines

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) devicesBaseline() *cobra.Command {
	var f deviceFlags
	var b fleet.Baseline
	c := tool.Command("baseline --asset-tag=TAG", "Pin what a device boots, accept what it boots now, or take the pin away",
		"tctl devices baseline --asset-tag=C00AA0AAAA0A\n  tctl devices baseline --asset-tag=C00AA0AAAA0A --accept", 0, func(ctx context.Context, _ []string) error {
			r, err := t.ref(f)
			if err != nil {
				return err
			}
			c, err := t.Cluster(ctx)
			if err != nil {
				return err
			}
			d, err := fleet.Of(c).SetBaseline(ctx, r, b)
			if err != nil {
				return err
			}
			switch base := d.CloneHealth().Baseline; {
			case base == nil:
				fmt.Fprintf(t.Out, "Device %q has no baseline\n", d.AssetTag)
			case len(base.PCRs) == 0:
				fmt.Fprintf(t.Out, "Device %q takes its baseline (PCRs %v) at its next login\n", d.AssetTag, base.Watch)
			default:
				fmt.Fprintf(t.Out, "Device %q is pinned to what it booted (PCRs %v)\n", d.AssetTag, base.Watch)
			}
			return nil
		})
	c.Long = "Pin what a device boots: from then on each login quotes its start, and a start that is not the same proves no\n" +
		"device. Without --pcrs these are PCRs 0 (firmware), 2 (option ROMs), 4 (boot loader) and 7 (Secure Boot policy)."
	f.add(c)
	c.Flags().UintSliceVar(&b.PCRs, "pcrs", nil, "the PCRs that are pinned, of 0 to 9 and 14")
	c.Flags().BoolVar(&b.Accept, "accept", false, "take what it booted last, though it differs")
	c.Flags().BoolVar(&b.Clear, "clear", false, "take the baseline away")
	c.MarkFlagsMutuallyExclusive("accept", "clear")
	return c
}

func (t commands) devicesAccept() *cobra.Command {
	var f deviceFlags
	c := tool.Command("accept --asset-tag=TAG", "Take what was noticed of a device as it is", "tctl devices accept --asset-tag=C00AA0AAAA0A", 0, func(ctx context.Context, _ []string) error {
		c, r, err := t.at(ctx, f)
		if err != nil {
			return err
		}
		accepted, d, err := fleet.Of(c).Accept(ctx, r)
		if err != nil {
			return err
		}
		if len(accepted) == 0 {
			fmt.Fprintf(t.Out, "Nothing was noticed of device %q\n", d.AssetTag)
			return nil
		}
		fmt.Fprintf(t.Out, "Device %q: accepted %s\n", d.AssetTag, strings.Join(accepted, ", "))
		return nil
	})
	f.add(c)
	return c
}
