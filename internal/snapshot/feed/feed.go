// Package feed makes the picture from the store, and reads the changes that others follow.
package feed

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
)

// Feed keeps auth's own picture by watching store, and reads the changes that others follow.
type Feed struct {
	store       store.Store
	authorities snapshot.Authorities
	mirror      *snapshot.Mirror
	alive       atomic.Bool
	heads       atomic.Pointer[event.SignedHeads]
}

// New watches s once Run does; authorities go into every picture.
func New(s store.Store, a snapshot.Authorities) *Feed {
	start := time.Now()
	return &Feed{store: s, authorities: a, mirror: snapshot.NewMirror(func() time.Duration { return time.Since(start) })}
}

// Run keeps the picture until ctx ends. An error means that store gave up; the picture then ages.
func (f *Feed) Run(ctx context.Context) error {
	defer f.alive.Store(false)
	err := f.Follow(ctx, 0, func(c snapshot.Change) error {
		f.mirror.Apply(c)
		f.mirror.Confirm(f.mirror.Now())
		f.alive.Store(true)
		return nil
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// Current is auth's own picture; while the watch lives it has no age.
func (f *Feed) Current() (*snapshot.Picture, time.Duration) {
	p, age := f.mirror.Current()
	if f.alive.Load() {
		return p, 0
	}
	return p, age
}

// Announce takes a new list of audit heads, for all that follow.
func (f *Feed) Announce(h event.SignedHeads) { f.heads.Store(&h) }

// Heads is the newest list of audit heads, nil before the first.
func (f *Feed) Heads() *event.SignedHeads { return f.heads.Load() }

// Changed is closed at the next change.
func (f *Feed) Changed() <-chan struct{} { return f.mirror.Changed() }

// Reached waits until the picture holds what was written at a revision below records.LivePrefix, or ctx ends.
func (f *Feed) Reached(ctx context.Context, revision uint64) {
	for {
		changed := f.mirror.Changed()
		if p, _ := f.Current(); p.Revision >= revision {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// Follow calls step with everything after a revision (0: with the complete picture first), in order, until ctx ends
// or step fails. Where the changes since are no longer known it begins anew with a complete step.
func (f *Feed) Follow(ctx context.Context, after uint64, step func(snapshot.Change) error) error {
	for {
		if after == 0 {
			c, err := f.complete(ctx)
			if err != nil {
				return err
			}
			if err := step(c); err != nil {
				return err
			}
			after = c.Revision
		}
		err := f.watch(ctx, &after, step)
		if !errors.Is(err, store.ErrCompacted) {
			return err
		}
		after = 0
	}
}

func (f *Feed) watch(ctx context.Context, after *uint64, step func(snapshot.Change) error) error {
	for change, err := range f.store.Watch(ctx, records.LivePrefix, *after) {
		if err != nil {
			return err
		}
		c := snapshot.Change{Revision: change.Revision}
		for _, e := range change.Events {
			if e.Deleted {
				if kind, name, ok := records.FromKey(e.Key); ok {
					c.Removed = append(c.Removed, snapshot.Ref{Kind: kind, Name: name})
				}
				continue
			}
			c.Put = append(c.Put, read(e.Record))
		}
		if err := step(c); err != nil {
			return err
		}
		*after = change.Revision
	}
	return ctx.Err()
}

// complete reads everything; the watch goes on from the first page's revision, so that nothing between pages is lost.
func (f *Feed) complete(ctx context.Context) (snapshot.Change, error) {
	c := snapshot.Change{Complete: true, Authorities: &f.authorities}
	r := store.Range{Prefix: records.LivePrefix}
	for {
		page, err := f.store.List(ctx, r)
		if err != nil {
			return c, fmt.Errorf("read picture: %w", err)
		}
		if c.Revision == 0 {
			c.Revision = page.Revision
		}
		for _, rec := range page.Records {
			c.Put = append(c.Put, read(rec))
			r.After = rec.Key
		}
		if !page.More {
			return c, nil
		}
	}
}

// read decodes a record. What cannot be read is still there: a role of that name denies everything, settings demand
// a device of everybody, a lock locks everybody.
func read(rec store.Record) *manifest.Resource {
	res, err := records.Decode(rec)
	if err == nil {
		return res
	}
	kind, name, _ := records.FromKey(rec.Key)
	return snapshot.Unreadable(kind, name)
}
