package machines

import (
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

func TestParseCSV(t *testing.T) {
	lines, err := parseCSV([]byte("\ufeffAsset_Tag,os_type,owner\r\n\"A, B\",darwin,alice\r\n\r\nX,linux\nY,Linux,\n"))
	if err != nil || len(lines) != 3 {
		t.Fatalf("%+v %v", lines, err)
	}
	if l := lines[0]; l.number != 2 || l.device.AssetTag != "A, B" || l.device.OSType != device.MacOS || l.device.Owner != "alice" || l.wrong != "" {
		t.Errorf("%+v", l)
	}
	if lines[1].number != 4 || lines[1].wrong == "" || lines[2].device.OSType != device.Linux {
		t.Errorf("%+v", lines)
	}
	for _, bad := range []string{"", "tag,os_type\n", "os_type,os_type\n", "os_type\n\"x\n"} {
		if _, err := parseCSV([]byte(bad)); !fault.Because(err, "bad_import") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestParseYAML(t *testing.T) {
	lines, err := parseYAML([]byte("# devices\n- {os_type: linux, asset_tag: X}\n- os_type: macos\n  serial: Y\n- text\n- {os_type: [linux]}\n- {asset_tag: A, asset_tag: B}\n"))
	if err != nil || len(lines) != 5 {
		t.Fatalf("%+v %v", lines, err)
	}
	if lines[0].number != 2 || lines[0].wrong != "" || lines[0].device.AssetTag != "X" {
		t.Errorf("%+v", lines[0])
	}
	for _, l := range lines[1:] {
		if l.wrong == "" {
			t.Errorf("line %d was taken: %+v", l.number, l.device)
		}
	}
	for _, bad := range []string{"", "a: b", "- [", "x"} {
		if _, err := parseYAML([]byte(bad)); !fault.Because(err, "bad_import") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// FuzzImport reads files of devices: whatever they hold, each line is a device or says why not.
func FuzzImport(f *testing.F) {
	f.Add([]byte("os_type,asset_tag\nlinux,X\n"))
	f.Add([]byte("- {os_type: linux, asset_tag: X}\n"))
	f.Add([]byte("- &a [*a]\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		for _, parse := range []func([]byte) ([]line, error){parseCSV, parseYAML} {
			lines, err := parse(raw)
			if err != nil && fault.Of(err).Reason != "bad_import" {
				t.Error(err)
			}
			for _, l := range lines {
				if l.number < 1 {
					t.Errorf("%+v", l)
				}
			}
		}
	})
}
