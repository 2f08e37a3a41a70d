package rpc

import (
	"time"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
)

type resourceMessage = pb.Resource

// reachable refuses, of the calls that device modes leave open, those of users that a lock refuses or whose login is
// over, and those from elsewhere than a login's pinned address.
func reachable(locks lock.Set, c identity.Caller, now time.Time) error {
	if !now.Before(c.User.Validity.Expires) {
		return fault.New(fault.Unauthenticated, "the login has expired").WithReason("expired").WithFix("tsh login")
	}
	if pin := c.User.PinnedIP; pin.IsValid() && pin.Unmap() != c.Addr.Unmap() {
		return fault.New(fault.Denied, "the login is pinned to another address").WithReason("wrong_address").WithFix("tsh login")
	}
	if l := locks.MatchUser(c.User, now); l != nil {
		return fault.New(fault.Denied, "lock targeting %s is in force", l.Target).WithReason("locked").
			WithFix("tsh login   (or ask an administrator: tctl rm lock/%s)", l.Name)
	}
	return nil
}
