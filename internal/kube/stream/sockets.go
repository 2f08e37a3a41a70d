package stream

import (
	"errors"
	"io"
	"time"

	"github.com/gorilla/websocket"

	"github.com/sallyport/sallyport/internal/kube/frame"
)

// closing is the channel by which v5 says that no more is sent on another.
const closing = 255

// sockets carries a command's streams in the messages of WebSockets.
type sockets struct {
	client, server *websocket.Conn
	taps           *taps
	v5             bool
}

func (s *sockets) up() error {
	return carry(s.client, s.server, func(channel byte, p []byte) error {
		switch {
		case channel == byte(Stdin), channel == byte(resize):
			return s.taps.shown(Stream(channel), p)
		case channel == closing && s.v5:
			if len(p) != 1 || p[0] != byte(Stdin) && p[0] != byte(resize) {
				return frame.Malformed("an end of no channel of the client's")
			}
			return nil
		}
		return frame.Malformed("channel %d is not the client's", channel)
	})
}

func (s *sockets) down() error {
	err := carry(s.server, s.client, func(channel byte, p []byte) error {
		switch {
		case channel >= byte(Stdout) && channel <= byte(Error):
			return s.taps.shown(Stream(channel), p)
		case len(p) == 0, channel == closing && s.v5:
			return nil
		}
		return frame.Malformed("channel %d is not the server's", channel)
	})
	if errors.Is(err, frame.ErrParted) || !errors.Is(err, frame.ErrMalformed) && s.taps.status() {
		return frame.ErrParted
	}
	return err
}

// carry passes messages on, long ones in several, until from has no more. When to takes none any more what comes is read and
// thrown away.
func carry(from, to *websocket.Conn, see func(channel byte, p []byte) error) error {
	held, _ := buffers.Get().(*[]byte)
	defer buffers.Put(held)
	buf := (*held)[frame.Headroom-1:]
	broken := false
	for {
		_, r, err := from.NextReader()
		if err != nil {
			return frame.Ending(err)
		}
		if _, err := io.ReadFull(r, buf[:1]); err != nil {
			if errors.Is(err, io.EOF) {
				continue // an empty message is of no channel
			}
			return frame.Ending(err)
		}
		for first := true; ; first = false {
			n, err := io.ReadFull(r, buf[1:])
			last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
			if err != nil && !last {
				return frame.Ending(err)
			}
			if (n > 0 || first) && !broken {
				if err := see(buf[0], buf[1:1+n]); err != nil {
					return err
				}
				broken = to.WriteMessage(websocket.BinaryMessage, buf[:1+n]) != nil
			}
			if last {
				break
			}
		}
	}
}

func (s *sockets) farewell(text string) {
	_ = s.client.SetWriteDeadline(time.Now().Add(lastWords))
	_ = s.client.WriteMessage(websocket.BinaryMessage, append([]byte{byte(Error)}, s.taps.failure(text)...))
}

func (s *sockets) partClient(wait time.Duration) {
	part(s.client, websocket.CloseNormalClosure)
	_ = s.client.SetReadDeadline(time.Now().Add(wait))
}

func (s *sockets) partServer(err error) {
	if !errors.Is(err, frame.ErrParted) {
		code := websocket.CloseGoingAway
		if errors.Is(err, frame.ErrMalformed) {
			code = websocket.CloseProtocolError
		}
		part(s.server, code)
		s.server.Close()
		return
	}
	part(s.server, websocket.CloseNormalClosure)
	_ = s.server.SetReadDeadline(time.Now().Add(parting))
}

func part(c *websocket.Conn, code int) {
	_ = c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(lastWords))
}

func (s *sockets) close(client bool) {
	s.server.Close()
	if client {
		s.client.Close()
	}
}
