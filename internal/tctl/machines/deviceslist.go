package machines

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

type deviceRow struct {
	AssetTag     string `json:"asset_tag"`
	OS           string `json:"os_type"`
	Source       string `json:"source,omitempty"`
	EnrollStatus string `json:"enroll_status"`
	Attestation  string `json:"attestation,omitempty"`
	Owner        string `json:"owner,omitempty"`
	DeviceID     string `json:"device_id"`
}

func rowOf(d *device.Device) deviceRow {
	r := deviceRow{AssetTag: d.AssetTag, OS: string(d.OSType), EnrollStatus: string(d.EnrollStatus), Owner: d.Owner, DeviceID: d.ID}
	if r.EnrollStatus == "" {
		r.EnrollStatus = string(device.NotEnrolled)
	}
	if d.Source != nil {
		r.Source = d.Source.Name
	}
	if n := len(d.Credentials); n > 0 {
		r.Attestation = string(d.Credentials[n-1].Attestation)
	}
	return r
}

func (t commands) devicesList() *cobra.Command {
	var format console.Format
	c := tool.Command("ls", "List devices", "tctl devices ls", 0, func(ctx context.Context, _ []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		list, err := c.List(ctx, manifest.Device)
		if err != nil {
			return err
		}
		rows := []deviceRow{}
		for _, res := range list {
			if d, ok := res.Spec.(*device.Device); ok {
				rows = append(rows, rowOf(d))
			}
		}
		return format.Print(t.Out, rows, func(w io.Writer) error { return printDevices(w, rows) })
	})
	tool.FormatFlag(c, &format)
	return c
}

func printDevices(w io.Writer, rows []deviceRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "No devices found")
		return err
	}
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{r.AssetTag, device.OS(r.OS).Title(), r.Source, r.EnrollStatus, r.Attestation, r.Owner, r.DeviceID})
	}
	console.Table(w, []string{"Asset Tag", "OS", "Source", "Enroll Status", "Attestation", "Owner", "Device ID"}, cells)
	return nil
}

func (t commands) devicesTokens() *cobra.Command {
	var format console.Format
	var revoke deviceFlags
	c := tool.Command("tokens", "List enrollment tokens, without their secrets", "tctl devices tokens", 0, func(ctx context.Context, _ []string) error {
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		list, err := c.EnrollTokens(ctx)
		if err != nil {
			return err
		}
		return format.Print(t.Out, list, func(w io.Writer) error { return printEnrollTokens(w, list) })
	})
	rm := tool.Command("rm --asset-tag=TAG", "Take a device's enrollment token back", "tctl devices tokens rm --asset-tag=C00AA0AAAA0A", 0, func(ctx context.Context, _ []string) error {
		r, err := t.ref(revoke)
		if err != nil {
			return err
		}
		c, err := t.Cluster(ctx)
		if err != nil {
			return err
		}
		if err := c.RevokeEnrollToken(ctx, r); err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "Enrollment token of device %q removed\n", tool.Or(r.Tag, r.ID))
		return nil
	})
	revoke.add(rm)
	tool.FormatFlag(c, &format)
	c.AddCommand(rm)
	return c
}

func printEnrollTokens(w io.Writer, list []client.EnrollTokenInfo) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "No enrollment tokens found")
		return err
	}
	var cells [][]string
	for _, e := range list {
		cells = append(cells, []string{e.AssetTag, device.OS(e.OSType).Title(), e.Owner, e.CreatedBy, tool.Until(e.Expires), e.DeviceID})
	}
	console.Table(w, []string{"Asset Tag", "OS", "Owner", "Created By", "Expires", "Device ID"}, cells)
	return nil
}
