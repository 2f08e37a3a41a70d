package database

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// tidyEvery is how often users who were left enabled are looked for, tidyTime how long one database may take, and tidyOnce how many
// are asked at once.
const (
	tidyEvery = 10 * time.Minute
	tidyTime  = 30 * time.Second
	tidyOnce  = 4
)

// Sweep disables the users of a database who were left enabled: by an agent that was killed, or could not reach the server when
// their last session ended. It returns their names, also beside an error.
func (d *Door) Sweep(ctx context.Context, db *target.DatabaseServer, m Maker) (disabled []string, err error) {
	v := &Visit{Database: db, door: d}
	left, err := m.Left(ctx, v)
	for _, name := range left {
		// A session that another agent lets in meanwhile is seen under the server's lock.
		done, failed := d.made.unused(ctx, key(db.Name, name), func() error { return m.Disable(ctx, v, OnDemand{User: name}) })
		if failed != nil {
			err = errors.Join(err, failed)
		}
		if done {
			disabled = append(disabled, name)
		}
	}
	return disabled, err
}

// Tidy is what sweeps an agent's databases. Databases are those that there are, and a channel that is closed when they may be others.
type Tidy struct {
	Makers    map[target.Protocol]Maker
	Databases func() ([]*target.DatabaseServer, <-chan struct{})
	Log       *slog.Logger
}

// swept is a database as it is swept: at another server, or with another user who makes users, it is another.
type swept struct{ name, uri, admin string }

// Tidy sweeps each database at once when it is there, and all of them now and then, until ctx ends. It tells the log what it did, and
// why it could not: once, until it can again.
func (d *Door) Tidy(ctx context.Context, t Tidy) {
	next := time.NewTicker(tidyEvery)
	defer next.Stop()
	known := map[swept]error{} // how it went last
	for all := true; ; {
		list, changed := t.Databases()
		known = d.tidy(ctx, t, list, known, all)
		all = false
		select {
		case <-changed:
		case <-next.C:
			all = true
		case <-ctx.Done():
			return
		}
	}
}

// tidy sweeps of a list all, or those that are not known yet, and returns how it went with each.
func (d *Door) tidy(ctx context.Context, t Tidy, list []*target.DatabaseServer, known map[swept]error, all bool) map[swept]error {
	var (
		busy  sync.WaitGroup
		mu    sync.Mutex
		went  = map[swept]error{} // guarded by mu
		turns = make(chan struct{}, tidyOnce)
	)
	for _, db := range list {
		m, is := t.Makers[db.Protocol], swept{db.Name, db.URI, db.AdminUser}
		last, before := known[is]
		if m == nil || db.AdminUser == "" {
			continue
		}
		if before && !all {
			mu.Lock()
			went[is] = last
			mu.Unlock()
			continue
		}
		turns <- struct{}{}
		busy.Go(func() {
			defer func() { <-turns }()
			disabled, err := d.within(ctx, db, m)
			t.tell(ctx, db.Name, disabled, last, err)
			mu.Lock()
			defer mu.Unlock()
			went[is] = err
		})
	}
	busy.Wait()
	return went
}

func (d *Door) within(ctx context.Context, db *target.DatabaseServer, m Maker) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()
	return d.Sweep(ctx, db, m)
}

// tell tells the log how it went with a database, and last time.
func (t Tidy) tell(ctx context.Context, name string, disabled []string, last, err error) {
	if len(disabled) > 0 {
		t.Log.Info("database users that were left enabled are disabled", "db", name, "users", disabled)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil && last == nil:
		t.Log.Warn("whether database users were left enabled is not known", "db", name, "err", err, "cause", fault.Of(err).Cause)
	case err != nil:
		t.Log.Debug("whether database users were left enabled is still not known", "db", name, "err", err, "cause", fault.Of(err).Cause)
	case last != nil:
		t.Log.Info("whether database users were left enabled is known again", "db", name)
	}
}
