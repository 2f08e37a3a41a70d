package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/node/ask"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/shell"
)

// maxEnv is how many variables of a client's are kept, maxEnvBytes how long they are together: a recording has them all.
const (
	maxEnv      = 32
	maxEnvBytes = 4 << 10
)

// sessionChannel is one session (RFC 4254 section 6): a login's shell, command or subsystem.
type sessionChannel struct {
	setup
	conn     *connection
	channel  ssh.Channel
	login    *shell.Login
	recorded *recorder.Recording // nil where it is not recorded; set once the process is about to start
	started  bool
	pumps    sync.WaitGroup

	mu      sync.Mutex
	process *shell.Process // guarded by mu; nil until started
	ended   bool           // guarded by mu: by the process's end, or by a cut
	told    chan struct{}  // closed once the cause of a cut was told
}

// setup is what a client asks for before it starts something.
type setup struct {
	terminal *shell.Terminal // nil where none was asked for
	env      []string
	agent    *shell.Socket // nil where no agent is forwarded
}

func (c *connection) openSession(ch ssh.NewChannel) {
	c.mu.Lock()
	noMore := c.noMore
	c.mu.Unlock()
	if noMore {
		_ = ch.Reject(ssh.Prohibited, "this connection was closed to further sessions")
		return
	}
	login, err := c.node.lookup(c.ssh.User())
	if err != nil {
		c.node.Log.Warn("ssh: login refused", "login", c.ssh.User(), "err", err)
		c.denied(fault.Of(err).Text, nil)
		_ = ch.Reject(ssh.Prohibited, fault.Of(err).Lines())
		return
	}
	channel, requests, err := ch.Accept()
	if err != nil {
		return
	}
	s := &sessionChannel{conn: c, channel: channel, login: login, told: make(chan struct{})}
	c.mu.Lock()
	c.sessions[s] = struct{}{}
	c.mu.Unlock()
	if c.session.Context().Err() != nil { // the cut may have missed this one
		s.cut(causeLines(context.Cause(c.session.Context())))
	}
	s.serve(requests)
	c.mu.Lock()
	delete(c.sessions, s)
	c.mu.Unlock()
}

// serve answers the channel's requests until it is closed, and returns once nothing of it is left.
func (s *sessionChannel) serve(requests <-chan *ssh.Request) {
	for r := range requests {
		ok := s.request(r)
		if r.WantReply {
			_ = r.Reply(ok, nil)
		}
		if s.process != nil && !s.started { // the reply goes ahead of the output
			s.started = true
			s.pumps.Go(s.carry)
		}
	}
	if s.process != nil {
		s.process.Kill()
	}
	if s.agent != nil {
		s.agent.Close()
	}
	s.pumps.Wait()
	_ = s.channel.Close()
}

func (s *sessionChannel) request(r *ssh.Request) bool {
	switch r.Type {
	case "env":
		return s.setEnv(r.Payload)
	case "pty-req":
		return s.setTerminal(r.Payload)
	case "window-change":
		return s.resize(r.Payload)
	case "signal":
		var m struct{ Name string }
		return ssh.Unmarshal(r.Payload, &m) == nil && s.process != nil && s.process.Signal(m.Name) == nil
	case "shell":
		return len(r.Payload) == 0 && s.start("", nil)
	case "exec":
		var m struct{ Command string }
		return ssh.Unmarshal(r.Payload, &m) == nil && s.exec(m.Command)
	case "subsystem":
		var m struct{ Name string }
		return ssh.Unmarshal(r.Payload, &m) == nil && s.subsystem(m.Name)
	case "auth-agent-req@openssh.com":
		return s.forwardAgent()
	case "x11-req":
		s.deny("X11 forwarding is not offered", nil)
	}
	return false
}

// deny refuses a request; its reason goes to the person's standard error, because SSH has no place for it.
func (s *sessionChannel) deny(text string, what *event.Action) {
	s.conn.denied(text, what)
	s.say(text)
}

func (s *sessionChannel) say(text string) {
	if s.terminal != nil {
		_, _ = io.WriteString(s.channel.Stderr(), crlf(text))
		return
	}
	_, _ = io.WriteString(s.channel.Stderr(), text+"\n")
}

func (s *sessionChannel) setEnv(payload []byte) bool {
	var m struct{ Name, Value string }
	if ssh.Unmarshal(payload, &m) != nil || !shell.Accepts(m.Name, m.Value) || len(s.env) >= maxEnv || s.process != nil {
		return false
	}
	size := len(m.Name) + 1 + len(m.Value)
	for _, v := range s.env {
		size += len(v)
	}
	if size > maxEnvBytes {
		return false
	}
	s.env = append(s.env, m.Name+"="+m.Value)
	return true
}

func (s *sessionChannel) setTerminal(payload []byte) bool {
	t, ok := ask.Terminal(payload)
	if !ok || s.terminal != nil || s.process != nil {
		return false
	}
	if !s.conn.session.Limits().PTY {
		s.deny("a terminal is not granted", nil)
		return false
	}
	s.terminal = t
	return true
}

func (s *sessionChannel) resize(payload []byte) bool {
	var size shell.Size
	if ssh.Unmarshal(payload, &size) != nil || s.terminal == nil {
		return false
	}
	s.conn.session.Touch()
	s.terminal.Size = size
	s.recorded.Resized(size.Columns, size.Rows)
	return s.process == nil || s.process.Resize(size) == nil
}

// exec runs a command; that it is in the audit log comes first.
func (s *sessionChannel) exec(command string) bool {
	if s.process != nil {
		return false
	}
	events := []event.Event{{Kind: event.Exec, Success: true, Action: &event.Action{Command: command}}}
	if path, direction, ok := ask.Copy(command); ok {
		events = append(events, event.Event{Kind: event.SCP, Success: true, Action: &event.Action{Path: path, Direction: direction}})
	}
	for _, ev := range events {
		if err := s.conn.session.Record(s.conn.ctx, ev); err != nil {
			s.say(fault.Of(err).Lines())
			return false
		}
	}
	return s.start(command, nil)
}

func (s *sessionChannel) subsystem(name string) bool {
	if s.process != nil {
		return false
	}
	if name != "sftp" {
		s.deny("this node has no such subsystem", &event.Action{Command: name})
		return false
	}
	s.terminal = nil // SFTP is binary
	return s.start(shell.Quote(s.conn.node.SFTP), s.noteFile)
}

// noteFile writes what SFTP does to a file to the audit log, before it is done.
func (s *sessionChannel) noteFile(a shell.FileAction) error {
	return s.conn.session.Record(s.conn.ctx, event.Event{Kind: event.SCP, Success: true,
		Action: &event.Action{Path: a.Path, Target: a.Target, Direction: a.Direction, Verb: a.Verb}})
}

// start starts the process. With a note, what the client sends is watched as SFTP.
func (s *sessionChannel) start(command string, note func(shell.FileAction) error) bool {
	if s.process != nil || s.conn.session.Context().Err() != nil { // what was cut starts nothing more
		return false
	}
	if note == nil { // files that SFTP carries are on record one by one
		if err := s.record(command); err != nil {
			s.conn.denied(fault.Of(err).Text, &event.Action{Command: command})
			s.say(fault.Of(err).Lines())
			return false
		}
	}
	p, err := shell.Start(shell.Spec{Login: s.login, Command: command, Terminal: s.terminal, Env: s.environment()})
	if err != nil {
		s.conn.node.Log.Error("ssh: start", "login", s.login.Name, "err", err)
		s.recorded.End(recording.End{Reason: "not_started"})
		s.say(fault.Of(err).Lines())
		return false
	}
	s.mu.Lock()
	s.process = p
	ended := s.ended
	s.mu.Unlock()
	if ended {
		p.Kill()
	}
	// Input is not waited for: it ends with the channel, and the process's end with the output.
	s.pumps.Go(func() { s.input(p, note) })
	return true
}

func (s *sessionChannel) environment() []string {
	env := append([]string(nil), s.env...)
	client, port := "UNKNOWN", "65535" // as sshd has it where there is no address
	if a, ok := s.conn.ssh.RemoteAddr().(*net.TCPAddr); ok {
		host, p, err := net.SplitHostPort(a.String())
		if err == nil {
			client, port = host, p
		}
	}
	env = append(env, "SSH_CONNECTION="+client+" "+port+" 127.0.0.1 22", "SSH_CLIENT="+client+" "+port+" 22")
	if s.agent != nil {
		env = append(env, "SSH_AUTH_SOCK="+s.agent.Path)
	}
	return env
}

// input carries what the person types.
func (s *sessionChannel) input(p *shell.Process, note func(shell.FileAction) error) {
	shown := recording.Input
	if s.terminal != nil && ask.Echoes(s.terminal.Modes) { // it shows what is typed, but for secrets
		shown = 0
	}
	from := s.recorded.Taker(touching{s.channel, s.conn}, shown)
	var err error
	if note != nil {
		err = shell.WatchSFTP(p.Stdin, from, note)
	} else {
		err = pump(p.Stdin, from)
	}
	var f *fault.Error
	if errors.As(err, &f) {
		s.cut(f.Lines())
		return
	}
	if s.terminal == nil {
		p.Stdin.Close()
	}
}

// carry brings the output and then the way in which the process ended.
func (s *sessionChannel) carry() {
	p := s.process
	var out sync.WaitGroup
	out.Go(func() { _ = pump(s.recorded.Shower(s.channel, recording.Output), p.Stdout) })
	out.Go(func() { _ = pump(s.recorded.Shower(s.channel.Stderr(), recording.Errors), p.Stderr) })
	exit := p.Wait()
	out.Wait()
	s.mu.Lock()
	cut := s.ended
	s.ended = true
	s.mu.Unlock()
	s.recorded.End(s.end(exit))
	if cut {
		<-s.told
		p.Close()
		return
	}
	s.report(exit)
	p.Close() // before the channel: what the process left in the background is not the session's any more
	_ = s.channel.Close()
}

// report sends exit-status or exit-signal (RFC 4254 section 6.10).
func (s *sessionChannel) report(exit shell.Exit) {
	if exit.Signal != "" {
		_, _ = s.channel.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Signal        string
			Core          bool
			Message, Lang string
		}{exit.Signal, exit.Core, "", ""}))
		return
	}
	_, _ = s.channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(exit.Status)}))
}

// cut ends the process and tells the person why; the status is that of a failure of ssh's own.
func (s *sessionChannel) cut(lines string) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended = true
	p := s.process
	s.mu.Unlock()
	defer close(s.told)
	if p != nil {
		p.Kill()
	}
	s.say(lines)
	s.report(shell.Exit{Status: 255})
	_ = s.channel.Close()
}

// touching tells the gate that the person did something.
type touching struct {
	io.Reader
	conn *connection
}

func (t touching) Read(b []byte) (int, error) {
	n, err := t.Reader.Read(b)
	if n > 0 {
		t.conn.session.Touch()
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

func pump(to io.Writer, from io.Reader) error {
	buf, _ := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	_, err := io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, *buf)
	return err
}
