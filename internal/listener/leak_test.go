package listener

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails where a test leaves a goroutine behind: each door and connection has an owner that waits for it.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
