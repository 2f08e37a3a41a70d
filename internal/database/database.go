// Package database is the door to databases: it lets one client connection in at a time, through the gate, and hands it
// to the engine that speaks its protocol.
package database

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
)

// Engine speaks one protocol, from the first byte that a client sends (or, where the server speaks first, gets).
type Engine interface {
	// Serve carries one client connection until it is over, and closes it and what it opened. It tells the client of a refusal
	// and of the end of its session in the protocol's own error, with the reason.
	Serve(ctx context.Context, client net.Conn, v *Visit)
}

// Servers makes the agent's side towards database servers.
type Servers interface {
	// Dial connects to the server; TLS is for the engine to begin, with what TLS returns.
	Dial(ctx context.Context, db *target.DatabaseServer) (net.Conn, error)
	// TLS verifies the server, and shows it a certificate for the database user where there is no password for it.
	TLS(ctx context.Context, db *target.DatabaseServer, dbUser string) (*tls.Config, error)
	// Password is the database user's, where the agent has one.
	Password(db *target.DatabaseServer, dbUser string) (password string, has bool, err error)
}

// Config is what a door works with.
type Config struct {
	Gate    *gate.Gate
	Servers Servers
	Engines map[target.Protocol]Engine
}

// Door serves databases.
type Door struct {
	Config
	made made
}

// New makes a door.
func New(c Config) *Door { return &Door{Config: c, made: made{users: map[string]*madeUser{}}} }

// Visit is one client connection: whose it is and where it goes.
type Visit struct {
	User     *identity.User
	From     netip.Addr
	Database *target.DatabaseServer
	DBUser   string // whom the client means where its protocol does not say, as tsh was told
	door     *Door
}

// Serve carries one connection of a verified user, its TLS ended, to a database.
func (d *Door) Serve(ctx context.Context, conn net.Conn, v Visit) {
	v.door = d
	e := d.Engines[v.Database.Protocol]
	if e == nil {
		conn.Close()
		return
	}
	e.Serve(ctx, conn, &v)
}

// Dial connects to the database's server.
func (v *Visit) Dial(ctx context.Context) (net.Conn, error) {
	return v.door.Servers.Dial(ctx, v.Database)
}

// TLS is how to speak TLS with the server as a database user.
func (v *Visit) TLS(ctx context.Context, dbUser string) (*tls.Config, error) {
	return v.door.Servers.TLS(ctx, v.Database, dbUser)
}

// Password is the database user's, where the agent has one.
func (v *Visit) Password(dbUser string) (string, bool, error) {
	return v.door.Servers.Password(v.Database, dbUser)
}

// Unreachable is the fault of a server that could not be spoken with; a fault that says why already stays as it is.
func (v *Visit) Unreachable(err error) error {
	var f *fault.Error
	if errors.As(err, &f) {
		return err
	}
	return fault.New(fault.Unavailable, "the database server of %s cannot be reached", v.Database.Name).WithReason("database_unreachable").Wrapping(err)
}

// Session is what a client connection was let in for: one database user, and the databases that it asked for since.
type Session struct {
	visit  *Visit
	main   *gate.Session
	dbUser string

	mu   sync.Mutex
	made bool                     // guarded by mu: dbUser was made on demand
	also map[string]*gate.Session // guarded by mu: by database user and name, exact in case
	done bool                     // guarded by mu

	all atomic.Pointer[[]*gate.Session] // main and those of also, for Touch, which each message calls
}

// Admit lets the connection in as a database user to a database, or refuses it with a fault fit to print. The caller
// ends the session with End.
func (v *Visit) Admit(ctx context.Context, dbUser, dbName string) (*Session, error) {
	return v.begin(ctx, target.Action{DBUser: dbUser, DBName: dbName})
}

// AdmitReplication is Admit for a connection that copies what is written to the database, or with target.Replication as
// its name, to all of the server.
func (v *Visit) AdmitReplication(ctx context.Context, dbUser, dbName string) (*Session, error) {
	return v.begin(ctx, target.Action{DBUser: dbUser, DBName: dbName, Verb: target.Replicate})
}

func (v *Visit) begin(ctx context.Context, a target.Action) (*Session, error) {
	s := &Session{visit: v, dbUser: a.DBUser, also: map[string]*gate.Session{}}
	a.AsIs = !v.Database.Protocol.Makes()
	g, err := v.admit(ctx, a)
	if err != nil {
		return nil, err
	}
	s.main = g
	s.also[key(a.DBUser, a.DBName)] = g
	s.all.Store(&[]*gate.Session{g})
	return s, nil
}

func key(dbUser, dbName string) string { return dbUser + "\x00" + dbName }

func (v *Visit) admit(ctx context.Context, a target.Action) (*gate.Session, error) {
	if strings.ContainsRune(a.DBUser, 0) || strings.ContainsRune(a.DBName, 0) {
		return nil, fault.New(fault.Invalid, "a name with a NUL in it names nothing")
	}
	a.From = v.From
	return v.door.Gate.Admit(ctx, gate.Request{
		Identity: v.User,
		Target:   target.Target{Kind: target.Database, ID: v.Database.Name, Name: v.Database.Name, Labels: v.Database.Labels},
		Action:   a,
		Start: event.Event{Kind: event.DBSessionStart, Session: &event.Session{Protocol: string(v.Database.Protocol)},
			Action: &event.Action{DBUser: a.DBUser, DBName: a.DBName}},
		End: event.DBSessionEnd,
	})
}

// Also lets the same connection reach a further database, or go on as another database user; nothing happens where it
// was let in for that already. What ends one of them ends them all.
func (s *Session) Also(ctx context.Context, dbUser, dbName string) error {
	return s.further(ctx, target.Action{DBUser: dbUser, DBName: dbName})
}

// AlsoReplicate lets the same connection copy what is written to all of the server.
func (s *Session) AlsoReplicate(ctx context.Context, dbUser string) error {
	return s.further(ctx, target.Action{DBUser: dbUser, DBName: target.Replication, Verb: target.Replicate})
}

// maxAlso bounds what one connection may be let in for.
const maxAlso = 256

func (s *Session) further(ctx context.Context, a target.Action) error {
	k := key(a.DBUser, a.DBName+"\x00"+a.Verb)
	if a.Verb == "" {
		k = key(a.DBUser, a.DBName)
	}
	s.mu.Lock()
	_, has := s.also[k]
	many := len(s.also) >= maxAlso
	a.AsIs = !s.made || a.DBUser != s.dbUser
	s.mu.Unlock()
	if has {
		return nil
	}
	if many {
		return fault.New(fault.Exhausted, "this connection has been let in to %d databases, which is as many as one may be", maxAlso).
			WithReason("too_many_databases").WithFix("open another connection")
	}
	g, err := s.visit.admit(ctx, a)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, has := s.also[k]; has || s.done {
		go g.End(nil)
		return nil
	}
	s.also[k] = g
	all := append(slices.Clone(*s.all.Load()), g)
	s.all.Store(&all)
	context.AfterFunc(g.Context(), func() { s.cut(context.Cause(g.Context())) })
	return nil
}

func (s *Session) cut(why error) { s.main.Cut(why) }

// Context ends when the session must; context.Cause then is a fault that says why.
func (s *Session) Context() context.Context { return s.main.Context() }

// Ended is why the session must end, fit to print, or nil while it lives.
func (s *Session) Ended() error {
	cause := context.Cause(s.Context())
	if errors.Is(cause, context.Canceled) {
		return fault.New(fault.Unavailable, "this agent is stopping").WithReason("stopping").WithFix("connect again")
	}
	return cause
}

// Touch says that the person did something: in which of the databases that the connection was let in to makes no difference.
func (s *Session) Touch() {
	for _, g := range *s.all.Load() {
		g.Touch()
	}
}

// Statement is one that a client sent, with what became of it.
type Statement struct {
	DBUser     string // where it is not the one that the session was let in for
	DBName     string
	Query      string   // as it was sent, a prepared one resolved, secrets masked
	Parameters []string // as text; what is no text as its hex
	Failed     bool
	Message    string // the server's error, or what was done with the statement in place of running it
}

// Record writes what became of a statement; its result must not be returned before Record does.
func (s *Session) Record(ctx context.Context, st Statement) error {
	s.Touch()
	if st.DBUser == "" {
		st.DBUser = s.dbUser
	}
	return s.main.Note(ctx, event.Event{Kind: event.DBSessionQuery, Success: !st.Failed, Message: st.Message,
		Action: &event.Action{DBUser: st.DBUser, DBName: st.DBName, Query: st.Query, Parameters: st.Parameters}})
}

// End records the end of the session; why may be nil. Call it once all that it carried is over.
func (s *Session) End(why error) {
	s.mu.Lock()
	s.done = true
	var rest []*gate.Session
	for _, g := range s.also {
		if g != s.main {
			rest = append(rest, g)
		}
	}
	s.mu.Unlock()
	for _, g := range rest {
		g.End(why)
	}
	s.main.End(why)
}
