// Package upstream is the PostgreSQL engine's side towards a server: connections as a database user, cancel requests, and
// users made on demand.
package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/fault"
)

// Session is what a connection is for.
type Session struct {
	User     string
	Database string            // none for what copies all of a server
	Settings map[string]string // it begins with
}

// Conn is the agent's own connection to a server, with nothing under way on it.
type Conn struct {
	net.Conn
	PID        uint32
	Secret     []byte
	Parameters map[string]string // as the server told of them
}

// Refused is what the server said when it did not let the agent in.
type Refused struct{ Said wire.Error }

func (r *Refused) Error() string { return fmt.Sprintf("server: %s %s", r.Said.Code, r.Said.Message) }

// blank is a configuration that nothing of this process's environment is in.
var blank = sync.OnceValues(func() (*pgconn.Config, error) {
	return pgconn.ParseConfigWithOptions("host=server port=5432 user=nobody dbname=nobody password=none sslmode=disable passfile=/dev/null "+
		"target_session_attrs=any connect_timeout=0", pgconn.ParseConfigOptions{})
})

// dialServer lets the agent in at the visit's server as a database user, over TLS that is verified.
func dialServer(ctx context.Context, v *database.Visit, s Session) (*pgconn.PgConn, error) {
	plain, err := blank()
	if err != nil {
		return nil, err
	}
	c := plain.Copy()
	c.User, c.Database, c.RuntimeParams, c.Fallbacks, c.Password = s.User, s.Database, s.Settings, nil, ""
	c.SSLNegotiation, c.RequireAuth, c.ChannelBinding = "postgres", "", "prefer" // whatever the environment says
	c.MinProtocolVersion, c.MaxProtocolVersion = "3.0", "3.0"
	if c.RuntimeParams == nil {
		c.RuntimeParams = map[string]string{}
	}
	if password, has, err := v.Password(s.User); err != nil {
		return nil, err
	} else if has {
		c.Password = password
	}
	if c.TLSConfig, err = tlsConfig(ctx, v, s.User); err != nil {
		return nil, err
	}
	c.LookupFunc = func(context.Context, string) ([]string, error) { return []string{"server"}, nil }
	c.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return v.Dial(ctx) }
	conn, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, unreached(v, err)
	}
	return conn, nil
}

func tlsConfig(ctx context.Context, v *database.Visit, user string) (*tls.Config, error) {
	c, err := v.TLS(ctx, user)
	if err != nil {
		return nil, err
	}
	c = c.Clone()
	c.DynamicRecordSizingDisabled = true // every record is an answer, or a part of one, as long as it can be
	return c, nil
}

// unreached words what kept the agent from a server; what the server itself said is passed on.
func unreached(v *database.Visit, err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return &Refused{wire.Error{Severity: "FATAL", Code: pg.Code, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint}}
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return fault.New(fault.Unavailable, "database %q does not answer", v.Database.Name).WithReason("server_unreachable").
		WithCause("the agent cannot connect to its server").WithFix("try again; an administrator may look at the agent's log").Wrapping(err)
}

// Connect lets a client's session in.
func Connect(ctx context.Context, v *database.Visit, s Session) (*Conn, error) {
	pg, err := dialServer(ctx, v, s)
	if err != nil {
		return nil, err
	}
	if err := pg.SyncConn(ctx); err != nil {
		return nil, errors.Join(unreached(v, err), pg.Close(ctx))
	}
	h, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	return &Conn{h.Conn, h.PID, h.SecretKey, h.ParameterStatuses}, nil
}

// Cancel asks the server, over a connection of its own, to end what another one of the user's is doing.
func (c *Conn) Cancel(ctx context.Context, v *database.Visit, user string) error {
	conn, err := v.Dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(at); err != nil {
			return err
		}
	}
	if _, err := conn.Write(wire.SSLRequest()); err != nil {
		return err
	}
	var answer [1]byte
	if _, err := conn.Read(answer[:]); err != nil || answer[0] != 'S' {
		return errors.Join(errors.New("the server has no TLS"), err)
	}
	config, err := tlsConfig(ctx, v, user)
	if err != nil {
		return err
	}
	t := tls.Client(conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := t.Write(wire.Cancel(c.PID, c.Secret)); err != nil {
		return err
	}
	_, _ = t.Read(answer[:]) // the server closes once it has done it
	return nil
}
