// Package doctor looks at everything between a device and trust, from the rights of files to the demands of roles, and
// names for each thing that is wrong the one command that mends it.
//
// It changes nothing, asks nothing, and shows no secret.
package doctor

import (
	"fmt"
	"io"
	"strings"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
)

// State is how a check went.
type State string

// The states. A Warning keeps nobody from trust by itself; what is Skipped could not be looked at, for something before
// it failed.
const (
	OK      State = "ok"
	Warning State = "warning"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"`
	State  State  `json:"state"`
	Says   string `json:"says,omitempty"`
	Reason string `json:"reason,omitempty"`
	Cause  string `json:"cause,omitempty"`
	Fix    string `json:"fix,omitempty"`
}

// Report is all that was looked at, in order.
type Report struct {
	Healthy bool    `json:"healthy"`
	Checks  []Check `json:"checks"`
}

// report gathers checks.
type report struct{ checks []Check }

func (r *report) ok(name, format string, args ...any) {
	r.checks = append(r.checks, Check{Name: name, State: OK, Says: fmt.Sprintf(format, args...)})
}

func (r *report) skip(name, why string) {
	r.checks = append(r.checks, Check{Name: name, State: Skipped, Says: why})
}

// wrong notes an error as a check that failed, or as a warning.
func (r *report) wrong(name string, err error, state State) {
	f := fault.Of(err)
	c := Check{Name: name, State: state, Says: f.Text, Reason: f.Reason, Cause: f.Cause, Fix: f.Fix}
	if f.Kind == fault.Internal && f.Err != nil {
		c.Says = f.Err.Error()
	}
	r.checks = append(r.checks, c)
}

func (r *report) failed(name string, err error) { r.wrong(name, err, Failed) }
func (r *report) warn(name string, err error)   { r.wrong(name, err, Warning) }

// is reports whether a check went well.
func (r *report) is(name string, state State) bool {
	for _, c := range r.checks {
		if c.Name == name {
			return c.State == state
		}
	}
	return false
}

func (r *report) finish() Report {
	out := Report{Healthy: true, Checks: r.checks}
	for _, c := range r.checks {
		out.Healthy = out.Healthy && c.State != Failed
	}
	return out
}

// Err is the exit status 1 where a check failed: what to say was printed.
func (r Report) Err() error {
	if r.Healthy {
		return nil
	}
	return console.Status(1)
}

// Text prints a line a check, and below what is wrong its cause and its remedy.
func (r Report) Text(w io.Writer) error {
	mark := map[State]string{OK: "ok", Warning: "warning", Failed: "FAILED", Skipped: "skipped"}
	for _, c := range r.Checks {
		fmt.Fprintf(w, "%-8s %s: %s\n", mark[c.State], c.Name, console.Safe(c.Says))
		for _, line := range []string{c.Cause, prefixed("to fix: ", c.Fix)} {
			if line != "" {
				fmt.Fprintln(w, "         "+console.Safe(line))
			}
		}
	}
	failed, warned := 0, 0
	for _, c := range r.Checks {
		switch c.State {
		case Failed:
			failed++
		case Warning:
			warned++
		}
	}
	said := "everything between this device and trust is in order"
	if failed > 0 {
		said = plural(failed, "check") + " failed"
	}
	if warned > 0 {
		said += ", " + plural(warned, "warning")
	}
	_, err := fmt.Fprintln(w, said)
	return err
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strings.TrimSpace(fmt.Sprintf("%d %s", n, what))
}
