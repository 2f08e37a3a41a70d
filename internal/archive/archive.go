// Package archive keeps the cluster's session recordings: takes them from agents, lists them, and opens them for who may see
// them.
//
//	DIR/AB/NAME.rec                    a recording, sealed as its agent made it; AB are the first letters of its name
//	recording/NAME                     in store: where its entry lies
//	recording-at/TIME/NAME             in store: its entry
package archive

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// Kind is what roles' rules call recordings.
const Kind = "recording"

// ahead is how far an agent's clock may be ahead.
const ahead = time.Hour

// MaxPiece bounds what Take takes at once, in bytes.
const MaxPiece = 4 << 20

// reserve is what recordings leave free of their disk: state and audit log are often on the same, and nobody logs in once it is full.
const reserve = 1 << 30

// Pictures gives the current picture.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
}

// Audit records an event together with what it tells of.
type Audit interface {
	Record(ctx context.Context, ev event.Event, ops ...store.Op) (uint64, error)
}

// Service is the use case. A zero Dir keeps nothing, and takes nothing.
type Service struct {
	Dir      string
	Key      *recording.Identity
	Store    store.Store
	Pictures Pictures
	Audit    Audit
	Now      func() time.Time
	Reserve  int64 // bytes of the disk that are left free; 0: 1 GiB

	busy names
}

// entry is what is kept of a recording.
type entry struct {
	recording.Entry
	revision uint64
}

func nameKey(name string) string { return "recording/" + name }

const atPrefix = "recording-at/"

func (e *entry) key() string {
	return fmt.Sprintf("%s%016x/%s", atPrefix, e.Time.UnixMicro(), e.Name)
}

func (s *Service) file(name string) string { return filepath.Join(s.Dir, name[:2], name+".rec") }

// off is that nothing is kept here.
func (s *Service) off() error {
	if s.Dir == "" {
		return fault.New(fault.Unsupported, "this cluster keeps no recordings").WithReason("no_recordings").
			WithFix("set auth.recordings: {dir: DIRECTORY} in the auth server's config")
	}
	return nil
}

// find reads the entry of a recording; nil where there is none.
func (s *Service) find(ctx context.Context, name string) (*entry, error) {
	at, err := s.Store.Get(ctx, nameKey(name))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	rec, err := s.Store.Get(ctx, string(at.Value))
	if err != nil {
		return nil, fmt.Errorf("entry of recording %s: %w", name, err)
	}
	return decode(rec)
}

func decode(rec store.Record) (*entry, error) {
	e := &entry{}
	if err := json.Unmarshal(rec.Value, &e.Entry); err != nil {
		return nil, fmt.Errorf("stored %s: %w", rec.Key, err)
	}
	e.revision = rec.Revision
	return e, nil
}

// Take takes a piece of a recording from the agent that makes it, and returns how much of the recording is kept then: a piece
// for another place is not taken. After the last piece the recording is over, with its end or without. A piece that can
// never be taken is Denied, Invalid or Conflict.
func (s *Service) Take(ctx context.Context, host identity.Host, p recording.Piece) (int64, error) {
	if err := s.off(); err != nil {
		return 0, err
	}
	if !recording.ValidName(p.Name) || len(p.Data) > MaxPiece {
		return 0, bad("no name or piece of a recording")
	}
	defer s.busy.lock(p.Name)()
	e, err := s.find(ctx, p.Name)
	if err != nil {
		return 0, err
	}
	if e != nil && e.Host != host.ID {
		return 0, fault.New(fault.Denied, "recording %s is not of this agent", p.Name).WithReason("foreign_recording")
	}
	var was *entry
	if e != nil && e.State == recording.Going && s.lacks(e) { // its agent still has all of it
		was, e = e, nil
	}
	switch {
	case e == nil && p.Offset != 0:
		return 0, nil
	case e == nil:
		if e, err = s.begin(host, p.Name, p.Data); err != nil {
			return 0, err
		}
		if was != nil && was.key() != e.key() {
			return 0, bad("another recording by the name of one")
		}
		if was != nil {
			e.revision = was.revision
		}
		progress, err := recording.Progress{}.Advance(bytes.NewReader(p.Data[e.Length:]))
		if err != nil {
			return 0, bad("a recording with a chunk that is none")
		}
		e.Progress, e.Length = progress, 0
	case p.Offset != e.Length || e.State != recording.Going:
		return e.Length, nil
	default:
		before := e.Progress.Length
		if e.Progress, err = e.Progress.Advance(bytes.NewReader(p.Data)); err != nil || e.Progress.Length-before != int64(len(p.Data)) {
			return 0, bad("a recording with a chunk that is none, or of another place")
		}
	}
	return s.keep(ctx, e, p.Data, p.Last)
}

func full(err error) error {
	return fault.New(fault.Unavailable, "the auth server has no space for recordings").WithReason("recordings_full").
		WithFix("make room on the disk of auth.recordings.dir, or set auth.recordings.keep").Wrapping(err)
}

// lacks reports whether less of a recording is there than was kept: the directory is older than the state, or damaged.
func (s *Service) lacks(e *entry) bool {
	info, err := os.Stat(s.file(e.Name))
	return errors.Is(err, os.ErrNotExist) || err == nil && info.Size() < e.Length
}

func bad(why string) error {
	return fault.New(fault.Invalid, "%s", why).WithReason("bad_recording")
}

// begin reads whose recording begins with a piece; its Length is then that of the header.
func (s *Service) begin(host identity.Host, name string, piece []byte) (*entry, error) {
	o, err := recording.NewOpener(bytes.NewReader(piece), s.Key)
	if err != nil || o.Name() != name {
		return nil, bad("a recording that cannot be opened")
	}
	f, err := o.Next()
	if err != nil {
		return nil, bad("a recording without a beginning")
	}
	start, err := f.Start()
	if err != nil || start.Name != name {
		return nil, bad("a recording without a beginning")
	}
	if start.Host != host.ID || start.Cluster != host.Cluster {
		return nil, fault.New(fault.Denied, "recording %s is of another agent than it says", name).WithReason("foreign_recording")
	}
	if start.Time.After(s.Now().Add(ahead)) { // it would be listed first, and kept, for as long as its agent likes
		return nil, bad("a recording of the future")
	}
	if host.Name != "" && host.Role == identity.RoleNode {
		start.Server = host.Name
	}
	start.Environment = nil
	_, head, err := recording.ReadHeader(bytes.NewReader(piece))
	return &entry{Entry: recording.Entry{Start: start, State: recording.Going, Length: head}}, err
}

// keep writes a piece behind what is there, then what is known of the recording.
func (s *Service) keep(ctx context.Context, e *entry, piece []byte, last bool) (int64, error) {
	if left, known := free(s.Dir); known && left < cmp.Or(s.Reserve, reserve)+int64(len(piece)) {
		return 0, full(nil)
	}
	if err := s.write(e, piece); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			return 0, full(err)
		}
		return 0, err
	}
	e.Length, e.Changed = e.Length+int64(len(piece)), s.Now().UTC()
	if last {
		e.State = recording.Short
		if e.Progress.Final {
			e.State = recording.Whole
		}
		sum, err := s.sum(e.Name)
		if err != nil {
			return 0, err
		}
		e.SHA256 = sum
	}
	raw, err := json.Marshal(e.Entry)
	if err != nil {
		return 0, err
	}
	ops := []store.Op{store.CheckRevision(e.key(), e.revision), store.Put(e.key(), raw)}
	if e.revision == 0 {
		ops = append(ops, store.Create(nameKey(e.Name), []byte(e.key())))
	}
	if !last {
		_, err = s.Store.Txn(ctx, ops)
	} else { // also where the agent waited no longer for the sum of a long one: it would ask for it anew each time
		_, err = s.Audit.Record(context.WithoutCancel(ctx), e.event(), ops...)
	}
	if err != nil {
		return 0, fmt.Errorf("keep recording %s: %w", e.Name, err)
	}
	return e.Length, nil
}

// event says what a recording is, once it is over: whoever changes its file afterwards shows.
func (e *entry) event() event.Event {
	return event.Event{Kind: event.SessionRecorded, User: e.User, Success: e.State == recording.Whole,
		Message: fmt.Sprintf("recording %s, %d bytes, SHA-256 %s", e.State, e.Length, e.SHA256),
		Session: &event.Session{SessionID: recording.SessionOf(e.Name), Login: e.Login, ServerID: e.Host, ServerName: e.Server,
			Protocol: e.Protocol, Recording: e.Name},
		Resource: &event.Resource{ResourceKind: Kind, ResourceName: cmp.Or(e.Resource, e.Name)}}
}

// write writes a piece durably at the entry's length; what a server that died wrote behind it is written over.
func (s *Service) write(e *entry, piece []byte) error {
	dir := filepath.Dir(s.file(e.Name))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make recordings' directory: %w", err)
	}
	f, err := os.OpenFile(s.file(e.Name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open recording: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() < e.Length {
		err = errors.New("it is shorter than it was")
	}
	if err == nil {
		err = f.Truncate(e.Length)
	}
	if err == nil {
		_, err = f.WriteAt(piece, e.Length)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	if e.Length == 0 {
		return syncDir(dir)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (s *Service) sum(name string) (string, error) {
	f, err := os.Open(s.file(name))
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read recording: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// may asks access whether the caller may do something to a recording.
func (s *Service) may(from identity.Caller, verb string, e *entry) error {
	if from.Local {
		return nil
	}
	if from.User == nil {
		return fault.New(fault.Denied, "recordings are for users").WithReason("no_identity")
	}
	picture, _ := s.Pictures.Current()
	t := target.Target{Kind: target.Administration, Name: Kind, ID: e.Name, Object: map[string]any{
		"kind": Kind, "name": e.Name, "user": e.User, "login": e.Login, "hostname": e.Server}}
	d, in := picture.Decide(from.User, t, target.Action{Verb: verb, From: from.Addr}, s.Now())
	if !d.Allowed {
		return access.Refusal(d, in)
	}
	return nil
}

// names lets one at a time work on a name.
type names struct {
	mu   sync.Mutex
	held map[string]chan struct{} // guarded by mu
}

func (n *names) lock(name string) (unlock func()) {
	for {
		n.mu.Lock()
		if n.held == nil {
			n.held = map[string]chan struct{}{}
		}
		other := n.held[name]
		if other == nil {
			mine := make(chan struct{})
			n.held[name] = mine
			n.mu.Unlock()
			return func() {
				n.mu.Lock()
				delete(n.held, name)
				n.mu.Unlock()
				close(mine)
			}
		}
		n.mu.Unlock()
		<-other
	}
}
