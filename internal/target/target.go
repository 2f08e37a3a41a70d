// Package target is what somebody wants to reach, and what they want to do there.
package target

import (
	"net/netip"

	"github.com/sallyport/sallyport/internal/label"
)

// Kind is a kind of target: a resource behind an agent, or, as Administration, the cluster's own resource kinds.
type Kind string

// The kinds.
const (
	Node           Kind = "node"
	Database       Kind = "db"
	Kube           Kind = "kube_cluster"
	App            Kind = "app"
	Administration Kind = "administration"
)

// Target is one thing that can be reached. Of an Administration target, Name is the resource kind (role, user, …) and
// Object, where it is known, the resource itself as `where` predicates see it.
type Target struct {
	Kind   Kind      `json:"kind"`
	ID     string    `json:"id,omitempty"`
	Name   string    `json:"name"`
	Labels label.Set `json:"labels,omitempty"`
	// Protocol is a database's.
	Protocol Protocol       `json:"protocol,omitempty"`
	Object   map[string]any `json:"-"`
}

// Replicate is the verb of a database connection that copies what is written there, Replication the entry of db_names that
// grants it, to the letter, as in a server's own list of hosts; a physical one names that as its database too.
const (
	Replicate   = "replicate"
	Replication = "replication"
)

// Action is what is to be done there. Only the fields of the target's kind count.
type Action struct {
	Login  string `json:"login,omitempty"`
	DBUser string `json:"db_user,omitempty"`
	DBName string `json:"db_name,omitempty"`
	Verb   string `json:"verb,omitempty"`
	// AsIs is that the database user cannot be made on demand here: it is whoever the server has of that name.
	AsIs bool `json:"as_is,omitempty"`
	// Kube is what is asked of a Kubernetes cluster, Verb what is to be done with it.
	Kube *KubeObject `json:"kube,omitempty"`
	From netip.Addr  `json:"from,omitzero"`
}
