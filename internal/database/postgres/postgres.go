// Package postgres is the database door's PostgreSQL engine: it lets a client in, connects to the server in its place, and
// carries the protocol between them with every statement on record before its result goes back.
package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/database/postgres/upstream"
	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

const (
	startWait   = 10 * time.Second // for what begins a connection
	connectWait = 15 * time.Second // for the server to let the agent in
	lastWait    = time.Second      // for a client to take its last words
	stallWait   = 5 * time.Minute  // for either side to take what it is sent
	cancelWait  = 10 * time.Second
	keySize     = 8 // process and secret
)

// Engine speaks PostgreSQL. Its zero value is ready.
type Engine struct {
	mu   sync.Mutex
	live map[string]*relay // guarded by mu: by the key data that the client was given
}

// New makes an engine.
func New() *Engine { return &Engine{live: map[string]*relay{}} }

// Serve carries one client connection, as database.Engine says.
func (e *Engine) Serve(ctx context.Context, client net.Conn, v *database.Visit) {
	defer client.Close()
	_ = client.SetDeadline(time.Now().Add(startWait)) // a connection that is over says so at the next read
	stop := context.AfterFunc(ctx, func() { _ = client.SetDeadline(time.Unix(1, 0)) })
	s, err := start(client)
	stop() // from here on the session's own end is told of
	switch {
	case err != nil:
		var f *fault.Error
		if errors.As(err, &f) {
			farewell(client, fatal(err, true))
		}
	case s.Cancel != nil:
		e.cancel(ctx, v, s.Cancel)
	default:
		e.session(ctx, client, v, s)
	}
}

// start reads what begins a connection. Requests for encryption are answered no: it is there already.
func start(client net.Conn) (*wire.Startup, error) {
	for range 3 {
		s, err := wire.ReadStartup(client)
		var network net.Error
		switch {
		case errors.As(err, &network) || errors.Is(err, net.ErrClosed):
			return nil, err
		case err != nil:
			return nil, fault.New(fault.Invalid, "this is no PostgreSQL client").WithReason("bad_startup").WithCause("%s", fault.Plain(err.Error()))
		case !s.Encryption:
			return s, nil
		}
		if _, err := client.Write([]byte("N")); err != nil {
			return nil, err
		}
	}
	return nil, fault.New(fault.Invalid, "encryption was asked for too often").WithReason("bad_startup")
}

func (e *Engine) session(ctx context.Context, client net.Conn, v *database.Visit, s *wire.Startup) {
	ask, err := newRequest(s)
	if err != nil {
		farewell(client, fatal(err, true))
		return
	}
	admit := v.Admit
	if ask.replication {
		admit = v.AdmitReplication
	}
	sess, err := admit(ctx, ask.user, ask.database)
	if err != nil {
		farewell(client, fatal(err, true))
		return
	}
	why := e.visit(client, v, sess, ask)
	sess.End(why)
}

// visit is an admitted session; it returns once all of it is over, with why where it was ended.
func (e *Engine) visit(client net.Conn, v *database.Visit, sess *database.Session, ask *request) error {
	ctx, cancel := context.WithTimeout(sess.Context(), connectWait)
	defer cancel()
	made, err := sess.Enable(ctx, upstream.Maker{})
	if err != nil {
		farewell(client, fatal(err, true))
		return err
	}
	defer func() { _ = made.Over() }() // what cannot be disabled now is by the next session's end, or the next agent's
	up, err := upstream.Connect(ctx, v, ask.session())
	made.Settled()
	if err != nil {
		if sess.Context().Err() != nil {
			err = context.Cause(sess.Context()) // that is why
		}
		farewell(client, fatal(err, true))
		return err
	}
	defer up.Close()
	r := &relay{client: client, server: up, visit: v, sess: sess, ask: ask, room: make(chan struct{}, 1), stopped: make(chan struct{})}
	key := e.enter(r)
	defer e.leave(key)
	_ = client.SetDeadline(time.Now().Add(startWait))
	hello := wire.Welcome(ask.negotiation(), up.Parameters, []byte(key))
	if _, err := client.Write(hello); err != nil {
		return nil
	}
	_ = client.SetDeadline(time.Time{})
	return r.run()
}

// enter gives a relay key data of the door's own.
func (e *Engine) enter(r *relay) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	for {
		var b [keySize]byte
		_, _ = rand.Read(b[:]) // never fails: it ends the program instead
		b[0] &= 0x7f           // clients print the process as a signed number
		if key := string(b[:]); e.live[key] == nil {
			e.live[key] = r
			return key
		}
	}
}

func (e *Engine) leave(key string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.live, key)
}

// cancel ends the statement of another connection of the same person, on the same device, to the same database; a key that
// is anybody else's does nothing, and nobody is told which it was.
func (e *Engine) cancel(ctx context.Context, v *database.Visit, key []byte) {
	e.mu.Lock()
	r := e.live[string(key)]
	e.mu.Unlock()
	if r == nil || !same(v, r.visit) || !r.cancelling.CompareAndSwap(false, true) {
		return
	}
	defer r.cancelling.Store(false)
	ctx, stop := context.WithTimeout(ctx, cancelWait)
	defer stop()
	_ = r.server.Cancel(ctx, r.visit, r.ask.user) // a cancel is never answered
}

func same(a, b *database.Visit) bool {
	device := func(v *database.Visit) string {
		if v.User.Device == nil {
			return ""
		}
		return v.User.Device.ID + " " + v.User.Device.CredentialID
	}
	return a.User.Name == b.User.Name && a.Database.Name == b.Database.Name && device(a) == device(b)
}

// farewell tells a client why, for as long as lastWait, and closes.
func farewell(client net.Conn, e wire.Error) {
	_ = client.SetDeadline(time.Now().Add(lastWait))
	_, _ = client.Write(e.Append(nil)) // nobody is left to tell
	linger(client)
}

// request is what a client asks for when it begins.
type request struct {
	user, database string
	replication    bool
	settings       map[string]string // for the server
	options        []string          // of the protocol's own, which this door has none of
	minor          uint16
}

// maxName is how long PostgreSQL's names are (NAMEDATALEN less one): it cuts longer ones, and then means another.
const maxName = 63

func newRequest(s *wire.Startup) (*request, error) {
	q := &request{settings: map[string]string{}, minor: s.Minor}
	for name, value := range s.Parameters {
		if err := q.take(name, value); err != nil {
			return nil, err
		}
	}
	if q.user == "" {
		return nil, fault.New(fault.Invalid, "no database user is named").WithReason("no_db_user").WithFix("tsh db connect --db-user=NAME")
	}
	if q.database == "" {
		q.database = q.user
	}
	if q.replication && s.Parameters["replication"] != "database" {
		q.database = target.Replication
	}
	for _, name := range []string{q.user, q.database} {
		if len(name) > maxName {
			return nil, fault.New(fault.Invalid, "the name %q is too long", fault.Plain(name)).WithReason("long_name").
				WithCause("PostgreSQL cuts names to %d bytes, and would mean another", maxName)
		}
	}
	return q, nil
}

func (q *request) take(name, value string) error {
	switch name {
	case "user":
		q.user = value
	case "database":
		q.database = value
	case "replication":
		switch strings.ToLower(value) {
		case "false", "off", "no", "0":
		case "true", "on", "yes", "1", "database":
			q.replication = true
			q.settings[name] = strings.ToLower(value)
		default:
			return fault.New(fault.Invalid, "replication is %q, which is no answer", fault.Plain(value)).WithReason("bad_startup")
		}
	case "options":
		return q.takeOptions(value)
	default:
		if strings.HasPrefix(name, "_pq_.") {
			q.options = append(q.options, name)
			return nil
		}
		return q.set(name, value)
	}
	return nil
}

// safe are the settings that a client may begin with: none of them says who it is.
var safe = map[string]bool{"application_name": true, "client_encoding": true, "datestyle": true, "timezone": true, "intervalstyle": true,
	"search_path": true, "extra_float_digits": true, "bytea_output": true, "client_min_messages": true, "standard_conforming_strings": true,
	"statement_timeout": true, "lock_timeout": true, "idle_in_transaction_session_timeout": true, "idle_session_timeout": true,
	"default_transaction_isolation": true, "default_transaction_read_only": true, "default_transaction_deferrable": true,
	"work_mem": true, "maintenance_work_mem": true, "geqo": true, "jit": true, "plan_cache_mode": true, "enable_seqscan": true, "enable_indexscan": true,
	"enable_hashjoin": true, "enable_mergejoin": true, "enable_nestloop": true, "random_page_cost": true, "max_parallel_workers_per_gather": true,
	"synchronous_commit": true, "lc_messages": true, "lc_monetary": true, "lc_numeric": true, "lc_time": true, "xmloption": true,
	"tcp_keepalives_idle": true, "tcp_keepalives_interval": true, "tcp_keepalives_count": true, "tcp_user_timeout": true, "row_security": true,
	"default_text_search_config": true, "default_tablespace": true, "temp_tablespaces": true, "escape_string_warning": true}

func (q *request) set(name, value string) error {
	name = strings.ToLower(name)
	if !safe[name] {
		return fault.New(fault.Denied, "the startup parameter %q is refused", fault.Plain(name)).WithReason("startup_parameter").
			WithCause("a connection through Sallyport begins with settings that cannot change who it is").
			WithFix("leave it out, or SET it once connected")
	}
	q.settings[name] = value
	return nil
}

// takeOptions reads `options`, the server's command line: -c name=value, -cname=value and --name=value, a backslash before
// what is meant as itself.
func (q *request) takeOptions(line string) error {
	words := optionWords(line)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		default:
			return fault.New(fault.Denied, "the startup option %q is refused", fault.Plain(w)).WithReason("startup_option").
				WithCause("only -c NAME=VALUE is passed on")
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return fault.New(fault.Invalid, "the startup option %q has no value", fault.Plain(w)).WithReason("startup_option")
		}
		if err := q.set(strings.ReplaceAll(name, "-", "_"), value); err != nil {
			return err
		}
	}
	return nil
}

func optionWords(line string) []string {
	var words []string
	var w strings.Builder
	in := false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line):
			i++
			w.WriteByte(line[i])
			in = true
		case c == ' ' || c >= '\t' && c <= '\r':
			if in {
				words = append(words, w.String())
				w.Reset()
			}
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if in {
		words = append(words, w.String())
	}
	return words
}

// session is what the server is asked for.
func (q *request) session() upstream.Session {
	s := upstream.Session{User: q.user, Database: q.database, Settings: q.settings}
	if r := q.settings["replication"]; r != "" && r != "database" {
		s.Database = ""
	}
	return s
}

// negotiation is what a client hears first that asked for more than version 3.0.
func (q *request) negotiation() []byte {
	if q.minor == 0 && len(q.options) == 0 {
		return nil
	}
	return wire.Negotiate(nil, q.options)
}

// fatal words a fault as PostgreSQL does; begin is that the client is not let in yet.
func fatal(err error, begin bool) wire.Error {
	f := fault.Of(err)
	e := wire.Error{Severity: "FATAL", Code: "57P01", Message: f.Text, Detail: f.Cause, Hint: f.Fix}
	var no *upstream.Refused
	switch {
	case errors.As(err, &no):
		return no.Said
	case f.Kind == fault.Internal:
		e.Message, e.Detail, e.Code = "internal error of the database agent", "", "XX000"
	case f.Reason == lostReason:
		e.Code = "08006"
	case f.Kind == fault.Invalid:
		e.Code = "08P01"
	case !begin:
	case f.Kind == fault.Denied || f.Kind == fault.Unauthenticated:
		e.Code = "28000"
	case f.Kind == fault.Exhausted:
		e.Code = "53300"
	default:
		e.Code = "57P03"
	}
	return e
}
