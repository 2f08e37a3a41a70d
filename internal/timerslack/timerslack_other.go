//go:build !linux

package timerslack

import "time"

// With calls f.
func With(_ time.Duration, f func() error) error { return f() }

// Relax does nothing: only Linux has a timer slack.
func Relax() error { return nil }
