// Package feed makes the picture from the store, and reads the changes that others follow.
package feed

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
)

// remembered is how many changes are kept for who was away.
const remembered = 4096

// Feed keeps auth's own picture by watching store, and reads the changes that others follow.
type Feed struct {
	store       store.Store
	authorities snapshot.Authorities
	run         uint64 // tells this run's revisions from others'
	mirror      *snapshot.Mirror
	alive       atomic.Bool
	heads       atomic.Pointer[event.SignedHeads]

	mu      sync.Mutex
	state   map[snapshot.Ref]*manifest.Resource // guarded by mu: all that the picture is made of
	head    uint64                              // guarded by mu: the revision of state; 0 before there is one
	changes []snapshot.Change                   // guarded by mu: the last ones, in order
	base    uint64                              // guarded by mu: the revision that changes begin after
}

// New watches s once Run does; authorities go into every picture.
func New(s store.Store, a snapshot.Authorities) *Feed {
	start := time.Now()
	return &Feed{store: s, authorities: a, run: rand.Uint64() | 1,
		mirror: snapshot.NewMirror(func() time.Duration { return time.Since(start) })}
}

// Run keeps the picture until ctx ends. An error means that store gave up; the picture then ages.
func (f *Feed) Run(ctx context.Context) error {
	defer f.alive.Store(false)
	err := f.read(ctx, func(c snapshot.Change) {
		f.keep(c)
		f.mirror.Apply(c)
		f.mirror.Confirm(f.mirror.Now())
		f.alive.Store(true)
	})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// keep remembers a change for those that follow.
func (f *Feed) keep(c snapshot.Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.head = c.Revision
	if c.Complete {
		f.state, f.changes, f.base = map[snapshot.Ref]*manifest.Resource{}, nil, c.Revision
	} else {
		f.changes = append(f.changes, c)
	}
	for _, r := range c.Removed {
		delete(f.state, r)
	}
	for _, r := range c.Put {
		f.state[snapshot.Ref{Kind: r.Kind, Name: r.Metadata.Name}] = r
	}
	if n := len(f.changes) - remembered; n > 0 {
		f.base = f.changes[n-1].Revision
		f.changes = slices.Delete(f.changes, 0, n)
	}
}

// since is what came after a revision of this run, and whether that is still known.
func (f *Feed) since(after uint64) ([]snapshot.Change, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if after < f.base || after > f.head {
		return nil, false
	}
	i, _ := slices.BinarySearchFunc(f.changes, after+1, func(c snapshot.Change, at uint64) int { return cmp.Compare(c.Revision, at) })
	return slices.Clone(f.changes[i:]), true
}

// everything is a complete change; false before there is one.
func (f *Feed) everything() (snapshot.Change, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := snapshot.Change{Run: f.run, Revision: f.head, Complete: true, Authorities: &f.authorities, Put: make([]*manifest.Resource, 0, len(f.state))}
	for _, r := range f.state {
		c.Put = append(c.Put, r)
	}
	return c, f.head != 0
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

// Resumes reports whether somebody who had everything up to a revision of a run can go on from there.
func (f *Feed) Resumes(run, after uint64) bool {
	_, known := f.since(after)
	return run == f.run && after != 0 && known
}

// Follow calls step with everything after a revision of this run (0: with the complete picture first), in order, until
// ctx ends or step fails. Where the changes since are no longer known it begins anew with a complete step. What steps
// hold is shared: it is read only.
func (f *Feed) Follow(ctx context.Context, after uint64, step func(snapshot.Change) error) error {
	for {
		changed := f.mirror.Changed()
		changes, known := f.since(after)
		if !known || after == 0 {
			if c, ok := f.everything(); ok {
				changes, known = []snapshot.Change{c}, true
			}
		}
		for _, c := range changes {
			if err := step(c); err != nil {
				return err
			}
			after = c.Revision
		}
		if len(changes) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// read calls step with the complete picture and then with every change, until ctx ends or store gives up.
func (f *Feed) read(ctx context.Context, step func(snapshot.Change)) error {
	for {
		c, err := f.complete(ctx)
		if err != nil {
			return err
		}
		step(c)
		if err := f.watch(ctx, c.Revision, step); !errors.Is(err, store.ErrCompacted) {
			return err
		}
		f.alive.Store(false) // until everything is read anew, nobody is told that their picture is current
	}
}

func (f *Feed) watch(ctx context.Context, after uint64, step func(snapshot.Change)) error {
	for change, err := range f.store.Watch(ctx, records.LivePrefix, after) {
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
		step(c)
	}
	return ctx.Err()
}

// complete reads everything; the watch goes on from the first page's revision, so that nothing between pages is lost.
func (f *Feed) complete(ctx context.Context) (snapshot.Change, error) {
	c := snapshot.Change{Run: f.run, Complete: true, Authorities: &f.authorities}
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
