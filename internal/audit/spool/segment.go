package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
)

const segmentSuffix = ".jsonl"

// segment is one file of the spool: entries first, first+1, …, each a line; ends[i] is where line i ends.
type segment struct {
	name  string
	file  *os.File
	first uint64
	ends  []int64
}

func (g *segment) last() uint64 { return g.first + uint64(len(g.ends)) - 1 }

func (g *segment) length() int64 {
	if len(g.ends) == 0 {
		return 0
	}
	return g.ends[len(g.ends)-1]
}

func (g *segment) start(seq uint64) int64 {
	if seq == g.first {
		return 0
	}
	return g.ends[seq-g.first-1]
}

func (g *segment) size(seq uint64) int64 { return g.ends[seq-g.first] - g.start(seq) }

func (g *segment) end(seq uint64) int64 { return g.ends[seq-g.first] }

// lines are the lines of some entries, their newlines included.
func (g *segment) lines(from, to uint64) ([]byte, error) {
	b := make([]byte, g.end(to)-g.start(from))
	if _, err := g.file.ReadAt(b, g.start(from)); err != nil {
		return nil, fmt.Errorf("read audit spool: %w", err)
	}
	return b, nil
}

func (s *Spool) fileOfLocked(seq uint64) *segment {
	for _, f := range s.files {
		if seq >= f.first && seq < f.first+uint64(len(f.ends)) {
			return f
		}
	}
	return nil
}

func (s *Spool) closeFiles() {
	for _, f := range s.files {
		_ = f.file.Close() // every line that counts has been synced
	}
	s.files = nil
}

// recover reads the files that are there. All that is on disk counts as waiting.
func (s *Spool) recover() error {
	names, err := filepath.Glob(filepath.Join(s.cfg.Dir, "*"+segmentSuffix))
	if err != nil {
		return fmt.Errorf("read audit spool: %w", err)
	}
	for i, name := range names { // Glob sorts, and names have one length
		first, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), segmentSuffix), 16, 64)
		if err != nil || first == 0 {
			return damaged(name, errors.New("its name is no number"))
		}
		f, err := os.OpenFile(name, os.O_RDWR, 0o600)
		if err != nil {
			return fmt.Errorf("open audit spool: %w", err)
		}
		g := &segment{name: name, file: f, first: first}
		s.files = append(s.files, g)
		if i == 0 {
			s.acked = first - 1
		}
		if err := s.recoverFile(g, i == 0, i == len(names)-1); err != nil {
			return err
		}
	}
	return nil
}

func (s *Spool) recoverFile(g *segment, oldest, newest bool) error {
	b, err := io.ReadAll(g.file)
	if err != nil {
		return fmt.Errorf("read audit spool: %w", err)
	}
	whole := b[:bytes.LastIndexByte(b, '\n')+1]
	if len(whole) < len(b) && !newest {
		return damaged(g.name, errors.New("its last line is torn"))
	}
	for line := range bytes.Lines(whole) {
		e, err := event.ParseEntry(line[:len(line)-1])
		if err != nil && newest && torn(line, whole, g.length()) {
			break
		}
		if err == nil && oldest && e.Seq == g.first && len(g.ends) == 0 {
			s.head = event.Head{Writer: s.cfg.Writer, Seq: e.Seq - 1, Hash: e.Prev} // what came before is at auth
		}
		if err == nil {
			err = e.Follows(s.head)
		}
		if err != nil {
			return damaged(g.name, err)
		}
		s.head = e.Head()
		g.ends = append(g.ends, g.length()+int64(len(line)))
	}
	s.waits += g.length()
	if len(g.ends) == 0 && g.first != s.head.Seq+1 {
		return damaged(g.name, errors.New("it is empty, and so nothing tells how the chain goes on"))
	}
	if len(g.ends) == 0 && !oldest { // begun, and nothing of it became durable
		s.files = s.files[:len(s.files)-1]
		return errors.Join(g.file.Close(), os.Remove(g.name))
	}
	if g.length() < int64(len(b)) {
		if err := errors.Join(g.file.Truncate(g.length()), g.file.Sync()); err != nil {
			return fmt.Errorf("cut torn line: %w", err)
		}
	}
	return nil
}

// torn reports whether a bad line is what a crash leaves of a write that was never synced: the last line, or one in a
// block that the disk had not got and reads as zeros.
func torn(line, whole []byte, at int64) bool {
	return at+int64(len(line)) == int64(len(whole)) || bytes.IndexByte(line, 0) >= 0
}

func damaged(file string, err error) error {
	return fault.New(fault.Internal, "the audit spool file %s is damaged", file).WithReason("audit_spool_damaged").
		WithCause("%v", err).WithFix("keep a copy of the directory, then join this agent again with a new token and an empty data directory")
}

// commit appends a batch and syncs once; each event has its own answer.
func (s *Spool) commit(batch []*pending) []error {
	errs := make([]error, len(batch))
	s.mu.Lock()
	before, base := s.head.Seq, s.lengthLocked()
	err := s.broken
	for i, p := range batch {
		if err != nil {
			errs[i] = err
			continue
		}
		errs[i] = s.appendOneLocked(p.event)
	}
	wrote := s.head.Seq
	s.mu.Unlock()
	if wrote == before {
		return errs
	}
	if err := s.sync(); err != nil {
		s.forget(before, wrote, base)
		for i := range errs {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	return errs
}

// forget cuts off a batch that was refused for a sync that failed, so that it is not sent later, as far as the disk
// still obeys; where it shares its file with later or earlier files' entries it stays.
func (s *Spool) forget(before, wrote uint64, base int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.files[len(s.files)-1]; s.head.Seq == wrote && g.first <= before+1 {
		_ = g.file.Truncate(base)
	}
}

func (s *Spool) lengthLocked() int64 {
	if len(s.files) == 0 {
		return 0
	}
	g := s.files[len(s.files)-1]
	if g.length() >= s.cfg.Segment {
		return 0 // the next entry begins a file
	}
	return g.length()
}

// sync brings what is in the files to the disk, without holding up who writes meanwhile.
func (s *Spool) sync() error {
	s.mu.Lock()
	seq, broken := s.head.Seq, s.broken
	if broken != nil || s.durable >= seq {
		s.mu.Unlock()
		return broken
	}
	g := s.files[len(s.files)-1] // what is in earlier ones was synced when this one began
	s.mu.Unlock()
	err := g.file.Sync()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.durable >= seq { // synced, and perhaps closed, by somebody else meanwhile
		return nil
	}
	return s.syncedLocked(seq, err)
}

// syncedLocked takes the outcome of an fsync: after one that failed nobody can know what is on the disk, so nothing
// more is taken until the spool is opened anew.
func (s *Spool) syncedLocked(seq uint64, err error) error {
	if err != nil {
		s.broken = s.unwritable(err)
		return s.broken
	}
	s.durable = seq
	close(s.news)
	s.news = make(chan struct{})
	return nil
}

// appendOneLocked chains an event, its canonical JSON, and writes it to the file.
func (s *Spool) appendOneLocked(ev []byte) error {
	if s.broken != nil {
		return s.broken
	}
	e := s.head.Next(ev)
	s.line = append(e.AppendJSON(s.line[:0]), '\n')
	if s.waits+int64(len(s.line)) > s.cfg.Max {
		return s.full(nil)
	}
	if err := s.writeLocked(s.line); err != nil {
		return err
	}
	s.head, s.waits = e.Head(), s.waits+int64(len(s.line))
	return nil
}

func (s *Spool) full(err error) error {
	return fault.New(fault.Exhausted, "the audit log of this agent is full, so nothing new is let in").
		WithReason("audit_full").WithFix("see why this agent does not reach the auth server, and whether %s has space", s.cfg.Dir).
		Wrapping(err)
}

// writeLocked writes a line. A write that failed is cut off again.
func (s *Spool) writeLocked(line []byte) error {
	g, err := s.currentLocked()
	if err != nil {
		return s.unwritable(err)
	}
	base := g.length()
	if _, err := g.file.WriteAt(line, base); err != nil {
		if cut := g.file.Truncate(base); cut != nil {
			s.broken = s.unwritable(errors.Join(err, cut))
		}
		return s.unwritable(err)
	}
	g.ends = append(g.ends, base+int64(len(line)))
	return nil
}

func (s *Spool) unwritable(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return s.full(err)
	}
	return fault.New(fault.Unavailable, "the audit log of this agent cannot be written, so nothing new is let in").
		WithReason("audit_unwritable").WithFix("see to the disk that holds %s, then restart sallyport", s.cfg.Dir).Wrapping(err)
}

// currentLocked is the file to append to, a new one where the last is long enough.
func (s *Spool) currentLocked() (*segment, error) {
	if n := len(s.files); n > 0 && s.files[n-1].length() < s.cfg.Segment {
		return s.files[n-1], nil
	}
	if n := len(s.files); n > 0 && s.durable < s.head.Seq { // a later file is never on the disk without this one
		if err := s.syncedLocked(s.head.Seq, s.files[n-1].file.Sync()); err != nil {
			return nil, err
		}
	}
	first := s.head.Seq + 1
	name := filepath.Join(s.cfg.Dir, fmt.Sprintf("%016x%s", first, segmentSuffix))
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syncDir(s.cfg.Dir); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	g := &segment{name: name, file: f, first: first}
	s.files = append(s.files, g)
	return g, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
