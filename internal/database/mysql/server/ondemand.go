package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// Maker makes users on demand: for a certificate of their name, with one role of their own, sallyport:NAME, that holds the
// roles that were granted and by which they are told from others (MariaDB has one role active at a time). All agents take one
// lock for a user, and ask the process list for sessions, so that several agents agree.
type Maker struct{}

// Enable implements database.Maker.
func (Maker) Enable(ctx context.Context, v *database.Visit, u database.OnDemand) (settled func(), err error) {
	return asAdmin(ctx, v, u, func(a *admin) error {
		hosts, err := a.column("SELECT Host FROM mysql.user WHERE User = " + quote(u.User))
		if err != nil {
			return err
		}
		held, err := a.roles(u.User, "%")
		if err != nil {
			return err
		}
		own := ownRole(u.User)
		switch {
		case len(hosts) == 0:
			if err := a.do("CREATE ROLE IF NOT EXISTS "+quote(own), "CREATE USER "+account(u.User)+" REQUIRE SUBJECT "+quote("/CN="+u.User),
				"GRANT "+quote(own)+" TO "+account(u.User), a.defaultRole(u.User)); err != nil {
				return err
			}
		case len(hosts) > 1 || hosts[0] != "%" || !slices.Contains(held, own):
			return fault.New(fault.Conflict, "database user %q is there already, and Sallyport did not make it", u.User).WithReason("db_user_exists").
				WithCause("users made on demand have the role %q", own).WithFix("name it in db_users of a role, or remove it from the server")
		}
		return a.grant(u)
	})
}

// grant gives a user who is there its roles and no others, and lets it log in.
func (a *admin) grant(u database.OnDemand) error {
	own := ownRole(u.User)
	has, err := a.roles(own, a.roleHost())
	if err != nil {
		return err
	}
	live, err := a.sessions(u.User)
	if err != nil {
		return err
	}
	want := slices.Sorted(slices.Values(u.Roles))
	if slices.Sort(has); live > 0 && !slices.Equal(has, want) {
		return database.OtherRoles()
	}
	for _, r := range has {
		if !slices.Contains(want, r) {
			if err := a.do("REVOKE " + quote(r) + " FROM " + quote(own)); err != nil {
				return err
			}
		}
	}
	for _, r := range want {
		if slices.Contains(has, r) {
			continue
		}
		if err := a.do("GRANT " + quote(r) + " TO " + quote(own)); err != nil {
			return fault.New(fault.Unavailable, "the database does not grant %q to %q", r, u.User).WithReason("db_roles").
				WithCause("%s", fault.Plain(err.Error())).WithFix("an administrator may look at db_roles, and at the rights of %q", a.name)
		}
	}
	return a.do("ALTER USER " + account(u.User) + " ACCOUNT UNLOCK")
}

// Disable implements database.Maker. It waits a little for the server to be done with the sessions that just ended.
func (Maker) Disable(ctx context.Context, v *database.Visit, u database.OnDemand) error {
	for range 20 {
		left := 0
		done, err := asAdmin(ctx, v, u, func(a *admin) (err error) {
			left, err = a.disable(u.User)
			return err
		})
		if err != nil {
			return err
		}
		done()
		if left == 0 {
			return nil
		}
		wait := time.NewTimer(50 * time.Millisecond)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return context.Cause(ctx)
		}
	}
	return nil // another agent's are left, whose end disables it
}

// Left implements database.Maker.
func (Maker) Left(ctx context.Context, v *database.Visit) ([]string, error) {
	a, err := loginAdmin(ctx, v)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	defer context.AfterFunc(ctx, a.Cut)()
	got, err := a.column(a.left())
	if err != nil {
		return nil, a.unmade(err)
	}
	return got, nil
}

// left asks for users who have their own role and are not locked, with no session.
func (a *admin) left() string {
	const idle = " AND NOT EXISTS (SELECT 1 FROM information_schema.PROCESSLIST p WHERE p.USER = u.User) ORDER BY u.User"
	if a.mariadb {
		return "SELECT u.User FROM mysql.global_priv u JOIN mysql.roles_mapping m ON m.User = u.User AND m.Host = u.Host WHERE u.Host = '%' AND " +
			"m.Role = CONCAT('sallyport:', u.User) AND NOT COALESCE(JSON_VALUE(u.Priv, '$.account_locked'), 0)" + idle
	}
	return "SELECT u.User FROM mysql.user u JOIN mysql.role_edges m ON m.TO_USER = u.User AND m.TO_HOST = u.Host WHERE u.Host = '%' AND " +
		"m.FROM_USER = CONCAT('sallyport:', u.User) AND u.account_locked = 'N'" + idle
}

// disable reports how many sessions are left, for which the user stays.
func (a *admin) disable(user string) (int, error) {
	held, err := a.roles(user, "%")
	if err != nil || !slices.Contains(held, ownRole(user)) {
		return 0, err
	}
	if n, err := a.sessions(user); err != nil || n > 0 {
		return n, err
	}
	if err := a.do("ALTER USER " + account(user) + " ACCOUNT LOCK"); err != nil {
		return 0, err
	}
	has, err := a.roles(ownRole(user), a.roleHost())
	for _, r := range has {
		err = errors.Join(err, a.do("REVOKE "+quote(r)+" FROM "+quote(ownRole(user))))
	}
	return 0, err
}

// admin is a connection of the admin user's.
type admin struct {
	*Server
	name    string
	mariadb bool
}

// asAdmin runs f as the admin user, alone for this database user among all agents until done is called.
func asAdmin(ctx context.Context, v *database.Visit, u database.OnDemand, f func(*admin) error) (done func(), err error) {
	a, err := loginAdmin(ctx, v)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, a.Cut)
	got, err := a.column("SELECT GET_LOCK(" + quote("sallyport "+u.User) + ", 10)")
	if err == nil && (len(got) != 1 || got[0] != "1") {
		err = errors.New("another agent holds the lock")
	}
	if err == nil {
		err = f(a)
	}
	stop()
	if err != nil {
		a.Close()
		return nil, a.unmade(err)
	}
	return a.Close, nil // with it the lock is gone
}

// loginAdmin connects as the admin user.
func loginAdmin(ctx context.Context, v *database.Visit) (*admin, error) {
	s, err := Greeted(ctx, v)
	if err != nil {
		return nil, err
	}
	a := &admin{s, v.Database.AdminUser, strings.Contains(s.Greeting.Version, "MariaDB")}
	l := mysql.Login{Capabilities: mysql.Protocol41 | s.Greeting.Capabilities&mysql.LongPassword, MaxPacket: 1 << 24, Charset: 45, User: a.name}
	if _, err := s.Login(ctx, v, l); err != nil {
		s.Close()
		return nil, fault.New(fault.Unavailable, "the database does not let %q in, who makes users", a.name).WithReason("admin_user").
			WithCause("%s", fault.Plain(err.Error())).WithFix("an administrator may look at admin_user of db/%s", v.Database.Name)
	}
	stop := context.AfterFunc(ctx, s.Cut)
	defer stop()
	err = a.do("SET sql_mode = ''")
	if err == nil {
		err = a.sees()
	}
	if err != nil {
		s.Close()
		return nil, a.unmade(err)
	}
	return a, nil
}

// sees refuses where the process list shows this user's own sessions alone, so that everybody else seems to have none.
func (a *admin) sees() error {
	grants, err := a.column("SHOW GRANTS")
	if err != nil {
		return err
	}
	for _, g := range grants {
		what, _, everywhere := strings.Cut(strings.TrimPrefix(g, "GRANT "), " ON *.* TO ")
		all := strings.Split(what, ", ")
		if everywhere && (slices.Contains(all, "PROCESS") || slices.Contains(all, "ALL PRIVILEGES")) {
			return nil
		}
		if !a.mariadb && strings.HasPrefix(what, "`") { // a role, which MySQL does not spell out here
			return nil
		}
	}
	return errors.New("it has not the right PROCESS, so it does not see who has sessions")
}

func (a *admin) unmade(err error) error {
	var known *fault.Error
	if errors.As(err, &known) {
		return known
	}
	return fault.New(fault.Unavailable, "the database user cannot be made").WithReason("db_user_unmade").
		WithCause("%s", fault.Plain(err.Error())).WithFix("an administrator may look at the rights of %q: docs/databases.md names them", a.name)
}

// roles are those that a user, or a role, has itself.
func (a *admin) roles(name, host string) ([]string, error) {
	if a.mariadb {
		return a.column("SELECT Role FROM mysql.roles_mapping WHERE User = " + quote(name) + " AND Host = " + quote(host))
	}
	return a.column("SELECT FROM_USER FROM mysql.role_edges WHERE TO_USER = " + quote(name) + " AND TO_HOST = " + quote(host))
}

// roleHost is the host part under which the server keeps what a role holds.
func (a *admin) roleHost() string {
	if a.mariadb {
		return ""
	}
	return "%"
}

func (a *admin) defaultRole(user string) string {
	return "SET DEFAULT ROLE " + quote(ownRole(user)) + map[bool]string{true: " FOR ", false: " TO "}[a.mariadb] + account(user)
}

func (a *admin) sessions(user string) (int, error) {
	got, err := a.column("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = " + quote(user))
	if err != nil || len(got) != 1 {
		return 0, errors.Join(err, errors.New("no count of sessions"))
	}
	return strconv.Atoi(got[0])
}

func ownRole(user string) string { return "sallyport:" + user }

func account(user string) string { return quote(user) + "@'%'" }

// quote is a string's literal; sql_mode is empty.
func quote(s string) string {
	return "'" + strings.NewReplacer("'", "''", `\`, `\\`).Replace(s) + "'"
}

func (a *admin) do(statements ...string) error {
	for _, s := range statements {
		if _, err := a.column(s); err != nil {
			return err
		}
	}
	return nil
}

// maxRows bounds what is read of an answer.
const maxRows = 4096

// column runs a statement and gives the first column of its rows.
func (a *admin) column(statement string) (out []string, err error) {
	a.Raw.SetDeadline(time.Now().Add(2 * HandshakeTime))
	a.Seq = 0
	if err := a.SendNow(append([]byte{byte(mysql.Query)}, statement...)); err != nil {
		return nil, err
	}
	ends := 0
	for range maxRows {
		b, err := a.Receive()
		switch {
		case err != nil:
			return nil, err
		case len(b) == 0:
			return nil, fmt.Errorf("%w: empty", mysql.ErrMalformed)
		case b[0] == mysql.HeadErr:
			return nil, mysql.ParseError(b)
		case b[0] == mysql.HeadOK && ends == 0:
			return nil, nil
		case b[0] == mysql.HeadEOF && len(b) < 9:
			if ends++; ends == 2 {
				return out, nil
			}
		case ends == 1:
			text, err := mysql.FirstText(b)
			if err != nil {
				return nil, err
			}
			out = append(out, text)
		}
	}
	return nil, fmt.Errorf("%w: an answer without end", mysql.ErrMalformed)
}
