package node

import (
	"context"

	"github.com/sallyport/sallyport/internal/access"
)

// right is something that a session's limits give, and may take back while it is used.
type right int

const (
	rightPort right = iota
	rightAgent
	rights // how many there are
)

// lease is how long what was begun under a right may go on.
type lease struct {
	ctx context.Context
	end context.CancelFunc
}

// forwards are what a connection carries beside its sessions, and the rights that it does so by.
type forwards struct {
	listeners map[string]*remoteForward // by what the client asked for
	leases    [rights]lease
}

func granted(l access.Limits, r right) bool {
	return (r == rightPort && l.PortForwarding) || (r == rightAgent && l.AgentForwarding)
}

// lease gives the context of what is begun under a right now, and whether the right is there. Who takes it before the
// limits change is ended by the change; who takes it after sees the change.
func (c *connection) lease(r right) (context.Context, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.forwards.leases[r].ctx, granted(c.session.Limits(), r)
}

func (c *connection) newLease(r right) {
	ctx, end := context.WithCancel(c.ctx)
	c.forwards.leases[r] = lease{ctx, end}
}

// watchLimits ends what was begun under a right once the right is taken back.
func (c *connection) watchLimits() {
	for {
		changed := c.session.Changed()
		limits := c.session.Limits()
		for r := range rights {
			if granted(limits, r) {
				continue
			}
			c.mu.Lock()
			c.forwards.leases[r].end() // first: a port that is being opened under it then is not
			c.newLease(r)
			c.mu.Unlock()
			if r == rightPort {
				c.closeListeners()
			}
		}
		select {
		case <-changed:
		case <-c.ctx.Done():
			return
		}
	}
}
