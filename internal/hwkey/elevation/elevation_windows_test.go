package elevation

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// starts puts another start in the place of UAC's for a test.
func starts(t *testing.T, f func(name string) (process, error)) {
	t.Helper()
	old := launch
	launch = f
	t.Cleanup(func() { launch = old })
}

// still is a handle that is not signalled, as that of a process that runs.
func still(t *testing.T, signalled uint32) windows.Handle {
	t.Helper()
	h, err := windows.CreateEvent(nil, 1, signalled, nil)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// serves has this process play the copy that is started.
func serves(t *testing.T, parent uint32, activate func(Request) ([]byte, error)) chan error {
	t.Helper()
	done := make(chan error, 1)
	starts(t, func(name string) (process, error) {
		go func() { done <- Serve(name, parent, activate) }()
		return process{still(t, 0), uint32(os.Getpid())}, nil
	})
	return done
}

func TestWindowsActivate(t *testing.T) {
	var got Request
	done := serves(t, uint32(os.Getpid()), func(q Request) ([]byte, error) { got = q; return []byte("secret"), nil })
	secret, err := Activate(good())
	if err != nil || string(secret) != "secret" {
		t.Fatal(secret, err)
	}
	if err := <-done; err != nil || got.EK != good().EK || !bytes.Equal(got.Key.Private, good().Key.Private) {
		t.Errorf("%+v %v", got, err)
	}
	done = serves(t, uint32(os.Getpid()), func(Request) ([]byte, error) { return nil, hwkey.ErrLockout })
	if _, err := Activate(good()); !fault.Because(err, "tpm_lockout") {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWindowsRefused is a person who does not consent.
func TestWindowsRefused(t *testing.T) {
	for _, why := range []error{windows.ERROR_CANCELLED, windows.ERROR_ACCESS_DENIED} {
		starts(t, func(string) (process, error) { return process{}, why })
		if _, err := Activate(good()); !fault.Because(err, "elevation_refused") || fault.Of(err).Fix == "" {
			t.Error(err)
		}
	}
	starts(t, func(string) (process, error) { return process{}, windows.ERROR_FILE_NOT_FOUND })
	if _, err := Activate(good()); !fault.Because(err, "elevation_failed") {
		t.Error(err)
	}
	starts(t, func(string) (process, error) { return process{still(t, 1), 1}, nil })
	if _, err := Activate(good()); !fault.Because(err, "elevation_failed") || !strings.Contains(fault.Of(err).Cause, "ended without a word") {
		t.Error(err)
	}
}

// TestWindowsStrangers has other processes at the pipe's ends.
func TestWindowsStrangers(t *testing.T) {
	fails := func(Request) ([]byte, error) { return nil, errors.New("a stranger was served") }
	starts(t, func(name string) (process, error) {
		go func() { _ = Serve(name, uint32(os.Getpid()), fails) }()
		return process{still(t, 0), uint32(os.Getpid()) + 4}, nil
	})
	if _, err := Activate(good()); !fault.Because(err, "elevation_failed") || !strings.Contains(fault.Of(err).Cause, "not the one that was started") {
		t.Error(err)
	}
	done := serves(t, uint32(os.Getpid())+4, fails)
	if _, err := Activate(good()); !fault.Because(err, "elevation_failed") || !strings.Contains(fault.Of(err).Cause, "no answer") {
		t.Error(err)
	}
	if err := <-done; !fault.Because(err, "elevation_failed") || !strings.Contains(fault.Of(err).Cause, "made the pipe") {
		t.Error(err)
	}
	for _, name := range []string{"", "x", `..\pipe`, strings.Repeat("A", 32), strings.Repeat("a", 30), strings.Repeat("a", 32) + `\x`} {
		if err := Serve(name, 4, fails); !fault.Because(err, "elevation_failed") {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// TestWindowsPipe finds its rights, and that nobody makes a second instance.
func TestWindowsPipe(t *testing.T) {
	name, err := randomName()
	if err != nil {
		t.Fatal(err)
	}
	p, err := createPipe(prefix + name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(p) }()
	if second, err := createPipe(prefix + name); err == nil {
		_ = windows.CloseHandle(second)
		t.Error("a second pipe of the name was made")
	}
	path, err := windows.UTF16PtrFromString(prefix + name + "-taken")
	if err != nil {
		t.Fatal(err)
	}
	const unlimited = 255
	theirs, err := windows.CreateNamedPipe(path, windows.PIPE_ACCESS_DUPLEX, windows.PIPE_TYPE_BYTE, unlimited, 512, 512, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = windows.CloseHandle(theirs) }()
	if second, err := createPipe(prefix + name + "-taken"); err == nil {
		_ = windows.CloseHandle(second)
		t.Error("somebody else's pipe was joined")
	}
	sd, err := windows.GetSecurityInfo(p, windows.SE_KERNEL_OBJECT, windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		t.Fatal(err)
	}
	acl, _, err := sd.DACL()
	if err != nil || acl == nil {
		t.Fatal("no list of rights", err)
	}
	me, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		t.Fatal(err)
	}
	want := []string{me.User.Sid.String(), "S-1-5-32-544", "S-1-5-18"}
	for i := range acl.AceCount {
		var ace *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, uint32(i), &ace); err != nil {
			t.Fatal(err)
		}
		if who := (*windows.SID)(unsafe.Pointer(&ace.SidStart)).String(); !slices.Contains(want, who) {
			t.Errorf("%s has rights to the pipe", who)
		}
	}
	if acl.AceCount != uint16(len(want)) {
		t.Errorf("%d entries", acl.AceCount)
	}
}

// TestWindowsImage names this process's program, and none of a process that is not there.
func TestWindowsImage(t *testing.T) {
	ours, err := image(uint32(os.Getpid()))
	if err != nil || !strings.HasSuffix(ours, ".exe") {
		t.Errorf("%q %v", ours, err)
	}
	again, err := opened(uint32(os.Getpid()))
	if err != nil || !strings.EqualFold(again, ours) {
		t.Errorf("%q, and opened %q %v", ours, again, err)
	}
	if other, err := image(4_000_000); err == nil {
		t.Errorf("a process that is not there runs %q", other)
	}
}
