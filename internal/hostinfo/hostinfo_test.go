package hostinfo

import (
	"encoding/binary"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/device"
)

// TestTag takes the first serial that is one.
func TestTag(t *testing.T) {
	rows := []struct{ name, chassis, system, board, want string }{
		{"chassis first", " c02abc ", "S1", "B1", "C02ABC"},
		{"space in the chassis tag", "No Asset Tag", "S1", "B1", "S1"},
		{"placeholder in other case", "none", "to.be-filled.by.o.e.m.", "b1", "B1"},
		{"zeros", "0", "00000000", "B1", "B1"},
		{"Azure's constant", "7783-7084-3265-9085-8269-3286-77", "0000-0011-2233", "", "0000-0011-2233"},
		{"Oracle's constant", "OracleCloud.com", "", "", ""},
		{"a comma is no tag", "a,b", "", "", ""},
		{"not printable", "a\x1bb", "", "", ""},
		{"passes for an EK's", "ek-0011223344556677", "", "", ""},
		{"nothing", "", "", "", ""},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			d := device.Data{OSType: device.Linux, ReportedAssetTag: r.chassis, SystemSerialNumber: r.system, BaseBoardSerial: r.board}
			if got := Tag(d); got != r.want {
				t.Errorf("got %q, want %q", got, r.want)
			}
		})
	}
	mac := device.Data{OSType: device.MacOS, SerialNumber: "C02XYZ", ReportedAssetTag: "other"}
	if got := Tag(mac); got != "C02XYZ" {
		t.Errorf("macOS: %q", got)
	}
}

func TestPlaceholder(t *testing.T) {
	for _, s := range []string{"0", "00000000", "XXXXX", "-", "N/A", "none", "None1", "SerNum01", "OEM_Define2", "AssetTagNum0",
		"0123456789", "9876543210", "MB-1234567890", "ATN12345678901234567", "To.Be.Filled.By.O.E.M.", "FilledByOEM",
		"HUAWEICLOUD", "7783-7084-3265-9085-8269-3286-77", "ek-1", "Default-String"} {
		if !placeholder(s) {
			t.Errorf("%q passes for a serial", s)
		}
	}
	for _, s := range []string{"C02XK1ABCD", "PF-1A2B3C", "NOTE-17", "5CG1234XYZ", "LAPTOP-12345678", "1234567", "SERVER01", "NONE17X",
		"VMware-564d", "GoogleCloud-0123456789ABCDEF"} {
		if placeholder(s) {
			t.Errorf("%q does not pass for a serial", s)
		}
	}
}

// TestCollect reads a directory of our own in the place of sysfs.
func TestCollect(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TSH_DMI_DIR", dir)
	for name, text := range map[string]string{"chassis_asset_tag": "None\n", "product_serial": "pf1abc\n", "product_name": "X\x1b[31m1\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d, tag := Collect("1.0", time.Unix(1, 0))
	if want, _ := device.ParseOS(build.Default.GOOS); d.OSType != want || d.ClientVersion != "1.0" || d.OSVersion+d.OSBuild == "" {
		t.Errorf("%+v", d)
	}
	if build.Default.GOOS == "linux" && (tag != "PF1ABC" || d.ModelIdentifier != "" || d.SystemSerialNumber != "pf1abc") {
		t.Errorf("tag %q, %+v", tag, d)
	}
}

func TestOSRelease(t *testing.T) {
	id, v := osRelease("NAME=x\nID=debian\nVERSION_ID=\"12\"\n# c\nBAD\n")
	if id != "debian" || v != "12" {
		t.Error(id, v)
	}
	if id, v = osRelease("ID='arch'\nBUILD_ID=rolling"); id != "arch" || v != "rolling" {
		t.Error(id, v)
	}
}

// rsmb builds a firmware table of structures: type, formatted bytes behind the header, strings.
func rsmb(structures ...[]byte) []byte {
	var table []byte
	for _, s := range structures {
		table = append(table, s...)
	}
	head := make([]byte, 8)
	binary.LittleEndian.PutUint32(head[4:], uint32(len(table)))
	return append(head, table...)
}

func structure(kind byte, formatted []byte, words ...string) []byte {
	b := append([]byte{kind, byte(4 + len(formatted)), 0, 0}, formatted...)
	for _, w := range words {
		b = append(append(b, w...), 0)
	}
	if len(words) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

var sample = rsmb(
	structure(0, nil),
	structure(1, []byte{1, 2, 0, 3}, "Maker", "Model 7", "SYS42"),
	structure(2, []byte{1, 0, 0, 2}, "Maker", "BOARD9"),
	structure(3, []byte{1, 3, 0, 0, 2}, "Maker", "TAG-1"),
	structure(127, nil),
	structure(1, []byte{0, 0, 0, 1}, "behind the end"),
)

func TestSMBIOS(t *testing.T) {
	var d device.Data
	smbios(sample, &d)
	want := device.Data{ModelIdentifier: "Model 7", SystemSerialNumber: "SYS42", BaseBoardSerial: "BOARD9", ReportedAssetTag: "TAG-1"}
	if d != want {
		t.Errorf("got %+v", d)
	}
}

// TestSMBIOSDamaged reads what is whole of a table, and nothing behind what is not.
func TestSMBIOSDamaged(t *testing.T) {
	system := structure(1, []byte{1, 2, 0, 3}, "Maker", "Model 7", "SYS42")
	lying := structure(1, []byte{1, 2, 0, 3}, "Maker", "Model 7", "SYS42")
	lying[1] = 255 // it says that it is longer than the table
	short := rsmb(system, structure(3, []byte{1, 3, 0, 0, 2}, "Maker", "TAG-1"))
	binary.LittleEndian.PutUint32(short[4:], uint32(len(system)))
	for name, r := range map[string]struct {
		raw  []byte
		want device.Data
	}{
		"nothing":                    {nil, device.Data{}},
		"a header alone":             {rsmb(), device.Data{}},
		"half a header":              {rsmb()[:5], device.Data{}},
		"a length of 3":              {rsmb([]byte{1, 3, 0, 0, 0, 0}), device.Data{}},
		"a length behind the end":    {rsmb(lying), device.Data{}},
		"strings that never end":     {rsmb(system[:len(system)-1]), device.Data{}},
		"a string that is not there": {rsmb(structure(1, []byte{1, 9, 0, 8}, "Maker")), device.Data{}},
		"no strings":                 {rsmb(structure(1, []byte{1, 2, 0, 3})), device.Data{}},
		"an old, short structure":    {rsmb(structure(3, []byte{1}, "Maker"), system), device.Data{ModelIdentifier: "Model 7", SystemSerialNumber: "SYS42"}},
		"a table shorter than told":  {short, device.Data{ModelIdentifier: "Model 7", SystemSerialNumber: "SYS42"}},
		"two of a kind, the first":   {rsmb(system, structure(1, []byte{1, 1, 0, 2}, "Other", "SYS43")), device.Data{ModelIdentifier: "Model 7", SystemSerialNumber: "SYS42"}},
		"two of a kind, one empty": {rsmb(structure(2, []byte{1, 0, 0, 0}, "Maker"), structure(2, []byte{1, 0, 0, 2}, "Maker", "BOARD9")),
			device.Data{BaseBoardSerial: "BOARD9"}},
	} {
		var d device.Data
		smbios(r.raw, &d)
		if d != r.want {
			t.Errorf("%s: %+v", name, d)
		}
	}
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(sample)
	f.Add(sample[:40])
	f.Add(rsmb(structure(3, []byte{1}, "Maker"), structure(1, []byte{1, 9, 0, 8}, "Maker")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var d device.Data
		smbios(b, &d)
		for _, s := range []string{d.ModelIdentifier, d.SystemSerialNumber, d.BaseBoardSerial, d.ReportedAssetTag} {
			if len(s) > len(b) {
				t.Error("text from nowhere")
			}
		}
	})
}

func FuzzOSRelease(f *testing.F) {
	f.Add("ID=debian\nVERSION_ID=\"12\"")
	f.Fuzz(func(t *testing.T, s string) { osRelease(s) })
}

// TestEveryPlatform reads the sources as each GOOS does and finds each platform function once.
func TestEveryPlatform(t *testing.T) {
	for _, goos := range []string{"linux", "darwin", "windows", "freebsd"} {
		ctx := build.Default
		ctx.GOOS, ctx.CgoEnabled = goos, false
		pkg, err := ctx.ImportDir(".", 0)
		if err != nil {
			t.Fatal(err)
		}
		var found []string
		for _, name := range pkg.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					found = append(found, fn.Name.Name)
				}
			}
		}
		for _, want := range []string{"readOS", "readSerials"} {
			if n := len(slices.DeleteFunc(slices.Clone(found), func(s string) bool { return s != want })); n != 1 {
				t.Errorf("%s has %d of %s, want 1", goos, n, want)
			}
		}
	}
}
