package machines

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client/fleet"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

type importFlags struct {
	dryRun bool
	format console.Format
}

func (t commands) devicesImport() *cobra.Command {
	var f importFlags
	c := tool.Command("import FILE.csv|FILE.yaml", "Put many devices in the inventory, with a report per line",
		"tctl devices import laptops.csv\n  tctl devices import --dry-run laptops.yaml", 1,
		func(ctx context.Context, args []string) error { return t.importFile(ctx, args[0], f) })
	c.Long = "Put many devices in the inventory. A CSV file names its columns in the first line, a YAML file is a list:\n" +
		"os_type and asset_tag, and where wanted owner and ek_hash. Each line is created, exists or is refused by itself."
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "write nothing and say what would be")
	tool.FormatFlag(c, &f.format)
	return c
}

// importRow is what became of one line.
type importRow struct {
	Line     int    `json:"line"`
	AssetTag string `json:"asset_tag,omitempty"`
	OS       string `json:"os_type,omitempty"`
	fleet.Imported
}

func (t commands) importFile(ctx context.Context, path string, f importFlags) error {
	lines, origin, err := readDevices(path)
	if err != nil {
		return err
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	rows, err := t.importLines(ctx, fleet.Of(c), lines, origin, f.dryRun)
	if perr := f.format.Print(t.Out, rows, func(w io.Writer) error { return printImport(w, rows, f.dryRun) }); perr != nil {
		return errors.Join(err, perr)
	}
	if err != nil {
		return err
	}
	refused := 0
	for _, r := range rows {
		if r.Outcome == "refused" {
			refused++
		}
	}
	if refused > 0 {
		return fault.New(fault.Invalid, "%d of %d lines were refused", refused, len(rows)).WithReason("import_refused").
			WithFix("mend them and import the file again: what exists is left alone")
	}
	return nil
}

func readDevices(path string) (lines []line, origin string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", fault.New(fault.Invalid, "%v", err).WithReason("bad_import")
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxImportFile+1))
	if err != nil {
		return nil, "", err
	}
	if len(raw) > maxImportFile {
		return nil, "", fault.New(fault.Invalid, "%s has more than %d bytes", path, maxImportFile).WithReason("bad_import")
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case ".csv":
		lines, err = parseCSV(raw)
		return lines, "csv", err
	case ".yaml", ".yml":
		lines, err = parseYAML(raw)
		return lines, "yaml", err
	}
	return nil, "", console.Usagef("%s: want a file that ends in .csv or .yaml", path)
}

// importLines sends what is in order; what became of each line is at its place. An error leaves the lines behind it
// without an outcome, and they are left out.
func (t commands) importLines(ctx context.Context, f *fleet.Fleet, lines []line, origin string, dryRun bool) ([]importRow, error) {
	rows := []importRow{}
	for len(lines) > 0 {
		some := lines[:min(len(lines), fleet.MaxImport)]
		lines = lines[len(some):]
		var send []device.Device
		for _, l := range some {
			if l.wrong == "" {
				send = append(send, l.device)
			}
		}
		var done []fleet.Imported
		if len(send) > 0 {
			var err error
			if done, err = f.Import(ctx, send, origin, dryRun); err != nil {
				return rows, err
			}
		}
		for _, l := range some {
			r := importRow{Line: l.number, AssetTag: device.NormalTag(l.device.AssetTag), OS: string(l.device.OSType)}
			if l.wrong != "" {
				r.Imported = fleet.Imported{Outcome: "refused", Reason: l.wrong}
			} else if len(done) > 0 {
				r.Imported, done = done[0], done[1:]
			}
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func printImport(w io.Writer, rows []importRow, dryRun bool) error {
	count := map[string]int{}
	for _, r := range rows {
		count[r.Outcome]++
		text := fmt.Sprintf("line %d: %s %s/%s", r.Line, r.Outcome, tool.Or(r.AssetTag, "-"), device.OS(r.OS).Title())
		if r.Reason != "" {
			text += ": " + r.Reason
		}
		if _, err := fmt.Fprintln(w, console.Safe(text)); err != nil {
			return err
		}
	}
	word := "created"
	if dryRun {
		word = "to be created"
	}
	_, err := fmt.Fprintf(w, "%d %s, %d there already, %d refused\n", count["created"], word, count["exists"], count["refused"])
	return err
}
