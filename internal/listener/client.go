package listener

import (
	"cmp"
	"context"
	"errors"
	"net"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// startTime bounds the start of a listener.
const startTime = 15 * time.Second

// Client steers the listener of a TSH_HOME. Spawn starts one as a process of its own, and is called by one of those that
// need it at once.
type Client struct {
	Home  string
	Spawn func() error
	Every time.Duration // how often Hold says that a door is wanted; 0: a minute
}

// Open has a door opened, and the listener started where there is none, and returns the door as it is.
func (c Client) Open(ctx context.Context, s Spec) (Spec, error) {
	if err := c.ensure(ctx); err != nil {
		return s, err
	}
	a, err := c.call(ctx, call{Op: "open", Spec: s})
	if err != nil {
		return s, err
	}
	if len(a.Doors) != 1 {
		return s, errors.New("the listener opened nothing")
	}
	return a.Doors[0], nil
}

// Close has a door closed, where there is a listener.
func (c Client) Close(ctx context.Context, s Spec) error {
	return c.quietly(ctx, call{Op: "close", Spec: s})
}

// CloseAll closes Everybody's doors of a resource, or of all of a role, and returns how many they were.
func (c Client) CloseAll(ctx context.Context, s Spec) (int, error) {
	s.Holder = Everybody
	a, err := c.call(ctx, call{Op: "close", Spec: s})
	if fault.Because(err, "no_listener") {
		return 0, nil
	}
	return a.Closed, err
}

// Hold keeps a door, and with it the listener, until ctx ends; an error where the listener was stopped meanwhile.
func (c Client) Hold(ctx context.Context, s Spec) error {
	tick := time.NewTicker(cmp.Or(c.Every, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return c.Close(context.WithoutCancel(ctx), s)
		}
		// To its end, though ctx ends meanwhile: what the listener had read already it would do behind the close.
		if _, err := c.call(context.WithoutCancel(ctx), call{Op: "open", Spec: s}); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// Stop ends the listener, where there is one, and waits until it is gone.
func (c Client) Stop(ctx context.Context) error {
	if _, err := c.call(ctx, call{Op: "stop"}); err != nil {
		if fault.Because(err, "no_listener") {
			return nil
		}
		return err
	}
	unlock, err := c.wait(ctx, filepath.Join(c.Home, "listener.lock"))
	if err == nil {
		unlock()
	}
	return err
}

// Doors lists the doors that are open; none where no listener runs.
func (c Client) Doors(ctx context.Context) ([]Spec, error) {
	a, err := c.call(ctx, call{Op: "status"})
	if fault.Because(err, "no_listener") {
		return nil, nil
	}
	return a.Doors, err
}

func (c Client) quietly(ctx context.Context, q call) error {
	if _, err := c.call(ctx, q); err != nil && !fault.Because(err, "no_listener") {
		return err
	}
	return nil
}

func (c Client) call(ctx context.Context, q call) (answer, error) {
	conn, err := (&net.Dialer{Timeout: callTime}).DialContext(ctx, "unix", Path(c.Home))
	if err != nil {
		return answer{}, fault.New(fault.Unavailable, "no listener runs").WithReason("no_listener").Wrapping(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(callTime))
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var a answer
	if err := tunnel.WriteFrame(conn, q); err != nil {
		return a, unanswered(err)
	}
	if err := tunnel.ReadFrame(conn, &a); err != nil {
		return a, unanswered(err)
	}
	return a, a.Status.Err()
}

func unanswered(err error) error {
	return fault.New(fault.Unavailable, "the listener does not answer").WithReason("listener").WithFix("tsh logout; tsh login").Wrapping(err)
}

// ensure starts a listener where there is none. Of many that need one at once, one starts it and the others wait.
func (c Client) ensure(ctx context.Context) error {
	if _, err := c.call(ctx, call{Op: "status"}); !fault.Because(err, "no_listener") {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	unlock, err := c.wait(ctx, filepath.Join(c.Home, "listener.starting"))
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := c.call(ctx, call{Op: "status"}); !fault.Because(err, "no_listener") {
		return err
	}
	if err := c.Spawn(); err != nil {
		return fault.New(fault.Unavailable, "the listener cannot be started").WithReason("listener").WithCause("%v", err).Wrapping(err)
	}
	for {
		_, err := c.call(ctx, call{Op: "status"})
		if !fault.Because(err, "no_listener") {
			return err
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the listener did not start").WithReason("listener").
				WithFix("tsh listener   (and see what it says)")
		}
	}
}

// wait takes a lock that another holds for a short while.
func (c Client) wait(ctx context.Context, path string) (func(), error) {
	for {
		unlock, err := lock(path)
		if !fault.Because(err, "listener_running") {
			return unlock, err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, unanswered(ctx.Err())
		}
	}
}
