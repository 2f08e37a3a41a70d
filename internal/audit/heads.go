package audit

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// keepHeads is how many signed lists are kept, some ten minutes' worth.
const keepHeads = 64

// HeadsEvery is how often auth signs the list of heads.
const HeadsEvery = 10 * time.Second

// SignHeads signs the list of all chains' heads as of now, stores it and returns it. It signs no list in which a
// chain is shorter than in the last one.
func (l *Log) SignHeads(ctx context.Context, now time.Time) (event.SignedHeads, error) {
	l.signing.Lock()
	defer l.signing.Unlock()
	for tries := 0; ; tries++ {
		s, err := l.signHeads(ctx, now)
		if err == nil {
			l.signed = &s
		}
		if !errors.Is(err, store.ErrConflict) || tries == 5 {
			return s, err
		}
	}
}

func (l *Log) signHeads(ctx context.Context, now time.Time) (event.SignedHeads, error) {
	last, err := l.LatestHeads(ctx)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return event.SignedHeads{}, err
	}
	heads, err := l.heads(ctx)
	if err != nil {
		return event.SignedHeads{}, err
	}
	before := []event.SignedHeads{last}
	if l.signed != nil {
		before = append(before, *l.signed) // what is stored may have been rolled back as well
		last.Number = max(last.Number, l.signed.Number)
	}
	for _, b := range before {
		if err := grown(b, heads); err != nil {
			return event.SignedHeads{}, err
		}
	}
	s, err := event.SignHeads(last.Number+1, now, heads, func(msg []byte) ([]byte, error) {
		return l.cfg.HeadsKey.Sign(rand.Reader, msg, crypto.Hash(0))
	})
	if err != nil {
		return event.SignedHeads{}, err
	}
	b, err := s.MarshalBinary()
	if err != nil {
		return event.SignedHeads{}, err
	}
	ops := []store.Op{store.Create(headsKey(s.Number), b)}
	if s.Number > keepHeads {
		ops = append(ops, store.Delete(headsKey(s.Number-keepHeads)))
	}
	if _, err := l.cfg.Store.Txn(ctx, ops); err != nil {
		return event.SignedHeads{}, fmt.Errorf("store audit heads: %w", err)
	}
	return s, nil
}

func headsKey(number uint64) string { return fmt.Sprintf("%s%016x", headsPrefix, number) }

func grown(before event.SignedHeads, heads []event.Head) error {
	now := make(map[string]event.Head, len(heads))
	for _, h := range heads {
		now[h.Writer] = h
	}
	for _, h := range before.Heads {
		n := now[h.Writer]
		if n.Seq < h.Seq || n.Seq == h.Seq && n.Hash != h.Hash {
			return damaged("the audit chain of %s was cut or changed: it had %d entries and has %d", h.Writer, h.Seq, n.Seq)
		}
	}
	return nil
}

func (l *Log) heads(ctx context.Context) ([]event.Head, error) {
	var heads []event.Head
	err := l.scan(ctx, headPrefix, func(r store.Record) error {
		var h event.Head
		if err := json.Unmarshal(r.Value, &h); err != nil || headPrefix+h.Writer != r.Key {
			return damaged("the head of an audit chain at %s is damaged", r.Key)
		}
		heads = append(heads, h)
		return nil
	})
	return heads, err
}

// LatestHeads is the last signed list, its signature verified, or store.ErrNotFound before the first.
func (l *Log) LatestHeads(ctx context.Context) (event.SignedHeads, error) {
	page, err := l.cfg.Store.List(ctx, store.Range{Prefix: headsPrefix, Limit: 1, Descending: true})
	if err != nil {
		return event.SignedHeads{}, fmt.Errorf("read audit heads: %w", err)
	}
	if len(page.Records) == 0 {
		return event.SignedHeads{}, fmt.Errorf("audit heads: %w", store.ErrNotFound)
	}
	return l.decodeHeads(page.Records[0])
}

func (l *Log) decodeHeads(r store.Record) (event.SignedHeads, error) {
	var s event.SignedHeads
	if err := s.UnmarshalBinary(r.Value); err != nil {
		return s, damaged("the signed list of audit heads at %s is damaged", r.Key).Wrapping(err)
	}
	if err := s.Verify(l.key); err != nil || headsKey(s.Number) != r.Key {
		return s, damaged("the signed list of audit heads at %s is not signed by this cluster", r.Key)
	}
	return s, nil
}

// Verify walks the whole log: every chain, the signed lists of heads that are kept, one from elsewhere where given
// (its signature is checked), the heads' records and the index of times. The error is for what could not be read;
// damage is in the report. Entries that are written meanwhile may be left out.
func (l *Log) Verify(ctx context.Context, elsewhere *event.SignedHeads) (event.Report, error) {
	var lists []event.SignedHeads
	if elsewhere != nil {
		if err := elsewhere.Verify(l.key); err != nil {
			return event.Report{}, fault.New(fault.Invalid, "the list of heads is not one that this cluster signed").
				WithReason("foreign_heads").WithCause("%v", err)
		}
		lists = append(lists, *elsewhere)
	}
	var extra event.Report
	err := l.scan(ctx, headsPrefix, func(r store.Record) error {
		s, err := l.decodeHeads(r)
		if err != nil {
			extra.Add("", 0, "%v", err)
			return nil
		}
		lists = append(lists, s)
		return nil
	})
	if err != nil {
		return event.Report{}, err
	}
	recorded, err := l.heads(ctx) // before the chains, which only grow
	if err != nil {
		extra.Add("", 0, "%v", err)
	}
	v := event.NewVerifier(append(lists, event.SignedHeads{Heads: recorded})...)
	if err := l.verifyEntries(ctx, v, &extra); err != nil {
		return event.Report{}, err
	}
	r := v.Report()
	r.Problems = append(r.Problems, extra.Problems...)
	return r, nil
}

// verifyEntries feeds the chains to v and compares the index of times with them: an entry without its line in the
// index would be hidden from listings.
func (l *Log) verifyEntries(ctx context.Context, v *event.Verifier, extra *event.Report) error {
	var chains, index multiset
	var open sharedLine
	last := make(map[string]uint64)
	err := l.scan(ctx, entryPrefix, func(r store.Record) error {
		s, err := decodeStored(r)
		if err != nil {
			extra.Add("", 0, "%v", err)
			return nil
		}
		if entryKey(s.Writer, s.Seq) != r.Key {
			extra.Add(s.Writer, s.Seq, "entry %d is stored in the place of another, %s", s.Seq, r.Key)
		}
		v.Add(s.Entry)
		last[s.Writer] = max(last[s.Writer], s.Seq)
		var ev event.Event
		if json.Unmarshal(s.Event, &ev) == nil {
			open.take(s, ev, &chains)
		}
		return nil
	})
	if err != nil {
		return err
	}
	open.close(&chains)
	err = l.scan(ctx, timePrefix, func(r store.Record) error {
		writer, seq, err := splitTimeKey(r.Key)
		if err != nil || seq <= last[writer] { // later ones were written meanwhile
			index.add(r.Key, r.Value)
		}
		return nil
	})
	if err == nil && chains != index {
		extra.Add("", 0, "the index of times does not match the chains: listings may hide or invent entries")
	}
	return err
}

// sharedLine puts the lines of the index of times together again, from entries in the order of their chains.
type sharedLine struct {
	first event.Stored
	key   string
	line  indexLine
}

// take takes the next entry: one that shares the open line, or one that has its own.
func (o *sharedLine) take(s event.Stored, ev event.Event, into *multiset) {
	if s.Line != 0 && s.Line == o.first.Seq && s.Writer == o.first.Writer && o.key != "" && o.line.join(lineOf(ev)) {
		return
	}
	o.close(into)
	o.first, o.key, o.line = s, timeKey(s, ev.Time), lineOf(ev)
}

func (o *sharedLine) close(into *multiset) {
	if o.key == "" {
		return
	}
	b, _ := json.Marshal(o.line) // strings alone always encode
	into.add(o.key, b)
	o.key = ""
}

// multiset is a sum over hashes, the same in whatever order they come.
type multiset [4]uint64

func (m *multiset) add(key string, value []byte) {
	sum := sha256.Sum256(append(append([]byte(key), 0), value...))
	for i := range m {
		m[i] += binary.LittleEndian.Uint64(sum[8*i:])
	}
}
