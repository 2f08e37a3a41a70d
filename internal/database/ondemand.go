package database

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
)

// disableWait bounds how long the end of a session waits for its database user to be disabled.
const disableWait = 20 * time.Second

// OnDemand is a database user that is made for a session: of its login's own name, with exactly these roles.
type OnDemand struct {
	User   string
	DBName string // of the session
	Roles  []string
}

// Maker makes database users on demand, in one protocol's way, as the database's admin_user.
type Maker interface {
	// Enable makes the user, or enables one that was made before, with its roles and no others. It refuses where a user of
	// that name is there that was not made so, and where sessions of it are on the server that have other roles.
	Enable(ctx context.Context, v *Visit, u OnDemand) error
	// Disable takes the roles and the right to log in from the user, unless sessions of it are left on the server, by
	// another agent: the last one to end does.
	Disable(ctx context.Context, v *Visit, u OnDemand) error
}

// made is who was made on demand and has sessions at this agent.
type made struct {
	mu    sync.Mutex
	users map[string]*madeUser // guarded by mu: by database and user
}

type madeUser struct {
	turn  chan struct{} // held by who enables or disables
	holds int           // guarded by made.mu: who uses or waits for it
	live  int           // guarded by turn: sessions
	roles string        // guarded by turn
}

func (m *made) hold(key string) *madeUser {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := m.users[key]
	if u == nil {
		u = &madeUser{turn: make(chan struct{}, 1)}
		m.users[key] = u
	}
	u.holds++
	return u
}

func (m *made) release(key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.users[key]; u != nil {
		if u.holds--; u.holds == 0 {
			delete(m.users, key)
		}
	}
}

// Enable has the session's database user made where the decision says so; without that nothing happens. done disables it
// after its last session at this agent, and must be called before End. A session whose roles change is cut.
func (s *Session) Enable(ctx context.Context, m Maker) (done func() error, err error) {
	changed := s.main.Changed()
	l := s.main.Limits()
	if !l.CreateDBUser {
		return func() error { return nil }, nil
	}
	v := s.visit
	if v.Database.AdminUser == "" {
		return nil, fault.New(fault.Unavailable, "database %q cannot have users made on demand", v.Database.Name).WithReason("no_admin_user").
			WithCause("a role sets create_db_user_mode, and the database has no admin_user").WithFix("ask an administrator to set admin_user of db/%s", v.Database.Name)
	}
	if s.dbUser == v.Database.AdminUser {
		return nil, fault.New(fault.Denied, "%q is the user that makes others", s.dbUser).WithReason("admin_user")
	}
	u := OnDemand{User: s.dbUser, DBName: s.main.Action().DBName}
	if l.DBRoles != "" {
		u.Roles = strings.Split(l.DBRoles, ",")
	}
	key := key(v.Database.Name, s.dbUser)
	held := v.door.made.hold(key)
	if err := held.enter(ctx, func() error { return m.Enable(ctx, v, u) }, l.DBRoles); err != nil {
		v.door.made.release(key)
		return nil, err
	}
	s.made = u
	var watching sync.WaitGroup
	watch, stop := context.WithCancel(s.Context())
	watching.Go(func() { s.watchRoles(watch, changed, l.DBRoles) })
	return func() error {
		stop()
		watching.Wait()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disableWait)
		defer cancel()
		defer v.door.made.release(key)
		return held.leave(ctx, func() error { return m.Disable(ctx, v, u) })
	}, nil
}

// OnDemand is the session's database user where Enable had it made.
func (s *Session) OnDemand() (OnDemand, bool) { return s.made, s.made.User != "" }

func (u *madeUser) enter(ctx context.Context, enable func() error, roles string) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-u.turn }()
	if u.live > 0 && u.roles != roles {
		return OtherRoles()
	}
	if u.live == 0 {
		if err := enable(); err != nil {
			return err
		}
	}
	u.live, u.roles = u.live+1, roles
	return nil
}

func (u *madeUser) leave(ctx context.Context, disable func() error) error {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return errors.Join(errors.New("disable database user"), context.Cause(ctx))
	}
	defer func() { <-u.turn }()
	if u.live--; u.live > 0 {
		return nil
	}
	return disable()
}

// OtherRoles refuses a session of a user who has live ones with other roles: they would change under these.
func OtherRoles() error {
	return fault.New(fault.Conflict, "your database user has sessions with other roles").WithReason("db_roles_in_use").
		WithCause("what your roles grant in this database has changed since they began").WithFix("end them, then connect again")
}

func (s *Session) watchRoles(ctx context.Context, changed <-chan struct{}, roles string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
		changed = s.main.Changed()
		if l := s.main.Limits(); !l.CreateDBUser || l.DBRoles != roles {
			s.cut(fault.New(fault.Denied, "the roles of your database user have changed").WithReason("db_roles_changed").
				WithCause("db_roles of your roles changed").WithFix("connect again"))
			return
		}
	}
}
