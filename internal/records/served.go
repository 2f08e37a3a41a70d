package records

import (
	"context"
	"encoding/json"
	"net/url"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/store"
)

const servedPrefix = "served/"

// Claim is the agent that first served a resource that nobody created by hand: the name stays its own until it is removed.
type Claim struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"`
}

// Of reports whether the claim is a host's: its own, or that of one with the same name, which join tokens alone give to
// several.
func (c Claim) Of(h identity.Host) bool {
	return c.ID == h.ID || c.Name != "" && c.Name == h.Name
}

func servedKey(role identity.HostRole, name string) string {
	return servedPrefix + string(role) + "/" + url.PathEscape(name)
}

// Claimed is who holds the name of a resource; found is false where nobody does.
func (r *Records) Claimed(ctx context.Context, role identity.HostRole, name string) (c Claim, found bool, err error) {
	_, found, err = r.value(ctx, servedKey(role, name), &c)
	return c, found, err
}

// TakeServed are the operations by which a host takes the name of a resource that nobody holds.
func TakeServed(h identity.Host, name string) ([]store.Op, error) {
	raw, err := json.Marshal(Claim{ID: h.ID, Name: h.Name})
	key := servedKey(h.Role, name)
	return []store.Op{store.CheckRevision(key, 0), store.Put(key, raw)}, err
}
