package mongo

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	wire "github.com/sallyport/sallyport/internal/dbwire/mongo"
	"github.com/sallyport/sallyport/internal/fault"
)

// Password is what a client that must send one sends: it stands for nothing, for the client's certificate was verified
// before, but SCRAM has both sides know it.
const Password = "sallyport"

// harmless are commands of the admin database that say nothing of it, and what belongs to a connection's own sessions.
var harmless = []string{"ping", "buildinfo", "connectionstatus", "whatsmyuri", "startsession", "endsessions", "refreshsessions",
	"committransaction", "aborttransaction"}

// do carries out one command.
func (c *conn) do(m *wire.Message) error {
	name, _ := m.Name()
	switch strings.ToLower(name) {
	case "hello", "ismaster":
		return c.reply(m, c.hello(m))
	case "saslstart":
		return c.saslStart(m)
	case "saslcontinue":
		return c.saslContinue(m)
	case "authenticate":
		return c.authenticate(m)
	case "logout":
		return c.reply(m, wire.Build(wire.Field{Name: "ok", Value: 1.0}))
	}
	if m.Opcode != wire.OpMsg {
		return c.reply(m, wire.Error(352, "UnsupportedOpQueryCommand", "commands are carried as OP_MSG"))
	}
	dbs, err := m.Databases()
	if err != nil {
		return c.reply(m, wire.Error(9, "FailedToParse", err.Error()))
	}
	if c.session == nil {
		if err := c.login(c.visit.User.Name); err != nil {
			return c.notIn(m, err)
		}
	}
	st := &statement{message: m, db: dbs[0]}
	st.text, st.secret = m.Text()
	for i, db := range dbs {
		if i == 0 && slices.Contains(harmless, strings.ToLower(name)) {
			continue
		}
		if err := c.session.Also(c.session.Context(), c.user, db); err != nil {
			return c.refuse(st, err)
		}
	}
	return c.forward(st)
}

// refuse answers a command with a refusal, which is on record too.
func (c *conn) refuse(st *statement, err error) error {
	st.secret = false
	if err := c.record(st, "refused: "+fault.Of(err).Text); err != nil {
		return err
	}
	return c.reply(st.message, failure(err))
}

// notIn answers who is not let in; who tries too often is sent away.
func (c *conn) notIn(m *wire.Message, err error) error {
	d := failure(err)
	if fault.Is(err, fault.Denied) {
		d = wire.Error(18, "AuthenticationFailed", fault.Of(err).Lines())
	}
	if rerr := c.reply(m, d); rerr != nil {
		return rerr
	}
	if c.refused++; c.refused >= maxRefused {
		return errGone
	}
	return nil
}

// hello describes a server that stands alone, so that drivers stay at the door: no set, no hosts, no compression.
func (c *conn) hello(m *wire.Message) wire.Doc {
	f := c.engine.about(c.visit.Database.Name)
	name, _ := m.Name()
	primary := "ismaster"
	if name == "hello" {
		primary = "isWritablePrimary"
	}
	fields := []wire.Field{{Name: primary, Value: true}, {Name: "helloOk", Value: true}, {Name: "maxBsonObjectSize", Value: 16 << 20},
		{Name: "maxMessageSizeBytes", Value: wire.MaxMessage}, {Name: "maxWriteBatchSize", Value: 100000}, {Name: "localTime", Value: time.Now().UnixMilli()},
		{Name: "minWireVersion", Value: 0}, {Name: "maxWireVersion", Value: f.maxWire}, {Name: "readOnly", Value: false}}
	if f.sessionMinutes > 0 {
		fields = append(fields, wire.Field{Name: "logicalSessionTimeoutMinutes", Value: f.sessionMinutes})
	}
	if _, has := m.Body.Get("saslSupportedMechs"); has {
		fields = append(fields, wire.Field{Name: "saslSupportedMechs", Value: []string{scram, "PLAIN"}})
	}
	return wire.Build(append(fields, wire.Field{Name: "ok", Value: 1.0})...)
}

// login lets the connection in as a user and connects to the server as that user. It happens once a connection: a driver
// opens another one for another user.
func (c *conn) login(user string) error {
	if c.session != nil {
		if user == c.user {
			return nil
		}
		return fault.New(fault.Denied, "this connection is %s's", c.user).WithFix("open another one as %s", fault.Plain(user))
	}
	s, err := c.visit.Admit(c.ctx, user, "")
	if err != nil {
		return err
	}
	up, err := connect(s.Context(), c.engine, c.visit, user)
	if err != nil {
		s.End(err)
		return err
	}
	c.client.SetDeadline(time.Time{})
	c.session, c.user, c.up = s, user, up
	up.watch(func() { c.client.SetReadDeadline(time.Now()) })
	context.AfterFunc(s.Context(), func() {
		cutClient(c.client)
		up.raw.SetDeadline(time.Now())
	})
	return nil
}

// The mechanisms that the door answers.
const (
	scram = "SCRAM-SHA-256"
	plain = "PLAIN"
	x509  = "MONGODB-X509"
)

// exchange is a SCRAM exchange with the client.
type exchange struct {
	scram *wire.Scram
	user  string
	salt  []byte
	ended bool // the proof was right; an empty message ends it
	short bool // the client wants no such message
}

// authenticate is MONGODB-X509: the client's certificate was verified before. The user is given as the door has it, or as
// a certificate's subject of that name alone; without one it is the login's own name.
func (c *conn) authenticate(m *wire.Message) error {
	mechanism, _ := m.Body.Get("mechanism")
	if mechanism.Str() != x509 {
		return c.reply(m, wire.Error(334, "MechanismUnavailable", "authenticate by "+x509+", "+plain+", or "+scram+" with the password "+Password))
	}
	e, _ := m.Body.Get("user")
	user := e.Str()
	if name, is := strings.CutPrefix(user, "CN="); is && !strings.ContainsAny(name, ",=") {
		user = name
	}
	if user == "" {
		user = c.visit.User.Name
	}
	if err := c.login(user); err != nil {
		return c.notIn(m, err)
	}
	return c.reply(m, wire.Build(wire.Field{Name: "dbname", Value: "$external"}, wire.Field{Name: "user", Value: user}, wire.Field{Name: "ok", Value: 1.0}))
}

func (c *conn) saslStart(m *wire.Message) error {
	mechanism, _ := m.Body.Get("mechanism")
	e, _ := m.Body.Get("payload")
	payload := string(e.Bytes())
	if e.Type == wire.String {
		payload = e.Str()
	}
	switch mechanism.Str() {
	case plain:
		parts := strings.Split(payload, "\x00")
		if len(parts) != 3 {
			return c.reply(m, wire.Error(18, "AuthenticationFailed", "no user in PLAIN"))
		}
		if err := c.login(parts[1]); err != nil {
			return c.notIn(m, err)
		}
		return c.said(m, "", true)
	case scram:
	default:
		return c.reply(m, wire.Error(334, "MechanismUnavailable", "authenticate by "+x509+", "+plain+", or "+scram+" with the password "+Password))
	}
	x := exchange{salt: make([]byte, 28)}
	rand.Read(x.salt)
	var challenge string
	var err error
	if x.scram, x.user, challenge, err = wire.NewScramServer(payload, Password, x.salt, rand.Text()); err != nil {
		return c.reply(m, wire.Error(18, "AuthenticationFailed", err.Error()))
	}
	if o, has := m.Body.Get("options"); has {
		skip, _ := o.Doc().Get("skipEmptyExchange")
		x.short = skip.Number() != 0
	}
	c.sasl = x
	return c.said(m, challenge, false)
}

func (c *conn) saslContinue(m *wire.Message) error {
	e, _ := m.Body.Get("payload")
	x := &c.sasl
	switch {
	case x.scram == nil:
		return c.reply(m, wire.Error(17, "ProtocolError", "no authentication has begun"))
	case x.ended:
		c.sasl = exchange{}
		return c.said(m, "", true)
	}
	last, ok := x.scram.Finish(string(e.Bytes()), x.salt)
	if !ok {
		c.sasl = exchange{}
		return c.notIn(m, fault.New(fault.Denied, "the password here is %q for everybody: your certificate is what lets you in", Password))
	}
	if err := c.login(x.user); err != nil {
		c.sasl = exchange{}
		return c.notIn(m, err)
	}
	x.ended = true
	return c.said(m, last, x.short)
}

// said is a step of authentication.
func (c *conn) said(m *wire.Message, payload string, done bool) error {
	return c.reply(m, wire.Build(wire.Field{Name: "conversationId", Value: 1}, wire.Field{Name: "done", Value: done},
		wire.Field{Name: "payload", Value: []byte(payload)}, wire.Field{Name: "ok", Value: 1.0}))
}
