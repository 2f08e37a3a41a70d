package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/store"
)

// sweepEvery is how often Run looks.
const sweepEvery = time.Hour

// Run sweeps until ctx ends.
func (s *Service) Run(ctx context.Context, keep time.Duration, log *slog.Logger) {
	for wait := time.Minute; ; wait = sweepEvery {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if n, err := s.Sweep(ctx, keep); err != nil && ctx.Err() == nil {
			log.Error("old recordings were not removed", "err", err)
		} else if n > 0 {
			log.Info("old recordings were removed", "how many", n)
		}
	}
}

// Sweep removes recordings that are over and began longer than keep ago, with a record of each, and says how many. What still
// goes on stays.
func (s *Service) Sweep(ctx context.Context, keep time.Duration) (removed int, err error) {
	until := s.Now().Add(-keep)
	for after := ""; ; {
		page, err := s.Store.List(ctx, store.Range{Prefix: atPrefix, After: after, Limit: pageSize})
		if err != nil {
			return removed, err
		}
		for _, rec := range page.Records {
			after = rec.Key
			e, err := decode(rec)
			if err != nil {
				return removed, err
			}
			if !e.Time.Before(until) {
				return removed, nil
			}
			if e.State == recording.Going && e.Changed.After(until) {
				continue
			}
			if err := s.remove(ctx, e); err != nil {
				return removed, err
			}
			removed++
		}
		if !page.More {
			return removed, nil
		}
	}
}

// remove removes the file first: an entry without one says that it is gone, a file without an entry nobody would find.
func (s *Service) remove(ctx context.Context, e *entry) error {
	defer s.busy.lock(e.Name)()
	if is, err := s.find(ctx, e.Name); err != nil || is == nil || is.revision != e.revision { // more of it came just now
		return err
	}
	if err := os.Remove(s.file(e.Name)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove recording: %w", err)
	}
	_, err := s.Audit.Record(ctx, event.Event{Kind: event.ResourceDelete, User: identity.LocalUser, Success: true, Message: "kept long enough",
		Session:  &event.Session{SessionID: recording.SessionOf(e.Name), Recording: e.Name},
		Resource: &event.Resource{ResourceKind: Kind, ResourceName: e.Name}},
		store.CheckRevision(e.key(), e.revision), store.Delete(e.key()), store.Delete(nameKey(e.Name)))
	if errors.Is(err, store.ErrConflict) { // it came to its end just now: the next time
		return nil
	}
	return err
}
