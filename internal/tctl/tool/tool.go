// Package tool is what tctl's commands share: how they are made, how they reach the cluster, how they print times.
package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
)

// ErrNoLogin is what a Login returns where nobody is logged in.
var ErrNoLogin = fault.New(fault.Unauthenticated, "not logged in").WithReason("no_login")

// Login reaches the cluster of the current tsh login, as that user.
type Login func(ctx context.Context) (*client.Cluster, error)

// Program is what tctl runs with. Login may be nil: then there is none.
type Program struct {
	console.Streams
	Login Login
}

// Tool is one run. Close it.
type Tool struct {
	Program
	DataDir string
	Debug   bool
	reached *client.Cluster
}

// Close gives the connection back, where there was one.
func (t *Tool) Close() {
	if t.reached != nil {
		t.reached.Close()
	}
}

// PrintChain prints what an error wraps, one line each.
func (t *Tool) PrintChain(err error) {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(inner) {
		fmt.Fprintf(t.Err, "DEBUG: %T: %s\n", inner, console.Safe(inner.Error()))
	}
}

// Action is what a command does with its arguments.
type Action func(ctx context.Context, args []string) error

// Command makes a command that takes so many arguments; -1 means one or more.
func Command(use, short, example string, takes int, do Action) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: "  " + example,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != takes && (takes >= 0 || len(args) == 0) {
				return console.Usagef("usage: %s", cmd.UseLine())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return do(cmd.Context(), args) },
	}
}

// FormatFlag adds --format to a listing.
func FormatFlag(c *cobra.Command, f *console.Format) {
	c.Flags().StringVar((*string)(f), "format", "text", "text, json or yaml")
}

// Or is s, or something else where it is empty.
func Or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Until is a local time with its zone and how far away it is.
func Until(at time.Time) string {
	left, step := time.Until(at), time.Second
	if left > time.Minute {
		step = time.Minute
	}
	return fmt.Sprintf("%s [valid for %s]", at.Local().Format("2006-01-02 15:04:05 -0700 MST"), left.Round(step))
}

// defaultDataDir is where a server of this machine keeps its data unless told.
func (t *Tool) defaultDataDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/sallyport"
	}
	home := t.Env("HOME")
	if home == "" {
		home, _ = os.UserHomeDir()
	}
	return filepath.Join(home, ".local", "share", "sallyport")
}
