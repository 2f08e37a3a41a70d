package machines

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// maxImportFile bounds a file of devices, in bytes.
const maxImportFile = 64 << 20

// line is one device of a file, or why it is none.
type line struct {
	number int
	device device.Device
	wrong  string
}

// columns are what a file may say of a device.
var columns = []string{"os_type", "asset_tag", "owner", "ek_hash"}

// setColumn takes one value.
func setColumn(d *device.Device, column, value string) {
	value = strings.TrimSpace(value)
	switch column {
	case "os_type":
		d.OSType = device.OS(value)
		if os, ok := device.ParseOS(value); ok {
			d.OSType = os
		}
	case "asset_tag":
		d.AssetTag = value
	case "owner":
		d.Owner = value
	case "ek_hash":
		d.EKHash = strings.ToLower(value)
	}
}

func badFile(number int, format string, args ...any) error {
	return fault.New(fault.Invalid, "line %d: %s", number, fmt.Sprintf(format, args...)).WithReason("bad_import")
}

// parseCSV reads devices from CSV (RFC 4180) whose first line names the columns. What is wrong with one line is told
// with that line.
func parseCSV(raw []byte) ([]line, error) {
	r := csv.NewReader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff"))))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	first, err := r.Read()
	if errors.Is(err, io.EOF) {
		return nil, badFile(1, "the file is empty, want a line with %s", strings.Join(columns, ","))
	}
	if err != nil {
		return nil, fault.New(fault.Invalid, "%v", err).WithReason("bad_import")
	}
	var head []string
	for _, h := range first {
		h = strings.ToLower(strings.TrimSpace(h))
		if !slices.Contains(columns, h) || slices.Contains(head, h) {
			return nil, badFile(1, "unknown column %q, or twice; want %s", h, strings.Join(columns, ","))
		}
		head = append(head, h)
	}
	var out []line
	for {
		record, err := r.Read()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "%v", err).WithReason("bad_import")
		}
		number, _ := r.FieldPos(0)
		l := line{number: number}
		if len(record) != len(head) {
			l.wrong = fmt.Sprintf("%d values, want %d", len(record), len(head))
		} else {
			for i, v := range record {
				setColumn(&l.device, head[i], v)
			}
		}
		out = append(out, l)
	}
}

// parseYAML reads a list of devices.
func parseYAML(raw []byte) ([]line, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(raw, &root); err != nil {
		return nil, fault.New(fault.Invalid, "%s", strings.TrimPrefix(err.Error(), "yaml: ")).WithReason("bad_import")
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.SequenceNode {
		return nil, badFile(1, "want a list of devices: - {os_type: linux, asset_tag: TAG}")
	}
	var out []line
	for _, n := range root.Content[0].Content {
		l := line{number: n.Line}
		if n.Kind != yaml.MappingNode {
			l.wrong = "no device: want {os_type: linux, asset_tag: TAG}"
		}
		seen := map[string]bool{}
		for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
			k, v := n.Content[i], n.Content[i+1]
			switch {
			case !slices.Contains(columns, k.Value) || seen[k.Value]:
				l.wrong = fmt.Sprintf("unknown field %q, or twice; fields are %s", k.Value, strings.Join(columns, ", "))
			case v.Kind != yaml.ScalarNode:
				l.wrong = fmt.Sprintf("%s is no text", k.Value)
			default:
				setColumn(&l.device, k.Value, v.Value)
			}
			seen[k.Value] = true
		}
		out = append(out, l)
	}
	return out, nil
}
