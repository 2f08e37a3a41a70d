// Package daemon assembles the server: auth, proxy and agents in one process, each as it would be in its own.
//
// The parts speak to each other as they would over a network: a proxy through auth's listener, an agent through a
// proxy's public port. So a process that holds all of them runs the same code as three that hold one each.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Options are what a daemon runs with. Executable is this program, to start a login's SFTP server with. Ready is told
// once everything listens.
type Options struct {
	Config      config.Config
	ApplyConfig bool
	Executable  string
	Out         io.Writer
	Log         *slog.Logger
	Ready       func(State)
}

// State is where a running daemon listens, and what others need to reach it.
type State struct {
	Cluster string
	CAPin   string
	Proxy   string // HOST:PORT that people type
	Listen  string // what the public port is bound to
	Auth    string
	Node    string
	Serves  map[string][]string // databases and Kubernetes clusters, by what they are
	Socket  string
	Users   int // how many there are
}

// Run runs the daemon until ctx ends; then it stops in order.
func Run(ctx context.Context, o Options) error {
	if err := os.MkdirAll(o.Config.DataDir, 0o700); err != nil {
		return fault.New(fault.Unavailable, "the data directory %s cannot be made", o.Config.DataDir).Wrapping(err).
			WithCause("%v", err).WithFix("sallyport start --data-dir=DIR")
	}
	if err := noCores(); err != nil {
		return fmt.Errorf("limit core files: %w", err)
	}
	d := &daemon{Options: o}
	defer d.close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	group, ctx := errgroup.WithContext(ctx)
	d.group, d.ctx = group, ctx
	if err := d.start(); err != nil {
		cancel(err)
		_ = group.Wait()
		return err
	}
	if o.Ready != nil {
		o.Ready(d.state)
	}
	err := group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// daemon is one run. Its parts end in the reverse of the order in which they began.
type daemon struct {
	Options
	ctx    context.Context
	group  *errgroup.Group
	state  State
	auth   *authPart
	closes []func()
}

func (d *daemon) close() {
	for i := len(d.closes) - 1; i >= 0; i-- {
		d.closes[i]()
	}
}

func (d *daemon) later(f func()) { d.closes = append(d.closes, f) }

func (d *daemon) start() error {
	c := d.Config
	if c.Auth != nil {
		if err := d.startAuth(); err != nil {
			return err
		}
	}
	if c.Proxy != nil {
		if err := d.startProxy(); err != nil {
			return err
		}
	}
	if c.SSH != nil {
		if err := d.startNode(); err != nil {
			return err
		}
	}
	if c.DB != nil {
		if err := d.startDatabases(); err != nil {
			return err
		}
	}
	if c.Kube != nil {
		return d.startKube()
	}
	return nil
}

// run runs a part until the daemon ends; a part that fails ends the daemon.
func (d *daemon) run(name string, f func(ctx context.Context) error) {
	d.group.Go(func() error {
		for {
			err := f(d.ctx)
			if err == nil || d.ctx.Err() != nil {
				return nil
			}
			if d.auth == nil || !fault.Because(err, "host_removed") {
				return fmt.Errorf("%s: %w", name, err)
			}
			// An administrator locked this part out of the cluster, or removed it; auth, in the same process, goes on,
			// and the part comes back when the lock is lifted.
			d.Log.Error("a part of this process is locked out of the cluster", "part", name, "err", err)
			select {
			case <-time.After(lockedPause):
			case <-d.ctx.Done():
				return nil
			}
		}
	})
}

// lockedPause is how often a part that is locked out tries again.
const lockedPause = 2 * time.Second

// listen binds an address; one that is taken is said in words.
func listen(addr, flag string) (net.Listener, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot listen on %s", addr).WithReason("listen").WithCause("%v", err).
			WithFix("stop what holds the port, or set %s in the config file", flag)
	}
	return l, nil
}

// memberFile is where a host's part keeps its identity.
func (d *daemon) memberFile(role identity.HostRole) string {
	return filepath.Join(d.Config.DataDir, "host", string(role)+".json")
}

// retry calls f until ctx ends, with growing pauses after failures; a call that lasted begins anew with a short one.
func retry(ctx context.Context, log *slog.Logger, what string, f func(ctx context.Context) error) error {
	pause := 100 * time.Millisecond
	for {
		began := time.Now()
		err := f(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fault.Because(err, "host_removed") {
			return err
		}
		if time.Since(began) > 30*time.Second {
			pause = 100 * time.Millisecond
		}
		log.Warn(what+" broke, trying again", "err", err, "in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil
		}
		pause = min(2*pause, 5*time.Second)
	}
}
