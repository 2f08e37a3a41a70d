package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// namespaces counts network namespaces, for their names.
var namespaces atomic.Int64

// cmdNetwork makes two network namespaces with a cable between them, 10.99.0.1 in the one that the variable A names and
// 10.99.0.2 in that of B: network A B. A second pair of a script would have the same addresses.
func cmdNetwork(ts *testscript.TestScript, _ bool, args []string) {
	var names []string
	for i, v := range args[:2] {
		name := fmt.Sprintf("sp%d-%d", os.Getpid(), namespaces.Add(1))
		names = append(names, name)
		ip(ts, "netns", "add", name)
		ts.Defer(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
		ip(ts, "-n", name, "link", "set", "lo", "up")
		ts.Setenv(v, name)
		if i == 1 {
			ip(ts, "link", "add", "c0", "netns", names[0], "type", "veth", "peer", "name", "c0", "netns", names[1])
		}
	}
	for i, name := range names {
		ip(ts, "-n", name, "addr", "add", fmt.Sprintf("10.99.0.%d/24", i+1), "dev", "c0")
		ip(ts, "-n", name, "link", "set", "c0", "up")
	}
}

// cmdCable pulls the cable of a namespace or plugs it in: cable NAME down|up.
func cmdCable(ts *testscript.TestScript, _ bool, args []string) {
	ip(ts, "-n", ts.Getenv(args[0]), "link", "set", "c0", args[1])
}

func ip(ts *testscript.TestScript, args ...string) {
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		ts.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// cmdSignal sends a signal to a server: signal NAME STOP|CONT.
func cmdSignal(ts *testscript.TestScript, _ bool, args []string) {
	serversMu.Lock()
	r := servers[ts][args[0]]
	serversMu.Unlock()
	if r == nil {
		ts.Fatalf("no server %s", args[0])
	}
	sig, ok := map[string]syscall.Signal{"STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT, "KILL": syscall.SIGKILL}[args[1]]
	if !ok {
		ts.Fatalf("no signal %s", args[1])
	}
	ts.Check(r.cmd.Process.Signal(sig))
}

// cmdDisk gives a directory a disk of its own that is soon full, fills it, and frees it: disk DIR SIZE|fill|free.
func cmdDisk(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ballast := filepath.Join(dir, "ballast")
	switch args[1] {
	case "fill":
		f, err := os.Create(ballast)
		ts.Check(err)
		defer f.Close()
		for block := 1 << 16; block > 0; block /= 2 { // to the last byte
			for err = nil; err == nil; {
				_, err = f.Write(make([]byte, block))
			}
		}
	case "free":
		ts.Check(os.Remove(ballast))
	default:
		ts.Check(os.MkdirAll(dir, 0o700))
		if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size="+args[1], "none", dir).CombinedOutput(); err != nil {
			ts.Fatalf("mount: %v: %s", err, out)
		}
		ts.Defer(func() { _ = exec.Command("umount", "-l", dir).Run() })
	}
}

// cmdWithin is eventually with a limit of its own, in seconds: within SECONDS [!] cmd...
func cmdWithin(ts *testscript.TestScript, _ bool, args []string) {
	seconds, err := strconv.Atoi(args[0])
	ts.Check(err)
	eventually(ts, time.Duration(seconds)*time.Second, args[1:])
}

// programPath is where a program of the scripts lies.
func programPath(ts *testscript.TestScript, name string) string {
	for d := range strings.SplitSeq(ts.Getenv("PATH"), ":") {
		path := filepath.Join(d, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	ts.Fatalf("no program %s", name)
	return ""
}
