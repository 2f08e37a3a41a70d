package kube

import (
	"context"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/kube/stream"
	"github.com/sallyport/sallyport/internal/recording"
)

// Recorded is a Config's Record that records by r.
func Recorded(r *recorder.Recorder) func(context.Context, Start) (stream.Tape, error) {
	return func(_ context.Context, s Start) (stream.Tape, error) {
		w := recorder.What{Number: 1, Protocol: "kubernetes", Server: s.Cluster, Command: s.Line(),
			Resource: strings.TrimSuffix(s.Namespace+"/"+s.Pod+"/"+s.Container, "/")}
		switch {
		case s.TTY:
			w.Terminal = &recording.Terminal{} // the first size follows
		default:
			w.CopyOnly = recording.Copies(s.Command)
		}
		by, err := r.Begin(s.Session, w)
		if by == nil || err != nil {
			return nil, err
		}
		return &reel{by: by, session: s.Session, echo: s.TTY && s.Stdout && !s.Attach}, nil
	}
}

// reel shows a recording what a command's streams carry.
type reel struct {
	by      *recorder.Recording
	session *gate.Session
	echo    bool // a terminal shows what is typed, but for secrets
	exit    *int
}

// Shown is of stream.Tape.
func (t *reel) Shown(s stream.Stream, p []byte) error {
	switch {
	case s == stream.Stdout:
		return t.by.Shown(recording.Output, p)
	case s == stream.Stderr:
		return t.by.Shown(recording.Errors, p)
	case s == stream.Stdin && t.echo:
		return t.by.Shown(0, nil)
	case s == stream.Stdin:
		return t.by.Shown(recording.Input, p)
	}
	return nil
}

// Unheard is of stream.Tape.
func (t *reel) Unheard() { t.echo = false }

// Resized is of stream.Tape.
func (t *reel) Resized(columns, rows uint16) { t.by.Resized(uint32(columns), uint32(rows)) }

// Exited is of stream.Tape.
func (t *reel) Exited(code int) { t.exit = &code }

// Close is of stream.Tape.
func (t *reel) Close() error {
	e := recording.End{ExitCode: t.exit}
	if cause := context.Cause(t.session.Context()); cause != nil && t.exit == nil {
		e.Reason, e.Message = fault.Of(cause).Reason, fault.Of(cause).Text
	}
	t.by.End(e)
	return nil
}
