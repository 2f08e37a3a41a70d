package database

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/access"
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
	// that name is there that was not made so, and where sessions of it are on the server that have other roles. Until
	// settled is called no agent disables the user: the session connects in between.
	Enable(ctx context.Context, v *Visit, u OnDemand) (settled func(), err error)
	// Disable takes the roles and the right to log in from the user, unless sessions of it are left on the server, by
	// another agent: the last one to end does.
	Disable(ctx context.Context, v *Visit, u OnDemand) error
	// Left lists the users who were made so and may log in, with no session of theirs on the server.
	Left(ctx context.Context, v *Visit) ([]string, error)
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

// Made is a session's hold on its database user.
type Made struct {
	settled, over func()
	err           error
}

// Settled says that the session has connected to the server, or will not.
func (m *Made) Settled() { m.settled() }

// Over disables the user after its last session at this agent; call it once what the session had at the server is gone,
// before End.
func (m *Made) Over() error {
	m.over()
	return m.err
}

// Enable has the session's database user made where the decision says so. A session whose user would be made otherwise by
// later decisions is cut.
func (s *Session) Enable(ctx context.Context, m Maker) (*Made, error) {
	l := s.main.Limits()
	if !l.CreateDBUser {
		s.keepRoles(l)
		return &Made{settled: func() {}, over: func() {}}, nil
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
	settled, err := held.enter(ctx, func() (func(), error) { return m.Enable(ctx, v, u) }, l.DBRoles)
	if err != nil {
		v.door.made.release(key)
		return nil, err
	}
	s.mu.Lock()
	s.made = true
	s.mu.Unlock()
	s.keepRoles(l)
	out := &Made{settled: sync.OnceFunc(settled)}
	out.over = sync.OnceFunc(func() {
		out.settled()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disableWait)
		defer cancel()
		defer v.door.made.release(key)
		out.err = held.leave(ctx, func() error { return m.Disable(ctx, v, u) })
	})
	return out, nil
}

// enter counts a session, which keeps its turn until it is settled: every one connects while no agent disables the user,
// for another agent sees those alone that the server shows.
func (u *madeUser) enter(ctx context.Context, enable func() (func(), error), roles string) (settled func(), err error) {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if u.live > 0 && u.roles != roles {
		<-u.turn
		return nil, OtherRoles()
	}
	done, err := enable()
	if err != nil {
		<-u.turn
		return nil, err
	}
	u.live, u.roles = u.live+1, roles
	return func() {
		done()
		<-u.turn
	}, nil
}

// unused disables a user that was left enabled, unless sessions of it live at this agent: the last one to end does, and those that
// begin meanwhile wait.
func (m *made) unused(ctx context.Context, key string, disable func() error) (disabled bool, err error) {
	u := m.hold(key)
	defer m.release(key)
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return false, context.Cause(ctx)
	}
	defer func() { <-u.turn }()
	if u.live > 0 {
		return false, nil
	}
	err = disable()
	return err == nil, err
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

// keepRoles cuts the session once its database user would be another than it was let in as: made on demand or not, or with
// other roles.
func (s *Session) keepRoles(was access.Limits) {
	s.main.Keep("database roles", func() error {
		is := s.main.Limits()
		if is.CreateDBUser == was.CreateDBUser && is.DBRoles == was.DBRoles {
			return nil
		}
		f := fault.New(fault.Denied, "the roles of your database user have changed").WithReason("db_roles_changed").WithFix("connect again")
		if is.CreateDBUser != was.CreateDBUser {
			return f.WithCause("create_db_user_mode of your roles changed")
		}
		return f.WithCause("db_roles of your roles changed")
	})
}
