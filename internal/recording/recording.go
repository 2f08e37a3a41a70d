// Package recording is the format of a session's recording: what its person saw and sent, in chunks that are compressed,
// checksummed and sealed for the cluster's auth servers. docs/protocol/recording.md has the bytes and test vectors.
package recording

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/live"
)

// Bounds, in bytes.
const (
	MaxData  = 64 << 10  // of one frame; longer ones are several
	MaxChunk = 512 << 10 // of the frames of one chunk
	maxFrame = MaxData + 32
	maxText  = 8 << 10
)

// Name is a recording's name: its session's id, and for the second and further ones of a session a number, "ID-2".
func Name(session string, number int) string {
	if number <= 1 {
		return session
	}
	return session + "-" + strconv.Itoa(number)
}

// maxNumber is how many recordings a session may have.
const maxNumber = 1 << 20

// ValidName reports whether s is a name that Name makes.
func ValidName(s string) bool {
	if len(s) <= 36 {
		return live.ValidID(s)
	}
	n, err := strconv.Atoi(s[37:])
	return err == nil && n > 1 && n <= maxNumber && Name(s[:36], n) == s && live.ValidID(s[:36])
}

// SessionOf is the id of the session that a name's recording is of.
func SessionOf(name string) string { return name[:min(36, len(name))] }

// Start is whose session it is, where and when. It is the first frame of each recording.
type Start struct {
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	Place
	User     string    `json:"user"`
	Device   string    `json:"device,omitempty"` // asset tag
	Login    string    `json:"login,omitempty"`
	Resource string    `json:"resource,omitempty"` // of a cluster: NAMESPACE/POD/CONTAINER
	Command  string    `json:"command,omitempty"`  // empty for a login shell
	Terminal *Terminal `json:"terminal,omitempty"` // nil where there is none
	// Environment are the variables that the client chose, NAME=VALUE. Listings do not have them.
	Environment []string `json:"environment,omitempty"`

	CopyOnly  bool  `json:"copy_only,omitempty"`  // a file copy: how many bytes went through, not which
	StreamMax int64 `json:"stream_max,omitempty"` // bytes of each stream that are kept; 0: all
}

// Place is where a session is, and by which door.
type Place struct {
	Cluster  string `json:"cluster"`
	Host     string `json:"host"`     // the UUID of the agent that records
	Server   string `json:"server"`   // the resource as people know it
	Protocol string `json:"protocol"` // ssh, kubernetes
}

// Terminal is the terminal that a session began with.
type Terminal struct {
	Type    string `json:"type,omitempty"`
	Columns uint32 `json:"columns"`
	Rows    uint32 `json:"rows"`
}

// Check refuses what cannot be shown in a listing.
func (s *Start) Check() error {
	if !ValidName(s.Name) || !live.ValidID(s.Host) || s.Time.IsZero() || s.User == "" {
		return errors.New("a recording without name, host, time or user")
	}
	for _, text := range []string{s.Cluster, s.Server, s.Protocol, s.User, s.Device, s.Login, s.Resource, s.Command} {
		if len(text) > maxText {
			return errors.New("a recording with a text that is too long")
		}
	}
	return nil
}

// End is how a session ended. It is the last frame of a recording that is whole.
type End struct {
	Reason   string         `json:"reason,omitempty"` // a stable word where something other than the person ended it
	Message  string         `json:"message,omitempty"`
	ExitCode *int           `json:"exit_code,omitempty"`
	Bytes    map[Kind]int64 `json:"bytes,omitempty"` // that went through, by stream, kept or not
}

// Kind is what a frame holds. Its numbers are part of the format.
type Kind uint8

// The kinds of frame.
const (
	Began  Kind = iota + 1 // Data: a Start as JSON
	Output                 // what the person was shown; with a terminal all of it
	Errors                 // standard error, where it is a stream of its own
	Input                  // what the person sent, where no terminal shows it
	Resize                 // Data: columns and rows, 32 bits each
	Lost                   // Data: the stream's Kind, then 64 bits: how many of its bytes are not kept here
	Ended                  // Data: an End as JSON
)

// Stream reports whether a kind is one of the streams.
func (k Kind) Stream() bool { return k == Output || k == Errors || k == Input }

// Frame is one thing that happened, At after the start.
type Frame struct {
	Kind Kind
	At   time.Duration // in steps of a millisecond
	Data []byte
}

// AppendFrame appends a frame's bytes: kind, At in milliseconds and length as unsigned varints, data.
func AppendFrame(dst []byte, f Frame) []byte {
	dst = append(dst, byte(f.Kind))
	dst = binary.AppendUvarint(dst, uint64(max(0, f.At.Milliseconds())))
	dst = binary.AppendUvarint(dst, uint64(len(f.Data)))
	return append(dst, f.Data...)
}

var errFrame = errors.New("a frame that is none")

// maxAt bounds At: no session lives longer.
const maxAt = 366 * 24 * time.Hour

// CutFrame takes the first frame off b. Its Data points into b.
func CutFrame(b []byte) (f Frame, rest []byte, err error) {
	if len(b) == 0 {
		return f, nil, io.EOF
	}
	f.Kind, b = Kind(b[0]), b[1:]
	at, n := binary.Uvarint(b)
	if n <= 0 || at > uint64(maxAt.Milliseconds()) {
		return f, nil, errFrame
	}
	f.At = time.Duration(at) * time.Millisecond
	length, m := binary.Uvarint(b[n:])
	if m <= 0 || length > MaxData || length > uint64(len(b)-n-m) {
		return f, nil, errFrame
	}
	b = b[n+m:]
	f.Data, rest = b[:length], b[length:]
	return f, rest, f.check()
}

func (f *Frame) check() error {
	switch {
	case f.Kind < Began || f.Kind > Ended,
		f.Kind == Resize && len(f.Data) != 8,
		f.Kind == Lost && (len(f.Data) != 9 || !Kind(f.Data[0]).Stream()):
		return errFrame
	}
	return nil
}

// ReadFrame reads one frame of a stream of them; io.EOF at its end.
func ReadFrame(r interface {
	io.Reader
	io.ByteReader
}) (Frame, error) {
	kind, err := r.ReadByte()
	if err != nil {
		return Frame{}, err
	}
	at, err := binary.ReadUvarint(r)
	if err != nil {
		return Frame{}, torn(err)
	}
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return Frame{}, torn(err)
	}
	if length > MaxData || at > uint64(maxAt.Milliseconds()) {
		return Frame{}, errFrame
	}
	f := Frame{Kind: Kind(kind), At: time.Duration(at) * time.Millisecond, Data: make([]byte, length)}
	if _, err := io.ReadFull(r, f.Data); err != nil {
		return Frame{}, torn(err)
	}
	return f, f.check()
}

func torn(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ResizeFrame says a terminal's new size.
func ResizeFrame(at time.Duration, columns, rows uint32) Frame {
	data := binary.BigEndian.AppendUint32(nil, columns)
	return Frame{Resize, at, binary.BigEndian.AppendUint32(data, rows)}
}

// Size is what a Resize frame says.
func (f *Frame) Size() (columns, rows uint32) {
	return binary.BigEndian.Uint32(f.Data), binary.BigEndian.Uint32(f.Data[4:])
}

// LostFrame says how many bytes of a stream are not kept.
func LostFrame(at time.Duration, stream Kind, bytes int64) Frame {
	return Frame{Lost, at, binary.BigEndian.AppendUint64([]byte{byte(stream)}, uint64(bytes))}
}

// Missing is what a Lost frame says.
func (f *Frame) Missing() (stream Kind, bytes int64) {
	return Kind(f.Data[0]), int64(binary.BigEndian.Uint64(f.Data[1:]) & (1<<63 - 1))
}

// JSONFrame makes the first and last frames.
func JSONFrame(kind Kind, at time.Duration, v any) (Frame, error) {
	raw, err := json.Marshal(v)
	if err == nil && len(raw) > MaxData {
		err = errors.New("too long for a frame")
	}
	return Frame{kind, at, raw}, err
}

// Start reads a Began frame.
func (f *Frame) Start() (Start, error) {
	var s Start
	if f.Kind != Began {
		return s, errors.New("a recording that does not begin")
	}
	if err := json.Unmarshal(f.Data, &s); err != nil {
		return s, fmt.Errorf("a recording's start: %w", err)
	}
	return s, s.Check()
}

// End reads an Ended frame.
func (f *Frame) End() (e End, err error) {
	if f.Kind != Ended {
		return e, errFrame
	}
	return e, json.Unmarshal(f.Data, &e)
}

// Copies reports whether a command without a terminal is one of those that copy a file and do nothing else: what `kubectl
// cp` runs in the container (k8s.io/kubectl, pkg/cmd/cp), and not a word else, for tar can be told to run programs.
func Copies(argv []string) bool {
	if len(argv) < 3 || argv[0] != "tar" {
		return false
	}
	argv = argv[1:]
	if len(argv) > 3 && argv[0] == "--no-same-permissions" && argv[1] == "--no-same-owner" {
		argv = argv[2:]
	}
	if argv[1] != "-" {
		return false
	}
	switch rest := argv[2:]; argv[0] {
	case "cf": // from there: tar cf - PATH
		return len(rest) == 1 && !strings.HasPrefix(rest[0], "-")
	case "-xmf", "xmf", "-xf", "xf": // to there: tar -xmf - [-C DIR]
		return len(rest) == 0 || len(rest) == 2 && rest[0] == "-C"
	}
	return false
}
