package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sallyport/sallyport/internal/database"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/fault"
)

// upstream is the agent's own connection to a server, with nothing under way on it.
type upstream struct {
	net.Conn
	pid        uint32
	secret     []byte
	parameters map[string]string
}

// blank is a configuration that nothing of this process's environment is in.
var blank = sync.OnceValues(func() (*pgconn.Config, error) {
	return pgconn.ParseConfigWithOptions("host=server port=5432 user=nobody dbname=nobody password=none sslmode=disable passfile=/dev/null "+
		"target_session_attrs=any connect_timeout=0", pgconn.ParseConfigOptions{})
})

// dialServer lets the agent in at the visit's server as a database user, over TLS that is verified.
func dialServer(ctx context.Context, v *database.Visit, user, dbName string, settings map[string]string) (*pgconn.PgConn, error) {
	plain, err := blank()
	if err != nil {
		return nil, err
	}
	c := plain.Copy()
	c.User, c.Database, c.RuntimeParams, c.Fallbacks, c.Password = user, dbName, settings, nil, ""
	if c.RuntimeParams == nil {
		c.RuntimeParams = map[string]string{}
	}
	if password, has, err := v.Password(user); err != nil {
		return nil, err
	} else if has {
		c.Password = password
	}
	if c.TLSConfig, err = tlsConfig(ctx, v, user); err != nil {
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
		return &serverError{wire.Error{Severity: "FATAL", Code: pg.Code, Message: pg.Message, Detail: pg.Detail, Hint: pg.Hint}}
	}
	var f *fault.Error
	if errors.As(err, &f) {
		return f
	}
	return fault.New(fault.Unavailable, "database %q does not answer", v.Database.Name).WithReason("server_unreachable").
		WithCause("the agent cannot connect to its server").WithFix("try again; an administrator may look at the agent's log").Wrapping(err)
}

// connect is a connection for a client.
func connect(ctx context.Context, v *database.Visit, ask *request) (*upstream, error) {
	name := ask.database
	if ask.replication && ask.settings["replication"] != "database" {
		name = ""
	}
	pg, err := dialServer(ctx, v, ask.user, name, ask.settings)
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
	return &upstream{h.Conn, h.PID, h.SecretKey, h.ParameterStatuses}, nil
}

// cancelServer asks the server, over a connection of its own, to end what the relay's is doing.
func (r *relay) cancelServer(ctx context.Context) error {
	conn, err := r.visit.Dial(ctx)
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
	config, err := tlsConfig(ctx, r.visit, r.ask.user)
	if err != nil {
		return err
	}
	c := tls.Client(conn, config)
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	if _, err := c.Write(wire.Cancel(r.pid, r.secret)); err != nil {
		return err
	}
	_, _ = c.Read(answer[:]) // the server closes once it has done it
	return nil
}
