package mongo

import (
	"testing"

	"github.com/sallyport/sallyport/internal/peer/door"
)

// TestA30Stalled: who was not let in and takes no answers holds nothing for long.
func TestA30Stalled(t *testing.T) {
	door.Stalled(t, New(), command("admin", "hello"), loginTime+partingTime)
}
