package node

import (
	"context"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/shell"
)

// record begins the recording of what is about to start.
func (s *sessionChannel) record(command string) (err error) {
	w := recorder.What{Number: s.conn.number(), Protocol: "ssh", Server: s.conn.node.name(), Command: command, Environment: s.env}
	if s.terminal != nil {
		w.Terminal = &recording.Terminal{Type: s.terminal.Type, Columns: s.terminal.Size.Columns, Rows: s.terminal.Size.Rows}
	}
	s.recorded, err = s.conn.node.Recordings.Begin(s.conn.session, w)
	return err
}

// number is that of the connection's next recording.
func (c *connection) number() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts.recorded++
	return c.counts.recorded
}

// end is how a process ended, as its recording has it.
func (s *sessionChannel) end(exit shell.Exit) recording.End {
	if cause := context.Cause(s.conn.session.Context()); cause != nil {
		return recording.End{Reason: fault.Of(cause).Reason, Message: fault.Of(cause).Text}
	}
	if exit.Signal != "" {
		return recording.End{Reason: "signal", Message: exit.Signal}
	}
	status := int(exit.Status)
	return recording.End{ExitCode: &status}
}
