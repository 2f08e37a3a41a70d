// Package peer asks for the real parts that tests talk to: where one is absent its test is left out, and fails where
// REQUIRE_PEERS is set. No shipped binary links it.
package peer

import (
	"os"
	"os/exec"
)

// TB is what is used of testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
}

// Run is what is used of testing.TB by what runs for a test, or for a bench.
type Run interface {
	TB
	Fatalf(format string, args ...any)
	Cleanup(f func())
}

// Absent ends a test for want of something.
func Absent(t TB, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_PEERS") != "" {
		t.Fatal(why + ", and REQUIRE_PEERS is set")
	}
	t.Skip(why + ": scripts/peers.sh installs what tests talk to")
}

// Need asks for every one of some programs.
func Need(t TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Absent(t, name+" is not installed")
		}
	}
}

// Any is the path of the first program that is there, by name or path.
func Any(t TB, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Absent(t, names[0]+" is not installed")
	return ""
}

// Root asks for the right to become another login.
func Root(t TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Absent(t, "this is root's to do")
	}
}
