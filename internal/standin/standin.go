//go:build linux

// Package standin is a library that stands in for macOS's frameworks in tests on Linux: the C file beside it, built with
// the machine's compiler and OpenSSL. No shipped binary links it.
package standin

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/sallyport/sallyport/internal/framework"
	"github.com/sallyport/sallyport/internal/peer"
)

//go:embed library/frameworks.c
var source []byte

// TB is what is used of testing.TB.
type TB interface {
	Helper()
	Fatal(args ...any)
	Skip(args ...any)
	Error(args ...any)
	Cleanup(func())
}

// Library is the loaded library. There is one in a process: tests that use it are not parallel.
type Library struct {
	fail    func(call, domain string, code int)
	entitle func(int32)
	machine func(string)
	serial  func(string)
	live    func() int
	items   func() int32
	path    string
}

// build compiles the library once.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "standin") // as long as the process: a library is never unloaded
	if err != nil {
		return "", err
	}
	c := filepath.Join(dir, "standin.c")
	if err := os.WriteFile(c, source, 0o600); err != nil {
		return "", err
	}
	out := filepath.Join(dir, "standin.so")
	cmd := exec.Command("gcc", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-fPIC", "-shared", "-fvisibility=hidden", "-o", out, c, "-lcrypto", "-lpthread")
	if text, err := cmd.CombinedOutput(); err != nil {
		return string(text), err
	}
	return out, nil
})

// Start gives the library as it is at first, and finds at the test's end that every object was released.
func Start(t TB) *Library {
	t.Helper()
	peer.Need(t, "gcc")
	if _, err := os.Stat("/usr/include/openssl/evp.h"); err != nil {
		peer.Absent(t, "libssl-dev is not installed")
	}
	path, err := build()
	if err != nil {
		t.Fatal(err, path)
	}
	l := &Library{path: path}
	lib, err := framework.Open(path)
	if err == nil {
		err = lib.Bind(map[string]any{"standin_fail": &l.fail, "standin_entitle": &l.entitle, "standin_machine": &l.machine,
			"standin_serial": &l.serial, "standin_live": &l.live, "standin_keychain": &l.items})
	}
	if err != nil {
		t.Fatal(err)
	}
	l.reset()
	before := l.Live()
	t.Cleanup(func() {
		l.reset()
		if n := l.Live(); n != before {
			t.Error("objects that nobody released:", n-before)
		}
	})
	return l
}

func (l *Library) reset() {
	l.Fail("", "", 0)
	l.Entitle(false)
	l.Machine("a machine")
	l.Serial("C02STANDIN1")
}

// Paths are the library in the place of each framework.
func (l *Library) Paths() framework.Paths {
	return framework.Paths{CoreFoundation: l.path, Security: l.path, IOKit: l.path}
}

// Fail has a call fail with an error of a domain and code, or with none where the domain is empty. An empty call ends it.
func (l *Library) Fail(call, domain string, code int) { l.fail(call, domain, code) }

// Entitle says whether the program has a signature that lets it use the keychain, which is empty when it has not.
func (l *Library) Entitle(yes bool) {
	if yes {
		l.entitle(1)
	} else {
		l.entitle(0)
	}
}

// Machine puts the program on another machine, with an enclave of its own.
func (l *Library) Machine(name string) { l.machine(name) }

// Serial is what IOKit says from now on.
func (l *Library) Serial(s string) { l.serial(s) }

// Live counts objects that are not released.
func (l *Library) Live() int { return l.live() }

// Keychain counts permanent keys.
func (l *Library) Keychain() int { return int(l.items()) }
