// Package recorder begins the recordings of admitted sessions, as the roles that let them in say.
package recorder

import (
	"io"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/spool"
	"github.com/sallyport/sallyport/internal/role"
)

// Recorder is one agent's. A nil one records nothing, and refuses what must be recorded.
type Recorder struct {
	Spool    *spool.Spool
	Pictures gate.Pictures
	Host     identity.Host
	Now      func() time.Time
}

// What is to be recorded of a session: its Number'th shell or command, beginning with 1.
type What struct {
	Number   int
	Protocol string
	Server   string // the resource as people know it
	Resource string // inside it: NAMESPACE/POD/CONTAINER
	Command  string // empty for a login shell
	Terminal *recording.Terminal
	CopyOnly bool // a file copy, of which the bytes are counted

	Environment []string // that the client chose: a command can run what is in it
}

// Recording takes what one shell or command shows. Its methods return at once; those of a nil one, of a session that is not
// recorded, do nothing.
type Recording struct {
	tape *spool.Tape
	must bool // what is not recorded goes no further
}

// Begin begins a recording; nil where none is wanted. An error is a fault that refuses what was to be recorded. A recording that
// breaks later cuts the session, unless the roles say best_effort. End it.
func (r *Recorder) Begin(s *gate.Session, w What) (*Recording, error) {
	by, err := r.begin(s, w)
	if by == nil && err == nil {
		unrecorded(s)
	}
	return by, err
}

// unrecorded cuts a session that nobody records once a role wants it recorded, whatever it was let in by.
func unrecorded(s *gate.Session) {
	s.Keep("recorded", func() error {
		if s.Limits().Record != role.RecordStrict {
			return nil
		}
		return fault.New(fault.Denied, "this session must be recorded, and is not").WithReason("not_recorded").
			WithCause("a role sets record_session to strict").WithFix("connect again")
	})
}

func (r *Recorder) begin(s *gate.Session, w What) (*Recording, error) {
	mode := s.Limits().Record
	if mode == role.RecordOff {
		return nil, nil
	}
	var to *recording.Recipient
	if r != nil {
		picture, _ := r.Pictures.Current()
		to = picture.Authorities.Recording
	}
	if to == nil && mode == role.RecordStrict {
		return nil, fault.New(fault.Denied, "this session must be recorded, and the cluster keeps no recordings").WithReason("not_recorded").
			WithCause("a role sets record_session to strict").WithFix("an administrator sets auth.recordings in the auth server's config")
	}
	if to == nil {
		return nil, nil
	}
	broken := s.Cut
	if mode == role.RecordBestEffort {
		broken = func(error) { unrecorded(s) }
	}
	tape, err := r.Spool.Begin(r.start(s, w), to, broken)
	if err != nil && mode == role.RecordBestEffort {
		return nil, nil
	}
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the session cannot be recorded, so it is not let in").WithReason("not_recorded").
			WithCause("%s", fault.Of(err).Text).WithFix("%s", fault.Of(err).Fix).Wrapping(err)
	}
	return &Recording{tape, mode != role.RecordBestEffort}, nil
}

func (r *Recorder) start(s *gate.Session, w What) recording.Start {
	u := s.Identity()
	start := recording.Start{Name: recording.Name(s.ID(), w.Number), Time: r.Now().UTC(), Place: recording.Place{Cluster: r.Host.Cluster, Host: r.Host.ID, Server: w.Server, Protocol: w.Protocol},
		User: u.Name, Login: s.Action().Login, Resource: w.Resource, Command: clip(w.Command), Terminal: w.Terminal, Environment: w.Environment}
	if u.Device != nil {
		start.Device = u.Device.AssetTag
	}
	// Strict keeps copies too: the program that reads one may be another than its name says.
	if w.Terminal == nil && s.Limits().Record != role.RecordStrict {
		start.StreamMax, start.CopyOnly = role.RecordMost, w.CopyOnly
	}
	return start
}

// maxCommand is what a listing shows of a command; the audit log has more of it.
const maxCommand = 4 << 10

func clip(command string) string {
	if len(command) > maxCommand {
		return command[:maxCommand]
	}
	return command
}

// Shown takes bytes of a stream; p may be used again afterwards. Its error is that they are to go no further.
func (r *Recording) Shown(stream recording.Kind, p []byte) error {
	if r == nil {
		return nil
	}
	if err := r.tape.Shown(stream, p); err != nil && r.must {
		return err
	}
	return nil
}

// Taker reads from from, and shows the recording what was read first: nothing is done unrecorded. With a zero stream it only
// sees that the recording still goes.
func (r *Recording) Taker(from io.Reader, stream recording.Kind) io.Reader {
	return taker{from, r, stream}
}

type taker struct {
	io.Reader
	by     *Recording
	stream recording.Kind
}

// Read is of io.Reader.
func (t taker) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	if n > 0 {
		if err := t.by.Shown(t.stream, p[:n]); err != nil {
			return 0, err
		}
	}
	return n, err
}

// Shower writes to w what the recording was shown first: nobody sees anything unrecorded.
func (r *Recording) Shower(w io.Writer, stream recording.Kind) io.Writer { return shower{w, r, stream} }

type shower struct {
	io.Writer
	by     *Recording
	stream recording.Kind
}

// Write is of io.Writer.
func (s shower) Write(p []byte) (int, error) {
	if err := s.by.Shown(s.stream, p); err != nil {
		return 0, err
	}
	return s.Writer.Write(p)
}

// Resized says the terminal's new size.
func (r *Recording) Resized(columns, rows uint32) {
	if r != nil {
		r.tape.Resized(columns, rows)
	}
}

// End ends the recording; the first call counts.
func (r *Recording) End(e recording.End) {
	if r != nil {
		r.tape.End(e)
	}
}
