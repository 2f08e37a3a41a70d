package machines

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
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
	// Noticed are the findings that nobody has accepted, by their words.
	Noticed []string `json:"noticed,omitempty"`
}

func rowOf(d *device.Device) deviceRow {
	r := deviceRow{AssetTag: d.AssetTag, OS: string(d.OSType), EnrollStatus: string(d.EnrollStatus), Owner: d.Owner, DeviceID: d.ID}
	if r.EnrollStatus == "" {
		r.EnrollStatus = string(device.NotEnrolled)
	}
	for _, f := range d.CloneHealth().Findings {
		r.Noticed = append(r.Noticed, f.Reason)
	}
	if d.Source != nil {
		r.Source = d.Source.Name
	}
	if n := len(d.Credentials); n > 0 {
		r.Attestation = string(d.Credentials[n-1].Attestation)
	}
	return r
}

type listFlags struct {
	fleet.Listing
	os     string
	format console.Format
}

func (t commands) devicesList() *cobra.Command {
	var f listFlags
	c := tool.Command("ls", "List devices", "tctl devices ls\n  tctl devices ls --os=linux --status=not_enrolled --limit=50", 0,
		func(ctx context.Context, _ []string) error { return t.listDevices(ctx, f) })
	fl := c.Flags()
	fl.StringVar(&f.os, "os", "", "those of a system: linux, macos or windows")
	fl.StringVar(&f.Status, "status", "", "enrolled or not_enrolled")
	fl.StringVar(&f.Owner, "owner", "", "those that a user owns or has enrolled")
	fl.StringVar(&f.Level, "level", "", "those of a level, such as tpm_ekcert_trusted")
	fl.StringVar(&f.Finding, "noticed", "", "those of which something was noticed: a word such as boot_changed, or any")
	fl.StringVar(&f.Query, "query", "", `those for which this holds, such as: resource.asset_tag.startsWith("PF")`)
	fl.StringVar(&f.After, "after", "", "go on behind the device of this id")
	fl.IntVar(&f.Limit, "limit", 0, "so many at most; all unless told")
	tool.FormatFlag(c, &f.format)
	return c
}

func (f *listFlags) check() error {
	if f.os != "" {
		os, known := device.ParseOS(f.os)
		if f.OS = os; !known {
			return console.Usagef("--os: %q is none of linux, macos, windows", f.os)
		}
	}
	if s := device.EnrollStatus(f.Status); s != "" && s != device.Enrolled && s != device.NotEnrolled {
		return console.Usagef("--status: %q is neither enrolled nor not_enrolled", f.Status)
	}
	if f.Level != "" && !device.Level(f.Level).Known() {
		return console.Usagef("--level: %q is none of %v", f.Level, device.Levels())
	}
	if f.Limit < 0 {
		return console.Usagef("--limit: %d is no number of devices", f.Limit)
	}
	return nil
}

// again is the command line that goes on where this one stopped.
func (f *listFlags) again() string {
	line := fmt.Sprintf("tctl devices ls --limit=%d", f.Limit)
	for _, x := range [][2]string{{"os", f.os}, {"status", f.Status}, {"owner", f.Owner}, {"level", f.Level}, {"noticed", f.Finding}, {"query", f.Query}} {
		if x[1] != "" {
			line += fmt.Sprintf(" --%s=%s", x[0], quoted(x[1]))
		}
	}
	return line
}

// quoted is a value as a shell takes it.
func quoted(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.@:/", r)
	}) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// listDevices gathers pages until it has what was asked for.
func (t commands) listDevices(ctx context.Context, f listFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	rows, l := []deviceRow{}, f.Listing
	for {
		if f.Limit > 0 {
			l.Limit = f.Limit - len(rows)
		}
		list, next, err := fleet.Of(c).List(ctx, l)
		if err != nil {
			return err
		}
		for _, d := range list {
			rows = append(rows, rowOf(d))
		}
		if l.After = next; next == "" || f.Limit > 0 && len(rows) >= f.Limit {
			break
		}
	}
	if err := f.format.Print(t.Out, rows, func(w io.Writer) error { return printDevices(w, rows) }); err != nil {
		return err
	}
	if l.After != "" {
		fmt.Fprintf(t.Err, "There are more: %s --after=%s\n", f.again(), l.After)
	}
	return nil
}

func printDevices(w io.Writer, rows []deviceRow) error {
	if len(rows) == 0 {
		_, err := fmt.Fprintln(w, "No devices found")
		return err
	}
	header := []string{"Asset Tag", "OS", "Source", "Enroll Status", "Attestation", "Owner", "Device ID"}
	noticed := slices.ContainsFunc(rows, func(r deviceRow) bool { return len(r.Noticed) > 0 })
	if noticed {
		header = append(header, "Noticed")
	}
	var cells [][]string
	for _, r := range rows {
		cell := []string{r.AssetTag, device.OS(r.OS).Title(), r.Source, r.EnrollStatus, r.Attestation, r.Owner, r.DeviceID}
		if noticed {
			cell = append(cell, strings.Join(r.Noticed, ", "))
		}
		cells = append(cells, cell)
	}
	console.Table(w, header, cells)
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
		list, err := fleet.Of(c).EnrollTokens(ctx)
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
		if err := fleet.Of(c).RevokeEnrollToken(ctx, r); err != nil {
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

func printEnrollTokens(w io.Writer, list []fleet.TokenInfo) error {
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
