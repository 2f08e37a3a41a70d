//go:build !linux

package timerslack

import (
	"context"
	"time"
)

// With calls f.
func With(_ time.Duration, f func() error) error { return f() }

// Relax does nothing: only Linux has a timer slack.
func Relax(context.Context) error { return nil }
