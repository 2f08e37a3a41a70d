package upstream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/fault"
)

// madeGroup is the role that every user who is made on demand is a member of: by it they are told from others.
const madeGroup = "sallyport-on-demand"

// isMade is that role r is itself a member of group g. A superuser counts as one of every role, whoever was granted a user
// that was made as one too, and who makes a role becomes one that may grant it.
const isMade = "EXISTS (SELECT FROM pg_auth_members y WHERE y.member = r.oid AND y.roleid = g.oid AND NOT y.admin_option)"

// adminDatabase is where admin_user connects, whatever the session's database is: an advisory lock is one database's.
const adminDatabase = "postgres"

// lockNotAvailable is the SQLSTATE of a lock that was waited for too long.
const lockNotAvailable = "55P03"

// Maker makes users on demand: CREATE ROLE … LOGIN, a member of madeGroup and of the roles that were granted. All agents
// take one advisory lock for a user, and ask pg_stat_activity for sessions, so that several agents agree.
type Maker struct{}

// Enable implements database.Maker.
func (Maker) Enable(ctx context.Context, v *database.Visit, u database.OnDemand) (settled func(), err error) {
	return asAdmin(ctx, v, u, func(t *transaction) error {
		row, err := t.row("SELECT r.oid::text, ("+isMade+")::text, (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid)::text FROM pg_roles r, pg_roles g WHERE r.rolname = $1 AND g.rolname = $2", u.User, madeGroup)
		if err != nil {
			return err
		}
		had, err := t.roles(u.User)
		if err != nil {
			return err
		}
		name := quote(u.User)
		switch {
		case row == nil:
			if err := t.do("CREATE ROLE " + name + " LOGIN IN ROLE " + quote(madeGroup)); err != nil {
				return err
			}
		case row[1] != "true":
			return fault.New(fault.Conflict, "database user %q is there already, and Sallyport did not make it", u.User).WithReason("db_user_exists").
				WithCause("users made on demand are members of %q", madeGroup).WithFix("name it in db_users of a role, or remove it from the server")
		case row[2] != "0" && !slices.Equal(had, slices.Sorted(slices.Values(u.Roles))):
			return database.OtherRoles()
		default:
			if err := t.do("ALTER ROLE " + name + " LOGIN"); err != nil {
				return err
			}
			if err := t.revoke(name, had, u.Roles); err != nil {
				return err
			}
		}
		for _, r := range u.Roles {
			if err := t.do("GRANT " + quote(r) + " TO " + name); err != nil {
				return fault.New(fault.Unavailable, "the database does not grant %q to %q", r, u.User).WithReason("db_roles").
					WithCause("%s", fault.Plain(said(err))).WithFix("an administrator may look at db_roles, and at the rights of %q", v.Database.AdminUser)
			}
		}
		return nil
	})
}

// Disable implements database.Maker. It waits a little for the server to be done with the sessions that just ended.
func (Maker) Disable(ctx context.Context, v *database.Visit, u database.OnDemand) error {
	for range 20 {
		left := false
		done, err := asAdmin(ctx, v, u, func(t *transaction) (err error) {
			left, err = t.disable(u)
			return err
		})
		if err != nil {
			return err
		}
		done()
		if !left {
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
	conn, err := dialAdmin(ctx, v)
	if err != nil {
		return nil, err
	}
	t := &transaction{ctx, conn}
	defer t.end()
	rows, err := t.rows("SELECT r.rolname FROM pg_roles r, pg_roles g WHERE g.rolname = $1 AND r.rolcanlogin AND "+isMade+
		" AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.usesysid = r.oid) ORDER BY r.rolname", madeGroup)
	if err != nil {
		return nil, t.unmade(v, err)
	}
	var names []string
	for _, r := range rows {
		names = append(names, r[0])
	}
	return names, nil
}

// disable reports whether sessions are left, for which the user stays.
func (t *transaction) disable(u database.OnDemand) (left bool, err error) {
	row, err := t.row("SELECT (SELECT count(*) FROM pg_stat_activity a WHERE a.usesysid = r.oid)::text FROM pg_roles r, pg_roles g WHERE r.rolname = $1 AND g.rolname = $2 AND "+isMade, u.User, madeGroup)
	if err != nil || row == nil {
		return false, err
	}
	if row[0] != "0" {
		return true, nil
	}
	if err := t.do("ALTER ROLE " + quote(u.User) + " NOLOGIN"); err != nil {
		return false, err
	}
	had, err := t.roles(u.User)
	if err != nil {
		return false, err
	}
	return false, t.revoke(quote(u.User), had, nil)
}

// transaction is one of the admin user's.
type transaction struct {
	ctx  context.Context
	conn *pgconn.PgConn
}

// asAdmin runs f in a transaction of the admin user, alone for this database user among all agents until done is called.
func asAdmin(ctx context.Context, v *database.Visit, u database.OnDemand, f func(*transaction) error) (done func(), err error) {
	conn, err := dialAdmin(ctx, v)
	if err != nil {
		return nil, err
	}
	t := &transaction{ctx, conn}
	if err := t.alone(u, f); err != nil {
		t.end()
		return nil, t.unmade(v, err)
	}
	return t.end, nil
}

// dialAdmin connects as the admin user.
func dialAdmin(ctx context.Context, v *database.Visit) (*pgconn.PgConn, error) {
	conn, err := dialServer(ctx, v, Session{v.Database.AdminUser, adminDatabase, map[string]string{"application_name": "sallyport", "search_path": "pg_catalog"}})
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the database does not let %q in, who makes users", v.Database.AdminUser).WithReason("admin_user").
			WithCause("%s", fault.Plain(said(err))).WithFix("an administrator may look at admin_user of db/%s", v.Database.Name)
	}
	return conn, nil
}

// end closes the connection; with it its lock is gone.
func (t *transaction) end() {
	last, cancel := context.WithTimeout(context.WithoutCancel(t.ctx), time.Second)
	defer cancel()
	_ = t.conn.Close(last)
}

func (t *transaction) alone(u database.OnDemand, f func(*transaction) error) error {
	if err := t.do("SET lock_timeout = '10s'"); err != nil {
		return err
	}
	_, err := t.row("SELECT pg_advisory_lock(hashtextextended($1, 0))::text", "sallyport "+u.User)
	if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == lockNotAvailable {
		return fault.New(fault.Unavailable, "somebody on the server holds the lock of database user %q", u.User).WithReason("db_user_busy").
			WithCause("it waited 10 s for it").WithFix("try again; an administrator may look at pg_locks of the database %q", adminDatabase)
	}
	if err != nil {
		return err
	}
	if err := t.do("BEGIN"); err != nil {
		return err
	}
	if err := t.group(); err != nil {
		return err
	}
	if err := f(t); err != nil {
		return err
	}
	return t.do("COMMIT")
}

// group makes madeGroup where it is missing; two agents may both find it so.
func (t *transaction) group() error {
	row, err := t.row("SELECT 'there' FROM pg_roles WHERE rolname = $1", madeGroup)
	if err != nil || row != nil {
		return err
	}
	if _, err := t.row("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text", madeGroup); err != nil {
		return err
	}
	if row, err = t.row("SELECT 'there' FROM pg_roles WHERE rolname = $1", madeGroup); err != nil || row != nil {
		return err
	}
	return t.do("CREATE ROLE " + quote(madeGroup) + " NOLOGIN")
}

func (t *transaction) unmade(v *database.Visit, err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return fault.New(fault.Unavailable, "the database user cannot be made").WithReason("db_user_unmade").
		WithCause("%s", fault.Plain(said(err))).WithFix("an administrator may look at the rights of %q: it needs CREATEROLE", v.Database.AdminUser)
}

func said(err error) string {
	var pg *pgconn.PgError
	var s *Refused
	switch {
	case errors.As(err, &pg):
		return fmt.Sprintf("%s %s", pg.Code, pg.Message)
	case errors.As(err, &s):
		return fmt.Sprintf("%s %s", s.Said.Code, s.Said.Message)
	}
	return fault.Of(err).Text
}

func (t *transaction) do(sql string) error {
	_, err := t.conn.Exec(t.ctx, sql).ReadAll()
	return err
}

// row is the first row, or nil.
func (t *transaction) row(sql string, args ...string) ([]string, error) {
	rows, err := t.rows(sql, args...)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	return rows[0], nil
}

func (t *transaction) rows(sql string, args ...string) ([][]string, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	got := t.conn.ExecParams(t.ctx, sql, values, nil, nil, nil).Read()
	out := make([][]string, len(got.Rows))
	for i, r := range got.Rows {
		for _, c := range r {
			out[i] = append(out[i], string(c))
		}
	}
	return out, got.Err
}

// roles are those that a user was granted, sorted, but for madeGroup.
func (t *transaction) roles(user string) ([]string, error) {
	rows, err := t.rows("SELECT m.rolname FROM pg_auth_members x JOIN pg_roles m ON m.oid = x.roleid JOIN pg_roles r ON r.oid = x.member "+
		"WHERE r.rolname = $1 AND m.rolname <> $2", user, madeGroup)
	var out []string
	for _, r := range rows {
		out = append(out, r[0])
	}
	slices.Sort(out)
	return out, err
}

// revoke takes the roles that are had and not kept.
func (t *transaction) revoke(name string, had, kept []string) error {
	for _, r := range had {
		if slices.Contains(kept, r) {
			continue
		}
		if err := t.do("REVOKE " + quote(r) + " FROM " + name); err != nil {
			return err
		}
	}
	return nil
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
