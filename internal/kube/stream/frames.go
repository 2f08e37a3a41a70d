package stream

import (
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/moby/spdystream/spdy"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kube/frame"
)

// maxLanes bounds the streams that are open at once: a forwarded connection is two.
const maxLanes = 512

// frames carries the streams of SPDY connections: frame by frame, under the same numbers on both sides.
type frames struct {
	client, server *frame.Wire
	taps           *taps
	forward        bool // a port-forward, else a command

	mu    sync.Mutex
	lanes map[spdy.StreamId]*lane // guarded by mu: those that are open
	last  spdy.StreamId           // guarded by mu: the highest that the client opened
}

// lane is one SPDY stream. What changes is guarded by frames.mu.
type lane struct {
	is         Stream // of a command
	port       uint16 // of a forwarded connection's data
	began      time.Time
	up, down   int64
	upEnded    bool
	downEnded  bool
	unanswered bool
}

func (f *frames) up() error   { return f.carry(f.client, f.server, true) }
func (f *frames) down() error { return f.parted(f.carry(f.server, f.client, false)) }

// parted tells an end in order: a server closes its connection once a command's error stream is over, and when it likes where
// it forwards ports.
func (f *frames) parted(err error) error {
	if errors.Is(err, frame.ErrMalformed) || !f.forward && !f.taps.status() && !f.errorEnded() {
		return err
	}
	return frame.ErrParted
}

// errorEnded reports whether the server ended the stream that says how the command did.
func (f *frames) errorEnded() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.lanes {
		if l.is == Error {
			return l.downEnded
		}
	}
	return f.last > 0
}

// carry passes frames on until from has no more. When to takes none any more what comes is read and thrown away.
func (f *frames) carry(from, to *frame.Wire, up bool) error {
	held, _ := buffers.Get().(*[]byte)
	defer buffers.Put(held)
	w := &way{frames: f, from: from, to: to, up: up, buf: *held}
	for {
		h, err := from.Head()
		if err == nil && h.Control {
			err = w.control(h)
		} else if err == nil {
			err = w.data(h)
		}
		if err != nil {
			return err
		}
	}
}

// way is one direction.
type way struct {
	*frames
	from, to *frame.Wire
	up       bool
	buf      []byte
	broken   bool // to takes nothing any more
}

func (w *way) control(h frame.Head) error {
	got, err := w.from.Control(h)
	if err != nil {
		return err
	}
	out, err := w.heard(got, w.up)
	if err != nil || out == nil || w.broken {
		return err
	}
	w.broken = w.to.Send(out) != nil
	return nil
}

// data passes a data frame on, in chunks; that of a stream that is over is skipped.
func (w *way) data(h frame.Head) error {
	open := w.open(h.ID, w.up)
	for left, first := h.Length, true; first || left > 0; first = false {
		n := min(left, chunk)
		if err := w.from.Payload(w.buf[frame.Headroom : frame.Headroom+n]); err != nil {
			return err
		}
		left -= n
		if !open || w.broken {
			continue
		}
		fin := h.Fin && left == 0
		if err := w.see(h.ID, w.up, w.buf[frame.Headroom:frame.Headroom+n], fin); err != nil {
			return err
		}
		w.broken = w.to.Data(h.ID, fin, w.buf[:frame.Headroom+n]) != nil
	}
	return nil
}

// open reports whether a side may still send on a stream.
func (f *frames) open(id spdy.StreamId, up bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lanes[id]
	return l != nil && !(up && l.upEnded || !up && l.downEnded)
}

// see shows a piece of data, and counts it.
func (f *frames) see(id spdy.StreamId, up bool, p []byte, fin bool) error {
	f.mu.Lock()
	l := f.lanes[id]
	if l == nil {
		f.mu.Unlock()
		return nil
	}
	is := l.is
	if up {
		l.up += int64(len(p))
		l.upEnded = l.upEnded || fin
	} else {
		l.down += int64(len(p))
		l.downEnded = l.downEnded || fin
	}
	over := l.upEnded && l.downEnded && f.forward
	if over {
		delete(f.lanes, id)
	}
	f.mu.Unlock()
	if over {
		f.forwarded(l)
	}
	if f.forward {
		f.taps.witness.Touch()
		return nil
	}
	if len(p) > 0 && up != (is == Stdin || is == resize) {
		return frame.Malformed("data on a stream that is the other side's")
	}
	return f.taps.shown(is, p)
}

// forwarded tells of a forwarded connection that is over.
func (f *frames) forwarded(l *lane) {
	if l.port != 0 {
		f.taps.witness.Forwarded(Forward{Port: l.port, Sent: l.up, Received: l.down, Took: time.Since(l.began)})
	}
}

// heard judges a control frame, and gives what goes on in its place: nothing of it that the other side is not to read.
func (f *frames) heard(got spdy.Frame, up bool) (spdy.Frame, error) {
	switch x := got.(type) {
	case *spdy.SynStreamFrame:
		if !up {
			return nil, frame.Malformed("a stream that the server opens")
		}
		return f.opened(x)
	case *spdy.SynReplyFrame:
		if up {
			return nil, frame.Malformed("an answer to no stream")
		}
		if !f.answered(x.StreamId, x.CFHeader.Flags&spdy.ControlFlagFin != 0) {
			return nil, nil
		}
		return &spdy.SynReplyFrame{StreamId: x.StreamId, CFHeader: spdy.ControlFrameHeader{Flags: x.CFHeader.Flags & spdy.ControlFlagFin}, Headers: http.Header{}}, nil
	case *spdy.RstStreamFrame:
		return x, f.reset(x.StreamId)
	case *spdy.PingFrame, *spdy.GoAwayFrame:
		return got, nil
	}
	return nil, nil // settings, windows and further headers, which Kubernetes knows nothing of
}

// opened judges a new stream of the client's.
func (f *frames) opened(x *spdy.SynStreamFrame) (spdy.Frame, error) {
	headers := http.Header{}
	for _, name := range []string{"Streamtype", "Port", "Requestid"} {
		switch v := x.Headers[name]; {
		case len(v) > 1:
			return nil, frame.Malformed("a header of a stream that is there twice")
		case len(v) == 1:
			headers[name] = v
		}
	}
	l := &lane{began: time.Now(), unanswered: true, upEnded: x.CFHeader.Flags&spdy.ControlFlagFin != 0, downEnded: x.CFHeader.Flags&spdy.ControlFlagUnidirectional != 0}
	read := f.command
	if f.forward {
		read = f.port
	}
	if err := read(l, headers); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if x.StreamId%2 == 0 || x.StreamId <= f.last || len(f.lanes) >= maxLanes {
		return nil, frame.Malformed("stream %d, of %d that are open", x.StreamId, len(f.lanes))
	}
	if !f.forward {
		for _, other := range f.lanes {
			if other.is == l.is {
				return nil, frame.Malformed("a second stream of one type")
			}
		}
	}
	if l.is == Stdout && l.downEnded && !f.forward {
		f.taps.unheard()
	}
	f.last = x.StreamId
	f.lanes[x.StreamId] = l
	return &spdy.SynStreamFrame{StreamId: x.StreamId, CFHeader: spdy.ControlFrameHeader{Flags: x.CFHeader.Flags & (spdy.ControlFlagFin | spdy.ControlFlagUnidirectional)}, Headers: headers}, nil
}

var commandStreams = map[string]Stream{"stdin": Stdin, "stdout": Stdout, "stderr": Stderr, "error": Error, "resize": resize}

func (f *frames) command(l *lane, h http.Header) error {
	delete(h, "Port")
	delete(h, "Requestid")
	is, known := commandStreams[first(h["Streamtype"])]
	if !known {
		return frame.Malformed("a stream of no type of a command's")
	}
	l.is = is
	return nil
}

// port judges a stream of a forwarded connection; one of data is on record before it begins.
func (f *frames) port(l *lane, h http.Header) error {
	port, err := strconv.ParseUint(first(h["Port"]), 10, 16)
	if err != nil || port == 0 || strconv.FormatUint(port, 10) != first(h["Port"]) {
		return frame.Malformed("a stream of no port")
	}
	if _, err := strconv.ParseUint(first(h["Requestid"]), 10, 64); err != nil && len(h["Requestid"]) > 0 {
		return frame.Malformed("a stream of no request")
	}
	switch first(h["Streamtype"]) {
	case "error":
		return nil
	case "data":
		if err := f.taps.witness.Forwarding(uint16(port)); err != nil {
			return fault.Of(err)
		}
		l.port = uint16(port)
		return nil
	}
	return frame.Malformed("a stream of no type of a forwarding's")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// answered notes the server's answer to a stream; a second one goes nowhere.
func (f *frames) answered(id spdy.StreamId, fin bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.lanes[id]
	if l == nil || !l.unanswered {
		return false
	}
	l.unanswered, l.downEnded = false, l.downEnded || fin
	return true
}

// reset is the end of a stream both ways. Of a command it stays, so that none of its type comes again.
func (f *frames) reset(id spdy.StreamId) error {
	f.mu.Lock()
	l := f.lanes[id]
	if l != nil && f.forward {
		delete(f.lanes, id)
	}
	if l != nil {
		l.upEnded, l.downEnded = true, true
	}
	f.mu.Unlock()
	if l != nil && f.forward {
		f.forwarded(l)
	}
	if l != nil && l.is == Stdout && !f.forward {
		f.taps.unheard()
	}
	return nil
}

// farewell says on the error stream why a command's session ends, and ends what the client reads; a forwarding just ends.
func (f *frames) farewell(text string) {
	if f.forward {
		return
	}
	_ = f.client.SetWriteDeadline(time.Now().Add(lastWords))
	f.mu.Lock()
	answers, ends := map[spdy.StreamId]bool{}, map[spdy.StreamId][]byte{}
	for id, l := range f.lanes {
		if l.downEnded {
			continue
		}
		said := make([]byte, frame.Headroom)
		if l.is == Error {
			said = append(said, f.taps.failure(text)...)
		}
		answers[id], ends[id] = l.unanswered, said
		l.downEnded = true
	}
	f.mu.Unlock()
	for id, said := range ends {
		if answers[id] { // a client takes no data before
			_ = f.client.Send(&spdy.SynReplyFrame{StreamId: id, Headers: http.Header{}})
		}
		_ = f.client.Data(id, true, said)
	}
}

func (f *frames) partClient(wait time.Duration) {
	_ = f.client.SetReadDeadline(time.Now().Add(wait))
}

func (f *frames) partServer(error) { f.server.Close() }

func (f *frames) close(client bool) {
	f.server.Close()
	if !client {
		return
	}
	f.client.Close()
	f.mu.Lock()
	rest := f.lanes
	if f.forward {
		f.lanes = map[spdy.StreamId]*lane{}
	} else {
		rest = nil
	}
	f.mu.Unlock()
	for _, l := range rest {
		f.forwarded(l)
	}
}
