package feed

import (
	"encoding/json"
	"sync"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/wire"
)

// printedMost bounds what printed keeps; past it, it begins anew.
const printedMost = 20000

// printed keeps resources as they go out, for a thousand hosts are told of the same one.
type printed struct {
	mu   sync.Mutex
	kept map[*manifest.Resource]*pb.Resource // guarded by mu

	heads *event.SignedHeads // guarded by mu: the list that raw is
	raw   []byte             // guarded by mu
}

// headsOf is a signed list of audit heads as it goes out, nil where it cannot be printed.
func (p *printed) headsOf(h *event.SignedHeads) []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.heads != h {
		raw, err := json.Marshal(h)
		if err != nil {
			return nil
		}
		p.heads, p.raw = h, raw
	}
	return p.raw
}

// resource is a resource as it goes out. Nobody may change either.
func (p *printed) resource(r *manifest.Resource) (*pb.Resource, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.kept[r]; m != nil {
		return m, nil
	}
	m, err := wire.Resource(r)
	if err != nil {
		return nil, err
	}
	if p.kept == nil || len(p.kept) >= printedMost {
		p.kept = map[*manifest.Resource]*pb.Resource{}
	}
	p.kept[r] = m
	return m, nil
}
