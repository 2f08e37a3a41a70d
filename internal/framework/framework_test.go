//go:build linux

package framework_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/framework"
	"github.com/sallyport/sallyport/internal/standin"
)

// TestSerial reads the platform's serial, and names each call that does not give it.
func TestSerial(t *testing.T) {
	l := standin.Start(t)
	if s, err := framework.Serial(l.Paths()); err != nil || s != "C02STANDIN1" {
		t.Fatal(s, err)
	}
	l.Serial("")
	if s, err := framework.Serial(l.Paths()); err == nil {
		t.Errorf("%q passes for a serial", s)
	}
	l.Serial("C02X")
	for _, call := range []string{"CFStringCreateWithCString", "IOServiceMatching", "IOServiceGetMatchingService", "IORegistryEntryCreateCFProperty", "serial is data"} {
		l.Fail(call, "", 0)
		if s, err := framework.Serial(l.Paths()); err == nil {
			t.Errorf("%s failed, and the serial is %q", call, s)
		}
	}
}

// TestLoad names a framework that is not there, and a symbol that it lacks.
func TestLoad(t *testing.T) {
	l := standin.Start(t)
	none := l.Paths()
	none.IOKit = "/nowhere/IOKit"
	if _, err := framework.Serial(none); err == nil {
		t.Error("a library from nowhere")
	}
	none = l.Paths()
	none.CoreFoundation = "/nowhere/CoreFoundation"
	if _, err := framework.Serial(none); err == nil {
		t.Error("a library from nowhere")
	}
	lib, err := framework.Open(l.Paths().Security)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lib.Constants("kSecClass", "kSecNothing"); err == nil || !strings.Contains(err.Error(), "kSecNothing") {
		t.Error(err)
	}
	var f func()
	if err := lib.Bind(map[string]any{"SecNothing": &f}); err == nil || !strings.Contains(err.Error(), "SecNothing") {
		t.Error(err)
	}
}

// TestValues carries values there and back.
func TestValues(t *testing.T) {
	l := standin.Start(t)
	c, err := framework.OpenCore(l.Paths().CoreFoundation)
	if err != nil {
		t.Fatal(err)
	}
	p := c.Pool()
	defer p.Release()
	text, data := p.Text("größe"), p.Bytes([]byte{0, 1, 2})
	d := p.Dictionary(text, data, p.Text("n"), p.Number(7))
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	if c.Text(text) != "größe" || string(c.Bytes(data)) != "\x00\x01\x02" || string(c.Bytes(c.Value(d, text))) != "\x00\x01\x02" {
		t.Error("values changed on their way")
	}
	if c.Text(data) != "" || c.Bytes(text) != nil || c.Text(0) != "" || c.Bytes(0) != nil || c.Value(d, data) != 0 {
		t.Error("one kind of value passes for another")
	}
	if long := p.Text(strings.Repeat("x", 5000)); c.Text(long) != "" {
		t.Error("a text that is too long was cut in silence")
	}
	for _, call := range []string{"CFStringCreateWithCString", "CFDataCreate", "CFDictionaryCreateMutable"} {
		l.Fail(call, "", 0)
		q := c.Pool()
		q.Dictionary(q.Text("a"), q.Bytes(nil))
		if err := q.Err(); err == nil {
			t.Errorf("%s failed, and nobody noticed", call)
		}
		q.Release()
	}
	var f *framework.Failure
	if err := c.Fail("call", 0); !errors.As(err, &f) || f.Call != "call" {
		t.Error(err)
	}
}
