package console

import (
	"fmt"
	"time"
)

// Moment reads a time as people type it: a date, a time, or how long ago.
func Moment(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at.UTC(), nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04:05", "2006-01-02 15:04:05"} {
		if at, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time", s)
}

// Span reads what --from and --to say; what is empty is the zero time.
func Span(from, to string, now time.Time) (since, until time.Time, err error) {
	for _, b := range []struct {
		name, text string
		at         *time.Time
	}{{"--from", from, &since}, {"--to", to, &until}} {
		if b.text == "" {
			continue
		}
		if *b.at, err = Moment(b.text, now); err != nil {
			return since, until, Usagef("%s: %v: want 2006-01-02, 2006-01-02T15:04:05Z, or 24h for a day ago", b.name, err)
		}
	}
	return since, until, nil
}
