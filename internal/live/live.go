// Package live is the sessions that agents carry right now, as the cluster knows them.
package live

import (
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Session is one session that an agent let in and that is not over. Host is the agent's UUID; auth takes it from the
// agent's certificate. Role is the role that grants it.
type Session struct {
	ID       string        `json:"id"`
	Host     string        `json:"host"`
	Protocol string        `json:"protocol"`
	Identity identity.User `json:"identity"`
	Target   target.Target `json:"target"`
	Action   target.Action `json:"action"`
	Since    time.Time     `json:"since"`
	Role     string        `json:"role"`
}

// Bounds on what an agent may say.
const (
	maxText   = 256
	maxLabels = 256
	maxRoles  = 1024
)

// Check refuses what does not fit a listing, or cannot be decided again.
func (s *Session) Check() error {
	if !ValidID(s.ID) {
		return fmt.Errorf("%.60q is no session id", s.ID)
	}
	if !identity.ValidName(s.Identity.Name) {
		return errors.New("a session of nobody")
	}
	for _, text := range []string{s.Protocol, s.Role, s.Target.ID, s.Target.Name, string(s.Target.Kind), s.Action.Login, s.Action.DBUser,
		s.Action.DBName, s.Action.Verb} {
		if len(text) > maxText {
			return errors.New("a session with a text that is too long")
		}
	}
	if len(s.Target.Labels) > maxLabels || len(s.Identity.Roles) > maxRoles || len(s.Identity.Traits) > maxRoles {
		return errors.New("a session with too many labels, roles or traits")
	}
	return nil
}

// ValidID reports whether s can be a session's id: a UUID as it is printed.
func ValidID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i, r := range s {
		switch i {
		case 8, 13, 18, 23:
			if r != '-' {
				return false
			}
		default:
			if (r < '0' || r > '9') && (r < 'a' || r > 'f') {
				return false
			}
		}
	}
	return true
}

// End is that an administrator ended a session: its agent cuts it when it hears of it.
type End struct {
	Session string    `json:"-"`
	By      string    `json:"by"`
	Message string    `json:"message,omitempty"`
	Expires time.Time `json:"expires"`
}
