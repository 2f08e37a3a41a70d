// Package mongo is a small server of the tests' own that speaks as mongod does, where no mongod can be had: TLS with client
// certificates, MONGODB-X509, SCRAM-SHA-256, and a few commands on collections in memory. It reads and writes BSON with the
// driver's own library, and SCRAM with another, so that the door's are checked against strangers.
package mongo

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"

	"github.com/sallyport/sallyport/internal/peer/authority"
)

// Server is one that runs.
type Server struct {
	Addr      string
	Authority *authority.Authority
	// Passwords are those of users of the admin database.
	Passwords map[string]string

	listener net.Listener
	running  sync.WaitGroup

	mu      sync.Mutex
	data    map[string][]bson.D // guarded by mu: by namespace
	cursors map[int64]*cursor   // guarded by mu
	conns   map[net.Conn]bool   // guarded by mu
	seen    []string            // guarded by mu: commands as user/db.name
	held    chan struct{}       // closed when the server goes: what waits in `sleep` waits for it
}

type cursor struct {
	ns   string
	rest []bson.D
}

// Start runs a server with an authority of its own until the test is over.
func Start(t testing.TB, passwords map[string]string) *Server {
	t.Helper()
	a := authority.New("mongo test")
	s, err := Listen(&tls.Config{Certificates: []tls.Certificate{a.Server()}, ClientCAs: a.Pool, ClientAuth: tls.VerifyClientCertIfGiven}, passwords)
	if err != nil {
		t.Fatal(err)
	}
	s.Authority = a
	t.Cleanup(s.Kill)
	return s
}

// Listen runs a server until it is killed.
func Listen(conf *tls.Config, passwords map[string]string) (*Server, error) {
	s := &Server{Passwords: passwords, data: map[string][]bson.D{}, cursors: map[int64]*cursor{}, conns: map[net.Conn]bool{}, held: make(chan struct{})}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s.listener, s.Addr = l, l.Addr().String()
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.conns[c] = true
			s.mu.Unlock()
			s.running.Go(func() {
				s.serve(tls.Server(c, conf))
				s.mu.Lock()
				delete(s.conns, c)
				s.mu.Unlock()
			})
		}
	})
	return s, nil
}

// Kill ends the server and its connections at once.
func (s *Server) Kill() {
	s.listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.Close()
	}
	select {
	case <-s.held:
	default:
		close(s.held)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// Seen are the commands that came, each as user/database.command.
func (s *Server) Seen() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// session is one connection.
type session struct {
	*Server
	conn *tls.Conn
	user string
	conv *scram.ServerConversation
}

func (s *Server) serve(c *tls.Conn) {
	defer c.Close()
	if c.Handshake() != nil {
		return
	}
	x := &session{Server: s, conn: c}
	for {
		id, flags, cmd, err := receive(c)
		if err != nil {
			return
		}
		reply := x.command(cmd)
		if flags&2 != 0 {
			continue
		}
		b, err := bson.Marshal(reply)
		if err != nil {
			return
		}
		out := binary.LittleEndian.AppendUint32(nil, uint32(21+len(b)))
		for _, v := range []uint32{7, id, 2013, 0} {
			out = binary.LittleEndian.AppendUint32(out, v)
		}
		if _, err := c.Write(append(append(out, 0), b...)); err != nil {
			return
		}
	}
}

// receive reads a command, document sequences put into it.
func receive(r io.Reader) (id, flags uint32, cmd bson.D, err error) {
	head := make([]byte, 20)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, 0, nil, err
	}
	u := binary.LittleEndian.Uint32
	if u(head[12:]) != 2013 || u(head) > 48000000 {
		return 0, 0, nil, errors.New("not an OP_MSG")
	}
	b := make([]byte, u(head)-20)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, 0, nil, err
	}
	var sequences bson.D
	for len(b) > 0 {
		n := u(b[1:])
		section := b[1 : 1+n]
		if b[0] == 0 {
			if err := bson.Unmarshal(section, &cmd); err != nil {
				return 0, 0, nil, err
			}
		} else {
			name, rest, _ := strings.Cut(string(section[4:]), "\x00")
			var docs bson.A
			for len(rest) > 0 {
				k := u([]byte(rest))
				var d bson.D
				if err := bson.Unmarshal([]byte(rest[:k]), &d); err != nil {
					return 0, 0, nil, err
				}
				docs, rest = append(docs, d), rest[k:]
			}
			sequences = append(sequences, bson.E{Key: name, Value: docs})
		}
		b = b[1+n:]
	}
	return u(head[4:]), u(head[16:]), append(cmd, sequences...), nil
}

func get[T any](d bson.D, name string) (v T) {
	for _, e := range d {
		if e.Key == name {
			v, _ = e.Value.(T)
		}
	}
	return v
}

func failed(code int32, text string) bson.D {
	return bson.D{{Key: "ok", Value: 0.0}, {Key: "errmsg", Value: text}, {Key: "code", Value: code}}
}

var ok = bson.D{{Key: "ok", Value: 1.0}}

func (x *session) command(cmd bson.D) bson.D {
	name, db := cmd[0].Key, get[string](cmd, "$db")
	x.mu.Lock()
	x.seen = append(x.seen, x.user+"/"+db+"."+name)
	x.mu.Unlock()
	switch name {
	case "hello":
		return append(bson.D{{Key: "isWritablePrimary", Value: true}, {Key: "setName", Value: "rs"}, {Key: "hosts", Value: bson.A{x.Addr}}, {Key: "me", Value: x.Addr},
			{Key: "maxWireVersion", Value: int32(21)}, {Key: "logicalSessionTimeoutMinutes", Value: int32(30)}}, ok...)
	case "authenticate":
		certs := x.conn.ConnectionState().PeerCertificates
		if len(certs) == 0 {
			return failed(18, "no client certificate")
		}
		x.user = certs[0].Subject.CommonName
		return ok
	case "saslStart", "saslContinue":
		return x.sasl(name, cmd)
	}
	if x.user == "" {
		return failed(13, "command "+name+" requires authentication")
	}
	switch name {
	case "ping", "endSessions", "createUser":
		return ok
	case "sleep":
		<-x.held
		return ok
	case "connectionStatus":
		return append(bson.D{{Key: "user", Value: x.user}}, ok...)
	}
	return x.collection(name, db, cmd)
}

func (x *session) sasl(name string, cmd bson.D) bson.D {
	if name == "saslStart" {
		server, err := scram.SHA256.NewServer(func(user string) (scram.StoredCredentials, error) {
			x.user = ""
			password, has := x.Passwords[user]
			if !has {
				return scram.StoredCredentials{}, errors.New("no such user")
			}
			client, err := scram.SHA256.NewClient(user, password, "")
			if err != nil {
				return scram.StoredCredentials{}, err
			}
			return client.GetStoredCredentials(scram.KeyFactors{Salt: "0123456789abcdef", Iters: 15000}), nil
		})
		if err != nil {
			return failed(8, err.Error())
		}
		x.conv = server.NewConversation()
	}
	var answer string
	if !x.conv.Done() {
		var err error
		if answer, err = x.conv.Step(string(get[bson.Binary](cmd, "payload").Data)); err != nil {
			return failed(18, "Authentication failed.")
		}
	} else {
		x.user = x.conv.Username()
	}
	return append(bson.D{{Key: "conversationId", Value: int32(1)}, {Key: "done", Value: x.user != ""}, {Key: "payload", Value: bson.Binary{Data: []byte(answer)}}}, ok...)
}

func (x *session) collection(name, db string, cmd bson.D) bson.D {
	x.mu.Lock()
	defer x.mu.Unlock()
	ns := db + "." + get[string](cmd, name)
	batch := int(max(get[int32](cmd, "batchSize"), 0))
	page := func(field string, id int64, c *cursor) bson.D {
		n := len(c.rest)
		if batch > 0 {
			n = min(n, batch)
		}
		docs := bson.A{}
		for _, d := range c.rest[:n] {
			docs = append(docs, d)
		}
		if c.rest = c.rest[n:]; len(c.rest) == 0 {
			delete(x.cursors, id)
			id = 0
		} else {
			x.cursors[id] = c
		}
		return append(bson.D{{Key: "cursor", Value: bson.D{{Key: field, Value: docs}, {Key: "id", Value: id}, {Key: "ns", Value: c.ns}}}}, ok...)
	}
	switch name {
	case "insert":
		docs := get[bson.A](cmd, "documents")
		for i, d := range docs {
			if _, bad := d.(bson.D); bad && get[bool](d.(bson.D), "bad") {
				return append(bson.D{{Key: "n", Value: int32(i)}, {Key: "writeErrors", Value: bson.A{bson.D{{Key: "index", Value: int32(i)}, {Key: "code", Value: int32(121)}, {Key: "errmsg", Value: "Document failed validation"}}}}}, ok...)
			}
			x.data[ns] = append(x.data[ns], d.(bson.D))
		}
		return append(bson.D{{Key: "n", Value: int32(len(docs))}}, ok...)
	case "find", "aggregate":
		return page("firstBatch", time.Now().UnixNano(), &cursor{ns, slices.Clone(x.data[ns])})
	case "getMore":
		id := get[int64](cmd, "getMore")
		c := x.cursors[id]
		if c == nil || c.ns != db+"."+get[string](cmd, "collection") {
			return failed(43, "cursor not found")
		}
		return page("nextBatch", id, c)
	case "killCursors":
		for _, id := range get[bson.A](cmd, "cursors") {
			delete(x.cursors, id.(int64))
		}
		return append(bson.D{{Key: "cursorsKilled", Value: get[bson.A](cmd, "cursors")}}, ok...)
	}
	return failed(59, "no such command: '"+name+"'")
}
