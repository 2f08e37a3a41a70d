package snapshot

import (
	"testing"
	"time"
)

// TestTimeOfAuth is what an agent takes for the time while its own calendar is off.
func TestTimeOfAuth(t *testing.T) {
	var clock time.Duration
	m := NewMirror(func() time.Duration { return clock })
	own := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if got := m.Time(own); !got.Equal(own) {
		t.Fatalf("before auth said anything: %s", got)
	}
	auth := own.Add(time.Hour)
	clock = 10 * time.Second
	m.Confirm(9 * time.Second)
	m.Tell(9*time.Second, auth)
	// The echo was a second under way: auth's clock shows a second more at most.
	if got := m.Time(own); got.Before(auth) || got.After(auth.Add(time.Second)) {
		t.Fatalf("%s, auth's is %s", got, auth)
	}
	clock += time.Minute
	if got := m.Time(own.Add(-time.Hour)); !got.Equal(auth.Add(time.Minute + time.Second)) {
		t.Fatalf("a minute later: %s", got)
	}
	// An echo that was held back does not turn the time back.
	m.Confirm(time.Second)
	m.Tell(time.Second, auth)
	if got := m.Time(own); got.Before(auth.Add(time.Minute)) {
		t.Fatalf("an old echo: %s", got)
	}
	// Nor does auth's own calendar.
	clock += time.Minute
	m.Confirm(clock)
	m.Tell(clock, auth.Add(-6*time.Hour))
	if got := m.Time(own); got.Before(auth.Add(time.Minute)) {
		t.Fatalf("auth's calendar was set back: %s", got)
	}
}
