// Package timerslack says how exactly the kernel keeps a process's timers, and so how often Go's monitor thread wakes.
//
// While there is work, Go's sysmon sleeps 20 µs at a time. With Linux's default slack of 50 µs it wakes some ten thousand
// times a second beside a connection that carries small messages, which costs a quarter of the processor's time at one
// client. Every timer of ours is one of milliseconds or more.
package timerslack

import "time"

const (
	// Default is Linux's own, which programs expect.
	Default = 50 * time.Microsecond
	// Relaxed is what a process that carries connections needs.
	Relaxed = 2 * time.Millisecond
)
