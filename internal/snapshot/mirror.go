package snapshot

import (
	"sync"
	"time"
)

// Never is the age of a picture that was never confirmed.
const Never = time.Duration(1<<63 - 1)

// Mirror holds the latest picture and knows how old it is. Its clock counts from any fixed moment, suspend included.
// Its methods may be called by many goroutines at once.
type Mirror struct {
	clock func() time.Duration

	mu      sync.Mutex
	picture *Picture      // guarded by mu; never nil
	run     uint64        // guarded by mu; of whoever told, 0 before a complete picture
	reached uint64        // guarded by mu; the revision up to which everything was told
	changed chan struct{} // guarded by mu; closed and replaced at each change
	fresh   time.Duration // guarded by mu; when the ping was sent that was echoed last
	heard   bool          // guarded by mu
	zero    time.Time     // guarded by mu: auth's time at the clock's zero, or a little later; zero before it was said
	latest  time.Time     // guarded by mu: the latest that Time said; it never goes back
}

// NewMirror holds the zero picture, which refuses, at age Never.
func NewMirror(clock func() time.Duration) *Mirror {
	return &Mirror{clock: clock, picture: &Picture{}, changed: make(chan struct{})}
}

// Apply takes a step. Steps older than the picture, unless complete, change nothing.
func (m *Mirror) Apply(c Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !c.Complete && c.Revision < m.picture.Revision {
		return
	}
	if c.Complete {
		m.run, m.reached = c.Run, c.Revision
	}
	m.reached = max(m.reached, c.Revision)
	m.picture = m.picture.next(c)
	close(m.changed)
	m.changed = make(chan struct{})
}

// Reach says that a run told everything up to a revision.
func (m *Mirror) Reach(revision uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reached = max(m.reached, revision)
}

// Resume is where to go on after a break: the run that told and the revision that it had told up to, zero where there
// is nothing to go on from.
func (m *Mirror) Resume() (run, after uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.run == 0 {
		return 0, 0
	}
	return m.run, m.reached
}

// Confirm says that the picture was current at a moment of the mirror's clock: when the ping was sent that has been
// echoed now.
func (m *Mirror) Confirm(sent time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.heard || sent > m.fresh {
		m.fresh, m.heard = sent, true
	}
}

// Tell says what auth's clock showed when it echoed a ping that was sent at a moment of the mirror's clock.
func (m *Mirror) Tell(sent time.Duration, authTime time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !authTime.IsZero() && sent >= m.fresh {
		m.zero = authTime.Add(-sent)
	}
}

// Time is auth's time as far as it is known here, never behind it, whatever became of this machine's own clock: what is
// over is over, also when auth's own calendar is set back. Before auth said its time it is otherwise.
func (m *Mirror) Time(otherwise time.Time) time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.zero.IsZero() {
		return otherwise
	}
	if t := m.zero.Add(m.clock()); t.After(m.latest) {
		m.latest = t
	}
	return m.latest
}

// Now is the mirror's clock, for the pings.
func (m *Mirror) Now() time.Duration { return m.clock() }

// Current is the picture and its age.
func (m *Mirror) Current() (*Picture, time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.heard {
		return m.picture, Never
	}
	return m.picture, max(0, m.clock()-m.fresh)
}

// Changed is closed at the next change.
func (m *Mirror) Changed() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changed
}
