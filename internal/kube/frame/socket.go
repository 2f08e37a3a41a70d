package frame

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// closeTime is how long the closing of a connection may take to be said.
const closeTime = 100 * time.Millisecond

// Ending sorts why nothing more is read: the other side's close, a connection that was lost, or what is no frame.
func Ending(err error) error {
	var closed *websocket.CloseError
	var lost net.Error
	switch {
	case websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived):
		return ErrParted
	case errors.As(err, &closed), errors.As(err, &lost), errors.Is(err, net.ErrClosed), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return err
	case errors.Is(err, websocket.ErrReadLimit), strings.HasPrefix(err.Error(), "websocket: "):
		return Malformed("%s", strings.TrimPrefix(err.Error(), "websocket: "))
	}
	return err
}

// Tunnel is a WebSocket whose binary messages are a connection's bytes.
type Tunnel struct {
	*websocket.Conn
	message io.Reader
}

// Read is of net.Conn.
func (t *Tunnel) Read(p []byte) (int, error) {
	for {
		if t.message == nil {
			kind, r, err := t.NextReader()
			if err != nil {
				if err = Ending(err); errors.Is(err, ErrParted) {
					err = io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, Malformed("a text message")
			}
			t.message = r
		}
		n, err := t.message.Read(p)
		if errors.Is(err, io.EOF) {
			t.message, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write is of net.Conn.
func (t *Tunnel) Write(p []byte) (int, error) {
	if err := t.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// SetDeadline is of net.Conn.
func (t *Tunnel) SetDeadline(at time.Time) error {
	_ = t.SetWriteDeadline(at)
	return t.SetReadDeadline(at)
}

// Close is of net.Conn.
func (t *Tunnel) Close() error {
	_ = t.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(closeTime))
	return t.Conn.Close()
}
