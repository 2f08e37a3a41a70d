package target

import (
	"strings"
	"testing"
)

// TestSNIName are the names of docs/protocol/port.md, and what must not be taken for another's.
func TestSNIName(t *testing.T) {
	for name, want := range map[string]string{"orders": "orders", "a-1": "a-1", "Old_DB": "x-1c292f534efa8f5d"} {
		if got := SNIName(name); got != want {
			t.Errorf("%q: %s", name, got)
		}
	}
	seen := map[string]string{}
	for _, name := range []string{"", "a", "A", "a.b", "x-1c292f534efa8f5d", "-a", "a-", "a_b", strings.Repeat("a", 63), strings.Repeat("a", 64), "ä"} {
		got := SNIName(name)
		if other, has := seen[got]; has {
			t.Errorf("%q and %q are both %s", name, other, got)
		}
		seen[got] = name
		if len(got) > 63 || strings.ContainsAny(got, "._") || strings.ToLower(got) != got {
			t.Errorf("%q is no label: %s", name, got)
		}
	}
}

func TestDatabaseCheck(t *testing.T) {
	good := DatabaseServer{Name: "orders", Protocol: PostgreSQL, URI: "db:5432"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*DatabaseServer){
		"no name":             func(d *DatabaseServer) { d.Name = "" },
		"a slash in the name": func(d *DatabaseServer) { d.Name = "a/b" },
		"look-alike letters":  func(d *DatabaseServer) { d.Name = "оrders" },
		"another protocol":    func(d *DatabaseServer) { d.Protocol = "oracle" },
		"no protocol":         func(d *DatabaseServer) { d.Protocol = "" },
		"no port":             func(d *DatabaseServer) { d.URI = "db" },
		"no host":             func(d *DatabaseServer) { d.URI = ":5432" },
		"two authorities":     func(d *DatabaseServer) { d.TLS = DatabaseTLS{CA: "x", CAFile: "y"} },
		"a bad label":         func(d *DatabaseServer) { d.Labels = map[string]string{"a=b": "c"} },
	} {
		d := good
		if edit(&d); d.Check() == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
