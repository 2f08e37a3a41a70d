package session

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/fault"
)

// Terminal says whether a session gets a terminal.
type Terminal int

// The choices: a shell has a terminal where standard input is one, a command none; -t; -T.
const (
	TerminalAuto Terminal = iota
	TerminalForce
	TerminalNone
)

// Job is one session. Without a command it is a shell. In, Out and Err are the person's; where In is a terminal
// (an *os.File), it is put into raw mode meanwhile and restored, and `~.` at the start of a line ends the session.
// In may be read from a little after the session's end.
type Job struct {
	Command  string
	Terminal Terminal
	Agent    bool     // ask the node to forward the agent that ForwardAgent serves
	Env      []string // NAME=VALUE; the node takes LANG and LC_* alone
	In       io.Reader
	Out, Err io.Writer
}

// Run runs a session to its end: nil for status 0, else *ExitStatus, *Refused, *Cut, or what broke. A session that the
// node cuts prints why on Err and ends with status 255.
func (c *Client) Run(ctx context.Context, j Job) error {
	channel, requests, err := c.open("session", nil)
	if err != nil {
		return err
	}
	ctx, hangUp := context.WithCancelCause(ctx)
	defer hangUp(nil)
	defer channel.Close()
	stop := context.AfterFunc(ctx, func() { channel.Close() })
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- exitOf(requests) }()
	for _, kv := range j.Env {
		name, value, _ := strings.Cut(kv, "=")
		_, _ = channel.SendRequest("env", false, ssh.Marshal(struct{ Name, Value string }{name, value}))
	}
	if j.Agent {
		if err := ask(channel, "auth-agent-req@openssh.com", nil); err != nil {
			return err
		}
	}
	restore, in, err := j.terminal(ctx, channel)
	defer restore()
	if err != nil {
		return err
	}
	if j.Command == "" {
		err = ask(channel, "shell", nil)
	} else {
		err = ask(channel, "exec", ssh.Marshal(struct{ Command string }{j.Command}))
	}
	if err != nil {
		return err
	}
	go send(channel, in, hangUp)
	over := make(chan error, 1)
	go func() { over <- receive(j, channel, ended) }()
	// A node that does not answer is not waited for.
	select {
	case err = <-over:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, errHangUp):
		return &ExitStatus{Status: 255}
	case errors.Is(err, errNoExit):
		return c.lost(err)
	}
	return err
}

func receive(j Job, channel ssh.Channel, ended <-chan error) error {
	var out sync.WaitGroup
	out.Go(func() { _, _ = io.Copy(j.Out, channel) })
	out.Go(func() { _, _ = io.Copy(j.Err, channel.Stderr()) })
	out.Wait()
	return <-ended
}

// send carries the input; its end ends the input, and `~.` the session.
func send(channel ssh.Channel, in io.Reader, hangUp func(error)) {
	if in != nil {
		if _, err := io.Copy(channel, in); errors.Is(err, errHangUp) {
			hangUp(err)
			return
		}
	}
	_ = channel.CloseWrite()
}

var errNoExit = errors.New("ended without a status")

// exitOf reads exit-status or exit-signal (RFC 4254 section 6.10) until the channel is closed.
func exitOf(requests <-chan *ssh.Request) error {
	err := errNoExit
	for r := range requests {
		switch r.Type {
		case "exit-status":
			if len(r.Payload) >= 4 {
				err = nil
				if status := binary.BigEndian.Uint32(r.Payload); status != 0 {
					err = &ExitStatus{Status: int(status)}
				}
			}
		case "exit-signal":
			var m struct {
				Signal        string
				Core          bool
				Message, Lang string
			}
			if ssh.Unmarshal(r.Payload, &m) == nil {
				err = &ExitStatus{Status: 255, Signal: plain(m.Signal)}
			}
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
	return err
}

// reasonTime is how long a node has to say why it failed a request.
const reasonTime = 500 * time.Millisecond

// ask sends a request of a channel; SSH has no place for the reason of a failure, so the node gives it on standard
// error.
func ask(channel ssh.Channel, kind string, payload []byte) error {
	ok, err := channel.SendRequest(kind, true, payload)
	if err != nil {
		return fault.New(fault.Unavailable, "the connection was lost").WithReason("connection_lost").Wrapping(err)
	}
	if ok {
		return nil
	}
	timer := time.AfterFunc(reasonTime, func() { channel.Close() })
	defer timer.Stop()
	buf := make([]byte, maxText)
	n, _ := channel.Stderr().Read(buf)
	lines := strings.TrimSpace(plain(string(buf[:n])))
	if lines == "" {
		lines = "the node refused " + kind
	}
	return &Refused{Lines: lines}
}

// terminal asks for a terminal where the job wants one, and puts the person's own into raw mode.
func (j Job) terminal(ctx context.Context, channel ssh.Channel) (restore func(), in io.Reader, err error) {
	file, _ := j.In.(*os.File)
	local := file != nil && term.IsTerminal(int(file.Fd()))
	if j.Terminal == TerminalNone || j.Terminal == TerminalAuto && (j.Command != "" || !local) {
		return func() {}, j.In, nil
	}
	columns, rows := 80, 24
	if out, ok := j.Out.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
		if w, h, err := term.GetSize(int(out.Fd())); err == nil {
			columns, rows = w, h
		}
	}
	kind := os.Getenv("TERM")
	if kind == "" {
		kind = "xterm-256color"
	}
	payload := ssh.Marshal(struct {
		Type                         string
		Columns, Rows, Width, Height uint32
		Modes                        string
	}{kind, uint32(columns), uint32(rows), 0, 0, "\x00"})
	if err := ask(channel, "pty-req", payload); err != nil || !local {
		return func() {}, j.In, err
	}
	undo, err := MakeRaw(file, j.Out)
	if err != nil {
		return func() {}, j.In, fault.New(fault.Unavailable, "the terminal cannot be set up").WithReason("terminal").Wrapping(err)
	}
	watching, cancel := context.WithCancel(ctx)
	go watchSize(watching, j.Out, func(w, h int) {
		_, _ = channel.SendRequest("window-change", false, ssh.Marshal(struct{ Columns, Rows, Width, Height uint32 }{uint32(w), uint32(h), 0, 0}))
	})
	return func() { cancel(); undo() }, &escapes{Reader: file, lineStart: true}, nil
}

// MakeRaw puts the terminal into raw mode, and returns what puts it back.
func MakeRaw(in *os.File, out io.Writer) (func(), error) {
	state, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, err
	}
	undo := prepareOutput(out)
	return func() { undo(); _ = term.Restore(int(in.Fd()), state) }, nil
}

var errHangUp = errors.New("ended by ~.")

// escapes reads a terminal and acts on `~.` at the start of a line, as ssh does; `~~` is one tilde.
type escapes struct {
	io.Reader
	lineStart bool
	tilde     bool
}

func (e *escapes) Read(b []byte) (int, error) {
	if len(b) < 2 {
		return 0, io.ErrShortBuffer
	}
	// A tilde that was held back may come out with what follows it.
	n, err := e.Reader.Read(b[1:])
	out := 0
	for _, ch := range b[1 : 1+n] {
		if e.tilde {
			e.tilde = false
			switch ch {
			case '.':
				return out, errHangUp
			case '~':
			default:
				b[out] = '~'
				out++
			}
		} else if e.lineStart && ch == '~' {
			e.tilde, e.lineStart = true, false
			continue
		}
		b[out] = ch
		out++
		e.lineStart = ch == '\r' || ch == '\n'
	}
	return out, err
}
