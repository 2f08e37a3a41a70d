package stream

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/moby/spdystream/spdy"

	"github.com/sallyport/sallyport/internal/kube/frame"
)

// deaf is a connection that gives what it was made of, and keeps what it is sent.
type deaf struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (d *deaf) Read(p []byte) (int, error)       { return d.in.Read(p) }
func (d *deaf) Write(p []byte) (int, error)      { return d.out.Write(p) }
func (d *deaf) Close() error                     { return nil }
func (d *deaf) SetDeadline(time.Time) error      { return nil }
func (d *deaf) SetReadDeadline(time.Time) error  { return nil }
func (d *deaf) SetWriteDeadline(time.Time) error { return nil }

// strict is a tape and a witness that count.
type strict struct {
	t     *testing.T
	bytes int
}

func (s *strict) Shown(_ Stream, p []byte) error { s.bytes += len(p); return nil }
func (s *strict) Unheard()                       {}
func (s *strict) Resized(uint16, uint16)         {}
func (s *strict) Exited(int)                     {}
func (s *strict) Close() error                   { return nil }
func (s *strict) Touch()                         {}
func (s *strict) Forwarding(port uint16) error   { return nil }
func (s *strict) Forwarded(f Forward) {
	if f.Port == 0 || f.Sent < 0 || f.Received < 0 {
		s.t.Errorf("%+v", f)
	}
}

// session is what a client of SPDY sends, by spdy's own writer.
func session(t testing.TB, headers ...http.Header) []byte {
	var b bytes.Buffer
	f, err := spdy.NewFramer(&b, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range headers {
		if err := f.WriteFrame(&spdy.SynStreamFrame{StreamId: spdy.StreamId(2*i + 1), Headers: h}); err != nil {
			t.Fatal(err)
		}
	}
	for i := range headers {
		_ = f.WriteFrame(&spdy.DataFrame{StreamId: spdy.StreamId(2*i + 1), Data: []byte("hello")})
	}
	_ = f.WriteFrame(&spdy.PingFrame{Id: 1})
	_ = f.WriteFrame(&spdy.DataFrame{StreamId: 1, Flags: spdy.DataFlagFin})
	_ = f.WriteFrame(&spdy.RstStreamFrame{StreamId: 3, Status: spdy.Cancel})
	_ = f.WriteFrame(&spdy.GoAwayFrame{LastGoodStreamId: 1})
	return b.Bytes()
}

// FuzzFrames: whatever a side sends, nothing panics, and what goes on to the other is frames that spdy reads, of streams that
// were opened, and of no more data than came.
func FuzzFrames(f *testing.F) {
	command := session(f, http.Header{"Streamtype": {"stdin"}}, http.Header{"Streamtype": {"error"}})
	forward := session(f, http.Header{"Streamtype": {"data"}, "Port": {"80"}, "Requestid": {"0"}}, http.Header{"Streamtype": {"error"}, "Port": {"80"}, "Requestid": {"0"}})
	for _, up := range []bool{true, false} {
		f.Add(command, false, up)
		f.Add(forward, true, up)
		f.Add([]byte{0x80, 3, 0, 4, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 7, 0xff, 0xff, 0xff, 0xff}, true, up)
		f.Add([]byte{0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1}, false, up)
		f.Add([]byte{0, 0, 0, 1, 1, 0xff, 0xff, 0xff}, false, up)
	}
	f.Fuzz(func(t *testing.T, raw []byte, forwards, up bool) {
		from, to, watch := &deaf{in: bytes.NewReader(raw)}, &deaf{in: bytes.NewReader(nil)}, &strict{t: t}
		a, err := frame.NewWire(from, bufio.NewReader(from))
		if err != nil {
			t.Fatal(err)
		}
		b, err := frame.NewWire(to, bufio.NewReader(to))
		if err != nil {
			t.Fatal(err)
		}
		x := &frames{client: a, server: b, taps: &taps{witness: watch, tape: watch, exits: true}, forward: forwards, lanes: map[spdy.StreamId]*lane{}}
		if !up {
			x.lanes[1], x.lanes[3], x.last = &lane{is: Stdout}, &lane{is: Error}, 3
		}
		if err := x.carry(a, b, up); err == nil {
			t.Fatal("it has no end")
		}
		x.close(true)
		read, err := spdy.NewFramer(io.Discard, &to.out)
		if err != nil {
			t.Fatal(err)
		}
		opened, data := map[spdy.StreamId]bool{1: !up, 3: !up}, 0
		for {
			got, err := read.ReadFrame()
			if errors.Is(err, io.EOF) {
				break
			}
			switch y := got.(type) {
			case *spdy.SynStreamFrame:
				opened[y.StreamId] = true
				if !up || len(y.Headers) == 0 || len(y.Headers) > 3 {
					t.Errorf("%+v goes on", y)
				}
			case *spdy.DataFrame:
				data += len(y.Data)
				if !opened[y.StreamId] || len(y.Data) > chunk {
					t.Errorf("%d bytes of stream %d go on", len(y.Data), y.StreamId)
				}
			case *spdy.SynReplyFrame, *spdy.RstStreamFrame, *spdy.PingFrame, *spdy.GoAwayFrame:
			default:
				t.Fatalf("%T goes on, %v", got, err)
			}
		}
		if data > len(raw) || !forwards && !resizes(x) && data != watch.bytes {
			t.Errorf("%d bytes go on, of %d, %d were shown", data, len(raw), watch.bytes)
		}
	})
}

// resizes reports whether a session had a stream whose data is shown in another form.
func resizes(x *frames) bool {
	for _, l := range x.lanes {
		if l.is == resize {
			return true
		}
	}
	return false
}

// hijacked gives a handler a connection.
type hijacked struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// served is the server's end of a WebSocket on a connection.
func served(t testing.TB, conn net.Conn) *websocket.Conn {
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	for name, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg=="} {
		r.Header.Set(name, v)
	}
	u := websocket.Upgrader{ReadBufferSize: 4096, WriteBufferSize: chunk + 1}
	c, err := u.Upgrade(hijacked{httptest.NewRecorder(), conn}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(maxMessage)
	return c
}

// FuzzSockets: whatever a client sends, nothing panics, and all data that goes on was shown.
func FuzzSockets(f *testing.F) {
	masked := func(op byte, p ...byte) []byte {
		return append([]byte{0x80 | op, 0x80 | byte(len(p)), 0, 0, 0, 0}, p...)
	}
	f.Add(masked(2, 0, 'h', 'i'), true)
	f.Add(append(masked(9, 'x'), masked(2, 255, 0)...), true)
	f.Add(append(masked(2, append([]byte{4}, `{"Width":80,"Height":24}`...)...), masked(8)...), false)
	f.Add([]byte{0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, true)
	f.Add(append([]byte{0x02, 0x82, 0, 0, 0, 0, 0, 'a'}, masked(0, 'b')...), false)
	f.Fuzz(func(t *testing.T, raw []byte, v5 bool) {
		from, to, watch := &deaf{in: bytes.NewReader(raw)}, &deaf{in: bytes.NewReader(nil)}, &strict{t: t}
		s := &sockets{client: served(t, from), server: served(t, to), taps: &taps{witness: watch, tape: watch, exits: true}, v5: v5}
		to.out.Reset()
		if err := s.up(); err == nil {
			t.Fatal("it has no end")
		}
		passed := 0
		for b := to.out.Bytes(); len(b) >= 2; {
			n, skip := int(b[1]&0x7f), 2
			switch n {
			case 126:
				n, skip = int(b[2])<<8|int(b[3]), 4
			case 127:
				t.Fatal("a message longer than a chunk")
			}
			if b[0] != 0x82 || n < 1 {
				t.Fatalf("a frame %x of %d bytes goes on", b[0], n)
			}
			if b[skip] == byte(Stdin) {
				passed += n - 1
			}
			b = b[skip+n:]
		}
		if passed != watch.bytes {
			t.Errorf("%d bytes of stdin go on, %d were shown", passed, watch.bytes)
		}
	})
}

// FuzzSaid: what is said of a terminal's size, and of how a command ended, is read however it comes in pieces.
func FuzzSaid(f *testing.F) {
	f.Add([]byte(`{"Width":80,"Height":24}`+"\n"+`{"Width":1,"Height":2}`), 5)
	f.Add([]byte(`{"status":"Failure","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"42"}]}}`), 30)
	f.Add([]byte(`{`), 1)
	f.Fuzz(func(t *testing.T, raw []byte, at int) {
		whole, parts := &sizes{}, &sizes{}
		a := &taps{witness: &strict{t: t}, tape: whole}
		err := a.shown(resize, raw)
		b := &taps{witness: &strict{t: t}, tape: parts}
		at = max(0, min(at, len(raw)))
		if b.shown(resize, raw[:at]) == nil {
			err2 := b.shown(resize, raw[at:])
			if (err == nil) != (err2 == nil) || len(whole.all) != len(parts.all) {
				t.Errorf("%v %v in one, %v %v in two", whole.all, err, parts.all, err2)
			}
		}
		if len(a.sizes) > maxSize+len(raw) || len(b.sizes) > maxSize+len(raw) {
			t.Error("it is kept")
		}
		c := &taps{witness: &strict{t: t}, exits: true}
		for range 1000 {
			_ = c.shown(Error, raw)
		}
		if len(c.said) > maxStatus {
			t.Errorf("%d bytes are kept", len(c.said))
		}
		c.close()
	})
}

type sizes struct {
	strict
	all [][2]uint16
}

func (s *sizes) Resized(c, r uint16) { s.all = append(s.all, [2]uint16{c, r}) }
