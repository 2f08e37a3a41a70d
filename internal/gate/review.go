package gate

import (
	"context"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// Run decides again, whenever the picture changes, the sessions that the change can touch, and looks each second at
// what time does, until ctx ends; then it ends all sessions.
func (g *Gate) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		changed := g.pictures.Changed()
		g.review()
		select {
		case <-changed:
		case <-tick.C:
			g.watchTime()
		case <-ctx.Done():
			g.shut()
			return
		}
	}
}

// review decides by the current picture the sessions that its difference from the last one touches, and those that
// were let in by a picture in between: what came and went meanwhile must not keep them.
func (g *Gate) review() {
	g.mu.Lock()
	picture, age := g.pictures.Current() // under mu: no session in again was let in by a later one
	again := g.unsettled
	g.unsettled = map[*Session]struct{}{}
	if picture != g.reviewed {
		g.index.touched(picture.Since(g.reviewed), again)
		g.reviewed = picture
	}
	g.mu.Unlock()
	for s := range again {
		v, err := g.judge(view{picture, age, picture.Settings.LiveAge()}, s, true)
		if err != nil {
			s.finish(fault.Of(err))
			continue
		}
		g.settle(s, v)
	}
}

// settle gives a session what was decided, and the identity that it goes on as.
func (g *Gate) settle(s *Session, v verdict) {
	g.mu.Lock()
	before := s.Identity()
	if v.who != before && g.index.remove(s, before) {
		g.index.add(s, v.who)
		g.news.add(s.id)
	}
	s.take(v)
	g.mu.Unlock()
	s.holds()
}

// watchTime ends what time alone ends: sessions that are over, and those of strict roles when the picture is too old.
func (g *Gate) watchTime() {
	picture, age := g.pictures.Current()
	old := age > picture.Settings.LiveAge()
	now := g.now()
	for _, s := range g.Sessions() {
		if err := s.overdue(now); err != nil {
			s.finish(err)
		} else if old && s.Limits().Strict {
			s.finish(stale(age))
		}
	}
}

func (g *Gate) shut() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	for _, s := range g.Sessions() {
		s.finish(fault.New(fault.Unavailable, "the agent is stopping").WithReason("stopping"))
	}
}

// Sessions lists the live ones.
func (g *Gate) Sessions() []*Session {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]*Session, 0, len(g.index.all))
	for _, s := range g.index.all {
		out = append(out, s)
	}
	return out
}
