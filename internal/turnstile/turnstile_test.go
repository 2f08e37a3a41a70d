package turnstile

import (
	"context"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestA30Turnstile brings more than may pass: the others wait, come when there is room, and give up in time.
func TestA30Turnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ts := New(Config{AtOnce: 2, Waiting: 1, Wait: 10 * time.Second})
		a, b := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
		first, second := ts.Enter(t.Context(), a), ts.Enter(t.Context(), a)
		if first == nil || second == nil {
			t.Fatal("refused too early")
		}
		if other := ts.Enter(t.Context(), b); other == nil {
			t.Fatal("another address was refused")
		} else {
			other()
			other() // once counts
		}
		waits := make(chan func(), 1)
		go func() { waits <- ts.Enter(t.Context(), a) }()
		synctest.Wait()
		if got := ts.Enter(t.Context(), a); got != nil {
			t.Fatal("one too many may wait")
		}
		first()
		third := <-waits
		if third == nil {
			t.Fatal("who waited was refused")
		}
		began := time.Now()
		if late := ts.Enter(t.Context(), a); late != nil || time.Since(began) != 10*time.Second {
			t.Fatalf("gave up after %s", time.Since(began))
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if ts.Enter(ended, a) != nil {
			t.Fatal("let in after the end")
		}
		second()
		third()
		if len(ts.lanes) != 0 {
			t.Fatalf("%d addresses are still held", len(ts.lanes))
		}
	})
}
