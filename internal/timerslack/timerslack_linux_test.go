package timerslack

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// asked makes the test's program be another: one that relaxes, says its slacks, and starts one that says its own.
const asked = "TIMERSLACK_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(asked) {
	case "relax":
		if err := Relax(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if err := Relax(); err != nil { // it is run anew once
			fmt.Println(err)
		}
		fmt.Println("args", os.Args[1:], "threads", threads())
		if err := With(Default, say); err != nil {
			fmt.Println(err)
		}
		now, err := get()
		fmt.Println("after", now, err)
	case "say":
		fmt.Println("child", threads())
	default:
		os.Exit(m.Run())
	}
}

func say() error {
	c := exec.Command("/proc/self/exe")
	c.Env, c.Stdout = []string{asked + "=say"}, os.Stdout
	return c.Run()
}

// threads are the slacks that there are in this process.
func threads() string {
	all, err := os.ReadDir("/proc/self/task")
	seen := map[string]bool{}
	for _, t := range all {
		raw, failed := os.ReadFile("/proc/" + t.Name() + "/timerslack_ns")
		if failed != nil {
			err = failed
		}
		seen[strings.TrimSpace(string(raw))] = true
	}
	if len(seen) != 1 || len(all) < 2 || err != nil {
		return fmt.Sprint("of ", len(all), ": ", seen, err)
	}
	for s := range seen {
		n, _ := time.ParseDuration(s + "ns")
		return n.String()
	}
	return ""
}

// TestRelax: a process runs anew with the slack on each thread, sysmon's too, and what it starts has the kernel's own.
func TestRelax(t *testing.T) {
	c := exec.Command("/proc/self/exe", "a", "b c")
	c.Env = append(os.Environ(), asked+"=relax")
	out, err := c.CombinedOutput()
	want := "args [a b c] threads 2ms\nchild 50µs\nafter 2ms <nil>\n"
	if err != nil || string(out) != want {
		t.Errorf("%v: %q, want %q", err, out, want)
	}
}

// TestWith: the slack is what it was after, and the function's error goes through.
func TestWith(t *testing.T) {
	before, err := get()
	if err != nil {
		t.Fatal(err)
	}
	failed := With(3*time.Millisecond, func() error {
		now, err := get()
		if now != 3*time.Millisecond {
			t.Errorf("%v, %v", now, err)
		}
		return os.ErrClosed
	})
	if after, err := get(); failed != os.ErrClosed || after != before || err != nil {
		t.Errorf("%v, %v, %v", failed, after, err)
	}
}
