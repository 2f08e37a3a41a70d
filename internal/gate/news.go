package gate

import (
	"github.com/sallyport/sallyport/internal/live"
)

// news is what of the live sessions was not told yet.
type news struct {
	bell   chan struct{} // rung, at most once ahead, when there is something
	said   map[string]struct{}
	unsaid map[string]struct{} // started, changed or ended since
}

func newNews() news {
	return news{bell: make(chan struct{}, 1), said: map[string]struct{}{}, unsaid: map[string]struct{}{}}
}

func (n *news) add(id string) {
	n.unsaid[id] = struct{}{}
	select {
	case n.bell <- struct{}{}:
	default:
	}
}

// end notes the end of a session; one that nobody heard of is forgotten.
func (n *news) end(id string) {
	if _, said := n.said[id]; !said {
		delete(n.unsaid, id)
		return
	}
	n.add(id)
}

// News receives when there is something for Tell.
func (g *Gate) News() <-chan struct{} { return g.news.bell }

// All is every live session; what Tell then returns is what changed since.
func (g *Gate) All() []live.Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.news.said)
	clear(g.news.unsaid)
	out := make([]live.Session, 0, len(g.index.all))
	for id, s := range g.index.all {
		g.news.said[id] = struct{}{}
		out = append(out, s.live())
	}
	return out
}

// Tell is what started or changed, and what ended, since All or Tell said so last.
func (g *Gate) Tell() (changed []live.Session, ended []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for id := range g.news.unsaid {
		if s := g.index.all[id]; s != nil {
			g.news.said[id] = struct{}{}
			changed = append(changed, s.live())
		} else {
			delete(g.news.said, id)
			ended = append(ended, id)
		}
	}
	clear(g.news.unsaid)
	return changed, ended
}

// live is the session as others are told of it.
func (s *Session) live() live.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	req := s.request
	out := live.Session{ID: s.id, Host: s.gate.host.ID, Identity: *req.Identity, Target: req.Target, Action: req.Action,
		Since: s.since.UTC(), Role: s.decision.Source.Name}
	out.Target.Object = nil
	if req.Start.Session != nil {
		out.Protocol = req.Start.Session.Protocol
	}
	return out
}
