// Package tunnel carries many streams over one connection, each opened with a header that says who it is for.
//
//	frame   uint16 length (big-endian), then that many bytes of JSON; at most 4 KiB
//	dial    client → proxy: Dial; proxy → client: Status; then the stream
//	stream  over yamux, from the side that opens it: Header; then the stream
//
// The formats are in docs/protocol/port.md.
package tunnel

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/hashicorp/yamux"

	"github.com/sallyport/sallyport/internal/fault"
)

// The ALPN protocols of the public port.
const (
	ALPNAuth   = "sallyport-auth"
	ALPNDial   = "sallyport-dial"
	ALPNTunnel = "sallyport-tunnel"
	ALPNMux    = "sallyport-mux" // many streams of one login over one TLS connection to an agent
)

// Door is a protocol's entry at an agent.
type Door string

// The doors. DoorRPC is auth's own.
const (
	DoorSSH  Door = "ssh"
	DoorRPC  Door = "rpc"
	DoorDB   Door = "db"
	DoorKube Door = "kube"
)

// Dial asks the proxy for a stream to a target.
type Dial struct {
	Target string `json:"target"`
	Door   Door   `json:"door"`
	Ticket string `json:"ticket"`
}

// Status is the proxy's answer; a Fault says why there is no stream.
type Status struct {
	OK     bool   `json:"ok"`
	Kind   string `json:"kind,omitempty"`
	Reason string `json:"reason,omitempty"`
	Text   string `json:"text,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// StatusOf makes the answer of an outcome.
func StatusOf(err error) Status {
	if err == nil {
		return Status{OK: true}
	}
	f := fault.Of(err)
	return Status{Kind: f.Kind.String(), Reason: f.Reason, Text: f.Text, Cause: f.Cause, Fix: f.Fix}
}

// Err is the fault of an answer, nil when it is OK.
func (s Status) Err() error {
	if s.OK {
		return nil
	}
	return &fault.Error{Kind: fault.ParseKind(s.Kind), Reason: s.Reason, Text: s.Text, Cause: s.Cause, Fix: s.Fix}
}

// Header begins a stream inside a tunnel. Client is who connected, believed on a proxy's link and nowhere else.
type Header struct {
	Client netip.AddrPort `json:"client"`
	Target string         `json:"target,omitempty"`
	Door   Door           `json:"door"`
	// DBUser is whom the client means where its protocol does not say; the gate decides.
	DBUser string `json:"db_user,omitempty"`
}

// maxFrame bounds a frame, in bytes.
const maxFrame = 4 << 10

// openTime bounds the opening of a stream, header included.
const openTime = 10 * time.Second

// WriteFrame writes one value.
func WriteFrame(w io.Writer, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(raw) > maxFrame {
		return fmt.Errorf("frame of %d bytes", len(raw))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(raw))), raw...))
	return err
}

// ReadFrame reads one value; unknown fields and oversize are errors. It reads nothing behind the frame.
func ReadFrame(r io.Reader, v any) error {
	var size [2]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return err
	}
	n := binary.BigEndian.Uint16(size[:])
	if n > maxFrame {
		return fmt.Errorf("frame of %d bytes", n)
	}
	raw := make([]byte, n)
	if _, err := io.ReadFull(r, raw); err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	return nil
}

// Tunnel is one end. It owns its connection; Close ends all streams.
type Tunnel struct {
	mux *yamux.Session
}

func settings() *yamux.Config {
	c := yamux.DefaultConfig()
	c.MaxStreamWindowSize = 4 << 20
	c.AcceptBacklog = 256
	c.KeepAliveInterval = 15 * time.Second
	c.ConnectionWriteTimeout = 15 * time.Second
	c.StreamOpenTimeout = openTime
	c.StreamCloseTimeout = time.Minute
	c.LogOutput = io.Discard
	return c
}

// Client makes the end that dialed, Server the end that accepted; either may open streams.
func Client(conn net.Conn) (*Tunnel, error) {
	return wrap(yamux.Client(&joined{Conn: conn}, settings()))
}

// Server is Client for the accepting end.
func Server(conn net.Conn) (*Tunnel, error) {
	return wrap(yamux.Server(&joined{Conn: conn}, settings()))
}

func wrap(m *yamux.Session, err error) (*Tunnel, error) {
	if err != nil {
		return nil, err
	}
	return &Tunnel{m}, nil
}

// Open opens a stream with its header.
func (t *Tunnel) Open(ctx context.Context, h Header) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s, err := t.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("open stream: %w", err)
	}
	deadline := time.Now().Add(openTime)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	_ = s.SetDeadline(deadline)
	if err := WriteFrame(s, h); err != nil {
		s.Close()
		return nil, fmt.Errorf("open stream: %w", err)
	}
	_ = s.SetDeadline(time.Time{})
	return timed{s}, nil
}

// timed is a stream whose late reads fail as those of the standard library's connections do: as an error that passes. TLS
// over it would else be broken by the deadline that an HTTP server sets when it hands a connection over for an upgrade.
type timed struct{ net.Conn }

// Read is of net.Conn.
func (s timed) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	if errors.Is(err, yamux.ErrTimeout) {
		err = os.ErrDeadlineExceeded
	}
	return n, err
}

// Stream is a stream that the other end opened.
type Stream struct {
	net.Conn
	Header Header
}

// RemoteAddr is who connected at the far end of the tunnel.
func (s *Stream) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(s.Header.Client) }

// Serve calls handle with each stream that the other end opens, in a goroutine of its own, until the tunnel ends; it
// returns why, once all of them have returned. A stream whose header is bad or late is closed.
func (t *Tunnel) Serve(handle func(*Stream)) error {
	var running group
	defer running.wait()
	for {
		s, err := t.mux.AcceptStream()
		if err != nil {
			if errors.Is(err, yamux.ErrSessionShutdown) || errors.Is(err, io.EOF) {
				return io.EOF
			}
			return err
		}
		running.run(func() {
			_ = s.SetDeadline(time.Now().Add(openTime))
			stream := &Stream{Conn: timed{s}}
			if err := ReadFrame(s, &stream.Header); err != nil {
				s.Close()
				return
			}
			_ = s.SetDeadline(time.Time{})
			handle(stream)
		})
	}
}

// Done is closed when the tunnel has ended.
func (t *Tunnel) Done() <-chan struct{} { return t.mux.CloseChan() }

// Streams is how many streams are open.
func (t *Tunnel) Streams() int { return t.mux.NumStreams() }

// Close ends the tunnel and its streams.
func (t *Tunnel) Close() error { return t.mux.Close() }
