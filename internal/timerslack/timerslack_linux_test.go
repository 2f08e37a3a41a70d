package timerslack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// asked makes the test's program be another: one that relaxes, says its slacks, and starts one that says its own.
const asked = "TIMERSLACK_TEST"

func TestMain(m *testing.M) {
	switch os.Getenv(asked) {
	case "relax":
		if gone := os.Getenv("TIMERSLACK_REMOVE"); gone != "" {
			if err := os.Remove(gone); err != nil {
				panic(err)
			}
			if err := os.WriteFile(gone, []byte("#!/bin/false\n"), 0o700); err != nil {
				panic(err)
			}
			os.Unsetenv("TIMERSLACK_REMOVE")
		}
		if err := Relax(context.Background()); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if err := Relax(context.Background()); err != nil { // it is run anew once
			fmt.Println(err)
		}
		comm, _ := os.ReadFile("/proc/self/comm")
		fmt.Print("comm ", string(comm))
		fmt.Println("args", os.Args[1:], "threads", threads())
		if err := With(Default, say); err != nil {
			fmt.Println(err)
		}
		now, err := get()
		fmt.Println("after", now, err)
	case "over":
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		err := Relax(ctx)
		now, failed := get()
		fmt.Println(err, now, failed)
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

// TestRelax: a process runs anew with the slack on each thread, sysmon's too, and what it starts has the kernel's own. It keeps its
// name, and is itself also where another file has taken its place meanwhile.
func TestRelax(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "relaxed")
	if err := os.WriteFile(copied, raw, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ remove, comm string }{{"", "relaxed"}, {copied, "exe"}} {
		cmd := exec.Command(copied, "a", "b c")
		cmd.Env = append(os.Environ(), asked+"=relax", "TIMERSLACK_REMOVE="+c.remove)
		out, err := cmd.CombinedOutput()
		want := "comm " + c.comm + "\nargs [a b c] threads 2ms\nchild 50µs\nafter 2ms <nil>\n"
		if err != nil || string(out) != want {
			t.Errorf("%v: %q, want %q", err, out, want)
		}
	}
}

// TestRelaxOver: a program that was asked to end is not run anew, for the new one would not know.
func TestRelaxOver(t *testing.T) {
	c := exec.Command("/proc/self/exe")
	c.Env = append(os.Environ(), asked+"=over")
	if out, err := c.CombinedOutput(); err != nil || string(out) != "context canceled 50µs <nil>\n" {
		t.Errorf("%v: %q", err, out)
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
