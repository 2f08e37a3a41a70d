package sqlite

import (
	"context"
	"iter"
	"sort"
	"strings"
	"sync"

	"github.com/sallyport/sallyport/internal/store"
)

const (
	historyEvents = 1 << 16
	historyBytes  = 32 << 20
)

// hub keeps the latest changes for watchers. A watcher holds a position, not a queue: who is too slow finds its
// position gone, and costs nobody anything.
type hub struct {
	maxEvents int
	closed    chan struct{}

	mu       sync.Mutex     // guards all below
	changes  []store.Change // ascending; none at or before compacted
	events   int
	bytes    int
	revision uint64 // of the last change
	dropped  uint64 // changes at or before it are gone
	news     chan struct{}
	ended    bool
}

func newHub(revision uint64, history int) *hub {
	if history <= 0 {
		history = historyEvents
	}
	return &hub{maxEvents: history, closed: make(chan struct{}), revision: revision, dropped: revision,
		news: make(chan struct{})}
}

func (h *hub) publish(changes []store.Change, revision uint64) {
	if len(changes) == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.changes = append(h.changes, changes...)
	for _, c := range changes {
		h.events += len(c.Events)
		h.bytes += size(c)
	}
	drop := 0
	for drop < len(h.changes)-1 && (h.events > h.maxEvents || h.bytes > historyBytes) {
		c := h.changes[drop]
		h.events -= len(c.Events)
		h.bytes -= size(c)
		h.dropped = c.Revision
		h.changes[drop] = store.Change{} // the slice's front lives on until it is next copied
		drop++
	}
	h.changes = h.changes[drop:]
	h.revision = revision
	close(h.news)
	h.news = make(chan struct{})
}

func size(c store.Change) int {
	n := 0
	for _, e := range c.Events {
		n += len(e.Key) + len(e.Value)
	}
	return n
}

func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.ended {
		h.ended = true
		close(h.closed)
	}
}

// since returns up to 256 changes after a revision, or a channel that is closed when there are more.
func (h *hub) since(after uint64) ([]store.Change, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.ended:
		return nil, nil, store.ErrClosed
	case after < h.dropped || after > h.revision: // a later one is from a state that was rolled back
		return nil, nil, store.ErrCompacted
	}
	i := sort.Search(len(h.changes), func(i int) bool { return h.changes[i].Revision > after })
	n := min(len(h.changes)-i, 256)
	return append([]store.Change(nil), h.changes[i:i+n]...), h.news, nil
}

// Watch yields changes below prefix.
func (s *Store) Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[store.Change, error] {
	return func(yield func(store.Change, error) bool) {
		for at := after; ; {
			changes, news, err := s.hub.since(at)
			if ctx.Err() != nil {
				err = context.Cause(ctx)
			}
			if err != nil {
				yield(store.Change{}, err)
				return
			}
			for _, c := range changes {
				at = c.Revision
				if below := under(c, prefix); len(below.Events) > 0 && !yield(below, nil) {
					return
				}
			}
			if len(changes) > 0 {
				continue
			}
			select {
			case <-news:
			case <-ctx.Done():
			case <-s.hub.closed:
			}
		}
	}
}

func under(c store.Change, prefix string) store.Change {
	below := store.Change{Revision: c.Revision}
	for _, e := range c.Events {
		if strings.HasPrefix(e.Key, prefix) {
			below.Events = append(below.Events, e)
		}
	}
	return below
}
