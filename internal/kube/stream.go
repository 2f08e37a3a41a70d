package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/kube/request"
	"github.com/sallyport/sallyport/internal/kube/stream"
)

// Start is a command's session that is about to begin: an exec, or an attach, which has no command of its own.
type Start struct {
	Session        *gate.Session
	Cluster        string
	Namespace, Pod string
	Attach         bool // to what runs: whether that has a terminal is not for the client to say
	request.Options
}

// carry ends a command's streams, or those of forwarded ports, here and at the server, and carries them until they are over.
func (x *exchange) carry(ctx context.Context, w http.ResponseWriter, r *http.Request, limits access.Limits) error {
	tape, err := x.tape(ctx)
	if err != nil {
		f := fault.Of(err)
		x.session.Cut(f)
		_ = x.record(http.StatusForbidden, f.Text)
		refuse(w, x.request.Object, http.StatusForbidden, f)
		return f
	}
	session, err := x.open(ctx, w, r, limits, tape)
	if err != nil {
		if tape != nil {
			_ = tape.Close()
		}
		return err
	}
	exit, why := session.Carry(ctx)
	if exit != nil {
		x.session.Exited(*exit)
	}
	if why != nil {
		x.session.Cut(why) // its end's record says it
	}
	return why
}

// tape is what the session is shown to, nil where none is wanted.
func (x *exchange) tape(ctx context.Context) (stream.Tape, error) {
	if x.door.Record == nil || x.offer.Forward {
		return nil, nil
	}
	o := x.request.Object
	return x.door.Record(ctx, Start{Session: x.session, Cluster: x.visit.Cluster.Name,
		Namespace: o.Namespace, Pod: o.Name, Attach: x.request.Stream == request.Attach, Options: x.request.Options})
}

// open asks the server first, and the client then. What the server answers in place of a switch goes to the client as it is.
func (x *exchange) open(ctx context.Context, w http.ResponseWriter, r *http.Request, limits access.Limits, tape stream.Tape) (*stream.Session, error) {
	req := &http.Request{Method: r.Method, URL: x.address(), Header: http.Header{}}
	if agent := r.Header["User-Agent"]; len(agent) == 1 {
		req.Header["User-Agent"] = agent
	}
	if !x.offer.Forward {
		req.URL.RawQuery = x.request.Options.Query()
	}
	x.identify(req.Header, limits)
	conn, err := x.server.Dial(ctx)
	if err != nil {
		x.failed(w, err)
		return nil, err
	}
	opened, err := x.offer.Open(ctx, conn, req)
	var no *stream.Refused
	switch {
	case errors.As(err, &no):
		if rerr := x.record(no.Code, http.StatusText(no.Code)); rerr != nil {
			x.failed(w, rerr)
			return nil, rerr
		}
		if no.Type != "" {
			w.Header().Set("Content-Type", no.Type)
		}
		w.WriteHeader(no.Code)
		_, _ = w.Write(no.Body)
		return nil, err
	case err != nil:
		x.failed(w, err)
		return nil, err
	}
	session, err := opened.Accept(w, r, witness{x}, tape)
	if err != nil {
		opened.Close()
		x.door.Log.Debug("a client did not switch", "err", err)
	}
	return session, err
}

// witness notes what a stream does.
type witness struct{ *exchange }

// Touch is of stream.Witness.
func (w witness) Touch() { w.session.Touch() }

// Forwarding is of stream.Witness.
func (w witness) Forwarding(port uint16) error {
	return w.note(event.Action{Target: w.pod(port)}, "")
}

// Forwarded is of stream.Witness.
func (w witness) Forwarded(f stream.Forward) {
	// It is over whether or not this can be written; that it began is on record.
	_ = w.note(event.Action{Target: w.pod(f.Port), Traffic: &event.Traffic{Sent: f.Sent, Received: f.Received, Millis: max(1, f.Took.Milliseconds())}}, "closed")
}

func (w witness) note(a event.Action, message string) error {
	return w.session.Note(context.WithoutCancel(w.session.Context()), event.Event{Kind: event.Port, Success: true, Message: message, Action: &a})
}

func (w witness) pod(port uint16) string {
	return fmt.Sprintf("%s:%d", nameOf(w.request.Object), port)
}
