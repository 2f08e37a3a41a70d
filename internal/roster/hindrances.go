package roster

import (
	"time"

	"github.com/sallyport/sallyport/internal/access"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Hindrances says which rules would refuse the caller's login for its device, whatever it were used for, and what time
// it is here. Whoever has a login may ask it of this login.
func (s *Service) Hindrances(from identity.Caller) ([]*fault.Error, time.Time) {
	picture, _ := s.Pictures.Current()
	now := s.Now()
	return access.Hindrances(access.Input{Identity: from.User, Roles: picture.Roles, Locks: picture.Locks, Settings: picture.Settings, Now: now}), now
}
