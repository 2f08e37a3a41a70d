// Package turnstile bounds how many connections of one address are dealt with at once before it is known whose they
// are. What comes beyond that waits its turn, unread, for a while.
package turnstile

import (
	"context"
	"net/netip"
	"sync"
	"time"
)

// Config is how many may pass at once, how many more may wait, and for how long.
type Config struct {
	AtOnce  int
	Waiting int
	Wait    time.Duration
}

// Turnstile counts by address. Its methods may be called by many goroutines at once.
type Turnstile struct {
	cfg Config

	mu    sync.Mutex
	lanes map[netip.Addr]*lane // guarded by mu; of addresses with connections
}

type lane struct {
	slots chan struct{}
	users int // guarded by Turnstile.mu; who holds or awaits a slot
}

// New makes one.
func New(c Config) *Turnstile { return &Turnstile{cfg: c, lanes: map[netip.Addr]*lane{}} }

// Enter waits for a turn and returns what ends it, to be called once or more; nil when there were too many, it waited
// too long, or ctx ended.
func (t *Turnstile) Enter(ctx context.Context, a netip.Addr) (leave func()) {
	l := t.queue(a)
	if l == nil {
		return nil
	}
	late := time.NewTimer(t.cfg.Wait)
	defer late.Stop()
	select {
	case l.slots <- struct{}{}:
		return sync.OnceFunc(func() {
			<-l.slots
			t.drop(a, l)
		})
	case <-late.C:
	case <-ctx.Done():
	}
	t.drop(a, l)
	return nil
}

func (t *Turnstile) queue(a netip.Addr) *lane {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.lanes[a]
	if l == nil {
		l = &lane{slots: make(chan struct{}, t.cfg.AtOnce)}
		t.lanes[a] = l
	}
	if l.users >= t.cfg.AtOnce+t.cfg.Waiting {
		return nil
	}
	l.users++
	return l
}

func (t *Turnstile) drop(a netip.Addr, l *lane) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.users--; l.users == 0 {
		delete(t.lanes, a)
	}
}
