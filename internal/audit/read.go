package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// scanLimit bounds what one List looks at: a filter that hardly matches gets an empty page and a cursor rather than a
// long wait.
const scanLimit = 20 * store.MaxPage

// Filter selects events for List; empty fields select all. Device is an id or an asset tag. After is a cursor that
// List returned, for the same filter.
type Filter struct {
	From, To    time.Time // From included, To not
	Event       event.Kind
	User        string
	Device      string
	After       string
	Limit       int // at most 1000, which is also what 0 means
	NewestFirst bool
}

// List returns a page of entries in the order of their events' times and the cursor of the next page, empty when
// there is none. A page may be short, or empty, and still have a next one; it may be longer than its limit by the events
// of one change.
func (l *Log) List(ctx context.Context, f Filter) ([]event.Stored, string, error) {
	if f.Limit <= 0 || f.Limit > store.MaxPage {
		f.Limit = store.MaxPage
	}
	r, err := f.start()
	if err != nil {
		return nil, "", err
	}
	var found []event.Stored
	for scanned := 0; scanned < scanLimit; {
		page, err := l.cfg.Store.List(ctx, r)
		if err != nil {
			return nil, "", fmt.Errorf("list audit events: %w", err)
		}
		for _, rec := range page.Records {
			r.After = rec.Key
			if f.beyond(rec.Key) {
				return found, "", nil
			}
			if !f.matches(rec.Value) {
				continue
			}
			some, err := l.storedAt(ctx, rec.Key, f.linesOf(rec.Value))
			if err != nil {
				return nil, "", err
			}
			if found = append(found, f.sift(some)...); len(found) >= f.Limit {
				return found, strings.TrimPrefix(r.After, timePrefix), nil
			}
		}
		if !page.More {
			return found, "", nil
		}
		scanned += len(page.Records)
	}
	return found, strings.TrimPrefix(r.After, timePrefix), nil
}

// start is the range of the index of times in which the page begins.
func (f Filter) start() (store.Range, error) {
	r := store.Range{Prefix: timePrefix, Descending: f.NewestFirst}
	switch {
	case f.After != "":
		if _, _, err := splitTimeKey(timePrefix + f.After); err != nil {
			return r, fault.New(fault.Invalid, "%q is no place in the audit log", f.After).WithReason("bad_cursor")
		}
		r.After = timePrefix + f.After
	case f.NewestFirst && !f.To.IsZero():
		r.After = timePrefix + timeHex(f.To)
	case !f.NewestFirst && !f.From.IsZero():
		r.After = timePrefix + timeHex(f.From)
	}
	return r, nil
}

// beyond reports whether a key lies past the filter's far end.
func (f Filter) beyond(key string) bool {
	if f.NewestFirst {
		return !f.From.IsZero() && key < timePrefix+timeHex(f.From)
	}
	return !f.To.IsZero() && key >= timePrefix+timeHex(f.To)
}

func (f Filter) matches(value []byte) bool {
	var line indexLine
	if json.Unmarshal(value, &line) != nil {
		return true // shown rather than hidden
	}
	return (f.Event == "" || f.Event == line.Kind) && (f.User == "" || f.User == line.User) &&
		(f.Device == "" || slices.Contains(line.Devices, f.Device))
}

// linesOf is how many entries a line of the index tells of beside its own.
func (f Filter) linesOf(value []byte) uint64 {
	var line indexLine
	if json.Unmarshal(value, &line) != nil || line.More > store.MaxOps {
		return 0
	}
	return line.More
}

// sift takes, of the entries that share a line, those that the filter takes, in the filter's order.
func (f Filter) sift(some []event.Stored) []event.Stored {
	if len(some) == 1 {
		return some
	}
	var out []event.Stored
	for _, s := range some {
		var ev event.Event
		if json.Unmarshal(s.Event, &ev) != nil || f.matches(indexOf(ev)) {
			out = append(out, s)
		}
	}
	if f.NewestFirst {
		slices.Reverse(out)
	}
	return out
}

func splitTimeKey(key string) (writer string, seq uint64, err error) {
	parts := strings.Split(strings.TrimPrefix(key, timePrefix), "/")
	if len(parts) != 3 || len(parts[0]) != 16 || event.ValidWriter(parts[1]) != nil {
		return "", 0, fmt.Errorf("%q is not in the index of times", key)
	}
	seq, err = strconv.ParseUint(parts[2], 16, 64)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not in the index of times", key)
	}
	return parts[1], seq, nil
}

// storedAt reads the entry that a key of the index names, and those behind it that share its line.
func (l *Log) storedAt(ctx context.Context, key string, more uint64) ([]event.Stored, error) {
	writer, seq, err := splitTimeKey(key)
	if err != nil {
		return nil, damaged("the index of the audit log is damaged").Wrapping(err)
	}
	var out []event.Stored
	for i := uint64(0); i <= more; i++ {
		s, err := l.stored(ctx, writer, seq+i)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

func (l *Log) stored(ctx context.Context, writer string, seq uint64) (event.Stored, error) {
	r, err := l.cfg.Store.Get(ctx, entryKey(writer, seq))
	if errors.Is(err, store.ErrNotFound) {
		return event.Stored{}, damaged("audit entry %d of %s is missing", seq, writer)
	}
	if err != nil {
		return event.Stored{}, fmt.Errorf("read audit entry: %w", err)
	}
	return decodeStored(r)
}

func decodeStored(r store.Record) (event.Stored, error) {
	var s event.Stored
	if err := json.Unmarshal(r.Value, &s); err != nil {
		return s, damaged("the audit entry at %s is damaged", r.Key).Wrapping(err)
	}
	return s, nil
}

// Export writes the log as JSON lines: first the latest signed list of heads, where there is one, then every writer's
// entries in the order of their chain. event.VerifyJSONL checks it.
func (l *Log) Export(ctx context.Context, w io.Writer) error {
	heads, err := l.LatestHeads(ctx)
	if err == nil {
		var b []byte
		if b, err = event.HeadsLine(heads); err == nil {
			_, err = w.Write(append(b, '\n'))
		}
	}
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("export audit log: %w", err)
	}
	return l.scan(ctx, entryPrefix, func(r store.Record) error {
		s, err := decodeStored(r)
		if err != nil {
			return err
		}
		b, err := json.Marshal(s)
		if err == nil {
			_, err = w.Write(append(b, '\n'))
		}
		if err != nil {
			return fmt.Errorf("export audit log: %w", err)
		}
		return nil
	})
}

// scan calls fn for each record below prefix.
func (l *Log) scan(ctx context.Context, prefix string, fn func(store.Record) error) error {
	r := store.Range{Prefix: prefix}
	for {
		page, err := l.cfg.Store.List(ctx, r)
		if err != nil {
			return fmt.Errorf("read audit log: %w", err)
		}
		for _, rec := range page.Records {
			if err := fn(rec); err != nil {
				return err
			}
			r.After = rec.Key
		}
		if !page.More {
			return nil
		}
	}
}
