package identity

import (
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/target"
)

// Server is a host as the roster knows it, the resource node (or proxy); its name in the roster is its UUID.
type Server struct {
	ID         string    `json:"-"`
	Role       HostRole  `json:"role"`
	Hostname   string    `json:"hostname,omitempty"`
	Labels     label.Set `json:"labels,omitempty"`
	Version    string    `json:"version,omitempty"`
	PublicAddr []string  `json:"public_addr,omitempty"`
	// Serves is what an agent of role db or kube serves.
	Serves   []target.Served `json:"serves,omitempty"`
	LastSeen time.Time       `json:"last_seen,omitzero"`
}

// Check refuses what does not fit a listing or a selector.
func (s Server) Check() error {
	if s.Hostname != "" && !ValidName(s.Hostname) {
		return fmt.Errorf("hostname: %q is not 1 to 128 printable ASCII characters without space or comma", s.Hostname)
	}
	for k, v := range s.Labels {
		if !label.Name(k) || (v != "" && !label.Name(v)) {
			return fmt.Errorf("labels: %q: %q is not printable ASCII without comma or equals sign", k, v)
		}
	}
	if err := target.CheckServed(s.Serves); err != nil {
		return fmt.Errorf("serves: %w", err)
	}
	return nil
}

// JoinToken lets hosts join in given roles, and under one name where Name is set. Its secret is stored as a hash.
type JoinToken struct {
	ID      string     `json:"-"`
	Roles   []HostRole `json:"roles"`
	Name    string     `json:"name,omitempty"`
	Expires time.Time  `json:"expires"`
}

// Check refuses a token that gives no role or one that no token may give.
func (t JoinToken) Check() error {
	if len(t.Roles) == 0 {
		return errors.New("roles: a token needs at least one")
	}
	for _, r := range t.Roles {
		if _, ok := ParseHostRole(string(r)); !ok {
			return fmt.Errorf("roles: unknown role %q, want proxy, node, db, kube or app", r)
		}
	}
	if t.Name != "" && !ValidName(t.Name) {
		return fmt.Errorf("name: %q is not 1 to 128 printable ASCII characters without space or comma", t.Name)
	}
	return nil
}
