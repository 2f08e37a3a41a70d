package login

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// Throttle delays attempts: after a few failures of one user from one address, of one address, or of one user from
// anywhere, each further attempt waits longer. It is bounded in memory and holds nothing that outlives a restart.
type Throttle struct {
	now func() time.Time

	mu    sync.Mutex
	marks map[string]mark          // guarded by mu
	turns map[string]chan struct{} // guarded by mu; users of whom an attempt is being judged, each closed when it is over
}

type mark struct {
	fails int
	last  time.Time
}

const (
	maxMarks  = 100_000
	forget    = 15 * time.Minute
	maxDelay  = time.Minute
	freeBoth  = 3  // failures of one user from one address before the delay begins
	freeAddr  = 30 // of one address
	freeUser  = 30 // of one user from anywhere
	userDelay = 5 * time.Second
)

// NewThrottle begins with no marks.
func NewThrottle(now func() time.Time) *Throttle {
	return &Throttle{now: now, marks: map[string]mark{}, turns: map[string]chan struct{}{}}
}

func throttleKeys(user string, from netip.Addr) [3]string {
	a := from.Unmap()
	if a.Is6() {
		p, _ := a.Prefix(64) // an IPv6 host owns its /64
		a = p.Addr()
	}
	return [3]string{"b/" + user + "/" + a.String(), "a/" + a.String(), "u/" + user}
}

// Allow refuses an attempt that comes too soon.
func (t *Throttle) Allow(user string, from netip.Addr) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.allowLocked(user, from)
}

// Turn waits until no other attempt on the user is being judged and refuses one that comes too soon: of many attempts
// begun at once, each is judged after the failures of those before it have counted. done gives the turn on.
func (t *Throttle) Turn(ctx context.Context, user string, from netip.Addr) (done func(), err error) {
	for {
		t.mu.Lock()
		other, taken := t.turns[user]
		if !taken {
			defer t.mu.Unlock()
			if err := t.allowLocked(user, from); err != nil {
				return nil, err
			}
			own := make(chan struct{})
			t.turns[user] = own
			return func() {
				t.mu.Lock()
				defer t.mu.Unlock()
				delete(t.turns, user)
				close(own)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func (t *Throttle) allowLocked(user string, from netip.Addr) error {
	now := t.now()
	for i, key := range throttleKeys(user, from) {
		m, ok := t.marks[key]
		if !ok {
			continue
		}
		if wait := m.last.Add(delay(i, m.fails)).Sub(now); wait > 0 {
			return fault.New(fault.Exhausted, "too many failed attempts").WithReason("throttled").
				WithCause("try again in %s", wait.Truncate(time.Second)+time.Second)
		}
	}
	return nil
}

func delay(kind, fails int) time.Duration {
	free := [3]int{freeBoth, freeAddr, freeUser}[kind]
	if fails < free {
		return 0
	}
	d := time.Second << min(fails-free, 10)
	if kind == 2 {
		return min(d, userDelay) // a stranger's failures may slow a person down, not lock them out
	}
	return min(d, maxDelay)
}

// Failed counts a failure.
func (t *Throttle) Failed(user string, from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	if len(t.marks) > maxMarks {
		t.sweepLocked(now)
	}
	for _, key := range throttleKeys(user, from) {
		m := t.marks[key]
		if now.Sub(m.last) > forget {
			m.fails = 0
		}
		t.marks[key] = mark{fails: m.fails + 1, last: now}
	}
}

// Succeeded forgets a user's failures from an address.
func (t *Throttle) Succeeded(user string, from netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.marks, throttleKeys(user, from)[0])
}

func (t *Throttle) sweepLocked(now time.Time) {
	for key, m := range t.marks {
		if now.Sub(m.last) > forget {
			delete(t.marks, key)
		}
	}
	for key := range t.marks {
		if len(t.marks) <= maxMarks/2 {
			return
		}
		delete(t.marks, key)
	}
}
