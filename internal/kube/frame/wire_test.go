package frame

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

	"github.com/moby/spdystream/spdy"
)

func wireOf(t *testing.T, raw []byte) *Wire {
	t.Helper()
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	w, err := NewWire(a, bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// TestMalformed: what is no frame of SPDY/3.1 that Kubernetes sends is malformed, and what ends amid a frame is lost.
func TestMalformed(t *testing.T) {
	rest := bytes.Repeat([]byte{0xff}, 64)
	for name, c := range map[string]struct {
		raw  []byte
		lost bool
	}{
		"another version":        {raw: []byte{0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1}},
		"an unknown type":        {raw: []byte{0x80, 3, 0, 10, 0, 0, 0, 4, 0, 0, 0, 1}},
		"too short a stream":     {raw: []byte{0x80, 3, 0, 1, 0, 0, 0, 9, 0, 0, 0, 1}},
		"too short an answer":    {raw: []byte{0x80, 3, 0, 2, 0, 0, 0, 3, 0, 0, 0, 1}},
		"too short a reset":      {raw: []byte{0x80, 3, 0, 3, 0, 0, 0, 4, 0, 0, 0, 1}},
		"too long":               {raw: []byte{0x80, 3, 0, 1, 0, 0x01, 0, 0, 0, 0, 0, 1}},
		"a ping with more in it": {raw: []byte{0x80, 3, 0, 6, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0, 0}},
		"a ping of nothing":      {raw: []byte{0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 0}},
		"headers that are none":  {raw: append([]byte{0x80, 3, 0, 1, 0, 0, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, rest[:30]...)},
		"half a ping":            {raw: []byte{0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0}, lost: true},
		"half a head":            {raw: []byte{0x80, 3, 0}, lost: true},
	} {
		w := wireOf(t, c.raw)
		h, err := w.Head()
		if err == nil {
			_, err = w.Control(h)
		}
		if err == nil || errors.Is(err, ErrMalformed) == c.lost {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestData: data frames are written as spdy reads them.
func TestData(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	w, err := NewWire(a, bufio.NewReader(a))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = w.Data(5, false, append(make([]byte, Headroom), "hello"...))
		_ = w.Data(7, true, make([]byte, Headroom))
	}()
	f, err := spdy.NewFramer(io.Discard, b)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []spdy.DataFrame{{StreamId: 5, Data: []byte("hello")}, {StreamId: 7, Flags: spdy.DataFlagFin}} {
		got, err := f.ReadFrame()
		d, ok := got.(*spdy.DataFrame)
		if err != nil || !ok || d.StreamId != want.StreamId || d.Flags != want.Flags || !bytes.Equal(d.Data, want.Data) {
			t.Errorf("%+v %v", got, err)
		}
	}
}
