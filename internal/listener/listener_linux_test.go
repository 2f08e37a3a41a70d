package listener

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/listener/localcert"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// far is the other end of the connections that a listener makes: it says each stream's header and echoes.
type far struct {
	t     *testing.T
	made  atomic.Int32
	login atomic.Pointer[string]
	err   atomic.Pointer[fault.Error]

	mu    sync.Mutex
	ends  []*tunnel.Tunnel // guarded by mu
	heads []tunnel.Header  // guarded by mu
}

func (f *far) streams(_ context.Context, _ identity.HostRole, _ string) (*tunnel.Tunnel, error) {
	f.made.Add(1)
	a, b := net.Pipe()
	go func() {
		s, err := tunnel.Server(b)
		if err != nil {
			return
		}
		f.mu.Lock()
		f.ends = append(f.ends, s)
		f.mu.Unlock()
		_ = s.Serve(func(st *tunnel.Stream) {
			defer st.Close()
			f.mu.Lock()
			f.heads = append(f.heads, st.Header)
			f.mu.Unlock()
			_, _ = io.Copy(st, st)
		})
	}()
	return tunnel.Client(a)
}

func (f *far) Login(cluster string) (Login, error) {
	if cluster == "elsewhere.org" {
		return Login{}, fault.New(fault.Unauthenticated, "not logged in to elsewhere.org")
	}
	if e := f.err.Load(); e != nil {
		return Login{}, e
	}
	return Login{ID: *f.login.Load(), Streams: f.streams}, nil
}

// running is a listener in this process, with a client that finds it.
type running struct {
	*far
	Client
	spawned atomic.Int32
	ended   chan error
}

func run(t *testing.T, idle time.Duration) *running {
	t.Helper()
	home, err := os.MkdirTemp("", "tsh") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	r := &running{far: &far{t: t}, ended: make(chan error, 100)}
	first := "1"
	r.login.Store(&first)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	r.Client = Client{Home: home, Spawn: func() error {
		r.spawned.Add(1)
		wg.Go(func() {
			l, err := New(Config{Home: home, Login: r.Login, Idle: idle})
			if err == nil {
				err = l.Run(ctx)
			}
			r.ended <- err
		})
		return nil
	}}
	t.Cleanup(func() { cancel(); wg.Wait() })
	return r
}

func (r *running) open(s Spec) Spec {
	r.t.Helper()
	s.Home = filepath.Join(r.Home, "local")
	if s.Role == "" {
		s.Role = identity.RoleDB
	}
	s, err := r.Open(r.t.Context(), s)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func echo(t *testing.T, c net.Conn) error {
	t.Helper()
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if string(b) != "hello" {
		return fmt.Errorf("echoed %q", b)
	}
	return nil
}

func unixDial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestManyAtOnce has forty need a listener at the same moment: one is started, and all of their connections cost one
// connection to the agent.
func TestManyAtOnce(t *testing.T) {
	r := run(t, 0)
	socket := filepath.Join(r.Home, "run", "x.sock")
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			s := r.open(Spec{Resource: "orders", Protocol: target.Redis, Socket: socket, DBUser: "alice"})
			if err := echo(t, unixDial(t, s.Socket)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := r.spawned.Load(); n != 1 {
		t.Errorf("%d listeners were started", n)
	}
	if n := r.made.Load(); n != 1 {
		t.Errorf("%d connections were made", n)
	}
	if h := r.heads[0]; h.Target != "orders" || h.DBUser != "alice" || h.Door != tunnel.DoorDB {
		t.Errorf("%+v", h)
	}
	// A new login is a new connection; one that broke is made again.
	second := "2"
	r.login.Store(&second)
	if err := echo(t, unixDial(t, socket)); err != nil || r.made.Load() != 2 {
		t.Errorf("%v, %d connections", err, r.made.Load())
	}
	r.mu.Lock()
	for _, e := range r.ends {
		e.Close()
	}
	r.mu.Unlock()
	for deadline := time.Now().Add(5 * time.Second); ; {
		if err := echo(t, unixDial(t, socket)); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// TestA33Socket: the sockets are this user's alone, and so is the way to them; another user of the machine is kept out by
// the system itself.
func TestA33Socket(t *testing.T) {
	r := run(t, 0)
	s := r.open(Spec{Resource: "orders", Protocol: target.PostgreSQL, Socket: filepath.Join(r.Home, "run", "d", ".s.PGSQL.5432")})
	for _, path := range []string{s.Socket, Path(r.Home)} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
	for _, path := range []string{filepath.Dir(s.Socket), filepath.Dir(filepath.Dir(s.Socket))} {
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", path, st.Mode(), err)
		}
	}
	if os.Getuid() != 0 {
		return
	}
	if err := os.Chmod(r.Home, 0o755); err != nil { // somebody was careless: the socket's own mode still holds
		t.Fatal(err)
	}
	_ = os.Chmod(filepath.Join(r.Home, "run"), 0o755)
	_ = os.Chmod(filepath.Dir(s.Socket), 0o755)
	for _, path := range []string{s.Socket, Path(r.Home)} {
		if err := asNobody(func() error {
			c, err := net.Dial("unix", path)
			if err == nil {
				c.Close()
			}
			return err
		}); !errors.Is(err, os.ErrPermission) {
			t.Errorf("another user connects to %s: %v", path, err)
		}
	}
}

// asNobody does something with the file rights of another user.
func asNobody(f func() error) error {
	runtime.LockOSThread() // these calls are the thread's alone
	defer runtime.UnlockOSThread()
	if err := syscall.Setfsuid(65534); err != nil {
		return err
	}
	defer func() { _ = syscall.Setfsuid(0) }()
	return f()
}

// local is how a client of this user connects to a port.
func local(t *testing.T, s Spec, edit func(*tls.Config)) *tls.Config {
	t.Helper()
	f := localcert.FilesOf(s.Home)
	cert, err := tls.LoadX509KeyPair(f.Cert, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	c := &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: roots, ServerName: "127.0.0.1"}
	if edit != nil {
		edit(c)
	}
	return c
}

func stranger(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(3), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestA33Port: a port lets in who has this user's local certificate, and nobody else: no other user of the machine, who
// can connect, and no web page.
func TestA33Port(t *testing.T) {
	r := run(t, 0)
	redis := r.open(Spec{Resource: "cache", Protocol: target.Redis})
	orders := r.open(Spec{Resource: "orders", Protocol: target.PostgreSQL})
	address := func(s Spec) string { return fmt.Sprintf("127.0.0.1:%d", s.Port) }
	for name, config := range map[string]*tls.Config{
		"no certificate":        local(t, redis, func(c *tls.Config) { c.Certificates = nil }),
		"a certificate of ours": local(t, redis, func(c *tls.Config) { c.Certificates = []tls.Certificate{stranger(t)} }),
	} {
		c, err := tls.Dial("tcp", address(redis), config)
		if err == nil {
			err = echo(t, c)
		}
		if err == nil {
			t.Errorf("%s is let in", name)
		}
	}
	for name, says := range map[string]string{
		"a web page": "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "a client in clear": "*1\r\n$4\r\nPING\r\n", "nothing of sense": "\x16\x03\x01\xff\xff",
	} {
		c, err := net.Dial("tcp", address(redis))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(3 * time.Second))
		_, _ = c.Write([]byte(says))
		if answer, _ := io.ReadAll(c); bytes.Contains(answer, []byte(says)) {
			t.Errorf("%s is let in", name)
		}
		c.Close()
	}
	if r.made.Load() != 0 {
		t.Fatal("somebody was let in")
	}
	c, err := tls.Dial("tcp", address(redis), local(t, redis, nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(t, c); err != nil {
		t.Fatal(err)
	}
	postgresPort(t, orders)
}

// postgresPort says to a port what PostgreSQL's clients say.
func postgresPort(t *testing.T, s Spec) {
	dial := func() net.Conn {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		return c
	}
	c := dial()
	startup, _ := (&pgproto3.StartupMessage{ProtocolVersion: pgproto3.ProtocolVersionNumber, Parameters: map[string]string{"user": "alice"}}).Encode(nil)
	_, _ = c.Write(startup)
	m, err := pgproto3.NewFrontend(c, c).Receive()
	if e, ok := m.(*pgproto3.ErrorResponse); !ok || !strings.Contains(e.Message, "wants TLS") {
		t.Errorf("a startup in clear: %v %v", m, err)
	}
	c.Close()
	for _, ahead := range [][]byte{sslRequest, append(bytes.Clone(gssEncRequest), 0)[:8]} {
		c := dial()
		_, _ = c.Write(ahead)
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(ahead, gssEncRequest) {
			if b[0] != 'N' {
				t.Errorf("GSSENCRequest: %q", b)
			}
			_, _ = c.Write(sslRequest)
			_, _ = io.ReadFull(c, b)
		}
		if b[0] != 'S' {
			t.Errorf("SSLRequest: %q", b)
		}
		if err := echo(t, tls.Client(c, local(t, s, nil))); err != nil {
			t.Error(err)
		}
	}
	direct, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port), local(t, s, func(c *tls.Config) { c.NextProtos = []string{"postgresql"} }))
	if err != nil {
		t.Fatal(err)
	}
	if err := echo(t, direct); err != nil {
		t.Error("direct TLS:", err)
	}
	c = dial() // a cancel comes in clear, and goes on as it is
	defer c.Close()
	cancel, _ := (&pgproto3.CancelRequest{ProcessID: 1, SecretKey: []byte{0, 0, 0, 2}}).Encode(nil)
	_, _ = c.Write(cancel)
	got := make([]byte, len(cancel))
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, cancel) {
		t.Errorf("cancel: %x %v", got, err)
	}
}

// TestRefusals: what keeps somebody from a resource is told in its own protocol.
func TestRefusals(t *testing.T) {
	r := run(t, 0)
	r.err.Store(fault.New(fault.Unauthenticated, "the login has expired").WithCause("it ended 2m ago").WithFix("tsh login --user=alice"))
	dial := func(role identity.HostRole, p target.Protocol) net.Conn {
		name := "r" + string(p)
		s := r.open(Spec{Role: role, Resource: name, Protocol: p, Socket: filepath.Join(r.Home, "run", name)})
		c := unixDial(t, s.Socket)
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		t.Cleanup(func() { c.Close() })
		return c
	}
	pg := dial(identity.RoleDB, target.PostgreSQL)
	m, err := pgproto3.NewFrontend(pg, pg).Receive()
	if e, ok := m.(*pgproto3.ErrorResponse); !ok || e.Severity != "FATAL" || e.Message != "the login has expired" || e.Hint != "tsh login --user=alice" {
		t.Errorf("%+v %v", m, err)
	}
	my, err := io.ReadAll(dial(identity.RoleDB, target.MySQL))
	if err != nil || len(my) < 7 || int(my[0]) != len(my)-4 || my[4] != 0xff || !bytes.Contains(my, []byte("the login has expired: it ended 2m ago (to fix: tsh login")) {
		t.Errorf("%q %v", my, err)
	}
	redis, err := io.ReadAll(dial(identity.RoleDB, target.Redis))
	if err != nil || !bytes.HasPrefix(redis, []byte("-ERR the login has expired")) || !bytes.HasSuffix(redis, []byte("\r\n")) {
		t.Errorf("%q %v", redis, err)
	}
	kube := dial(identity.RoleKube, "")
	res, err := http.ReadResponse(bufio.NewReader(kube), nil)
	if err != nil {
		t.Fatal(err)
	}
	var status struct{ Kind, Message string }
	if err := json.NewDecoder(res.Body).Decode(&status); err != nil || res.StatusCode != 503 || status.Kind != "Status" || !strings.Contains(status.Message, "the login has expired") {
		t.Errorf("%d %+v %v", res.StatusCode, status, err)
	}
}

// TestClusters: a door keeps to the cluster that it was opened for, whatever login is the current one.
func TestClusters(t *testing.T) {
	r := run(t, 0)
	here := r.open(Spec{Cluster: "example.com", Resource: "orders", Protocol: target.Redis, Socket: filepath.Join(r.Home, "run", "a")})
	there := r.open(Spec{Cluster: "elsewhere.org", Resource: "orders", Protocol: target.Redis, Socket: filepath.Join(r.Home, "run", "b")})
	if err := echo(t, unixDial(t, here.Socket)); err != nil {
		t.Error(err)
	}
	c := unixDial(t, there.Socket)
	defer c.Close()
	if said, _ := io.ReadAll(c); !bytes.Contains(said, []byte("not logged in to elsewhere.org")) {
		t.Errorf("%q", said)
	}
}

// TestManyDoors: however many doors are open, and whatever they are called, another one opens.
func TestManyDoors(t *testing.T) {
	r := run(t, 0)
	long := strings.Repeat("a", 100)
	for i := range 40 {
		s := r.open(Spec{Cluster: "example.com", Resource: fmt.Sprint(long, i), Protocol: target.Redis, DBUser: long, DBName: long})
		if s.Port == 0 {
			t.Fatal(s)
		}
	}
	if doors, err := r.Doors(t.Context()); err != nil || len(doors) == 0 {
		t.Error(doors, err)
	}
}

// TestNewLocalFiles: doors that stand for long take the local certificates as they are now, which another door's opening may
// have made anew.
func TestNewLocalFiles(t *testing.T) {
	r := run(t, 0)
	cache := r.open(Spec{Resource: "cache", Protocol: target.Redis})
	reach := func() error {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", cache.Port), local(t, cache, nil))
		if err != nil {
			return err
		}
		defer c.Close()
		return echo(t, c)
	}
	if err := reach(); err != nil {
		t.Fatal(err)
	}
	if err := localcert.Make(cache.Home); err != nil {
		t.Fatal(err)
	}
	if err := reach(); err != nil {
		t.Error(err)
	}
	if err := os.RemoveAll(cache.Home); err != nil {
		t.Fatal(err)
	}
	if again := r.open(cache); again.Port != cache.Port {
		t.Fatalf("%+v", again)
	}
	if err := reach(); err != nil {
		t.Error(err)
	}
}

// TestHold: a door that somebody holds does not go with a listener that thinks itself idle, and is closed at the end; a
// listener that was stopped is not started again.
func TestHold(t *testing.T) {
	r := run(t, 2*time.Second)
	r.Client.Every = 100 * time.Millisecond
	s := r.open(Spec{Resource: "cache", Protocol: target.Redis})
	ctx, cancel := context.WithCancel(t.Context())
	defer time.AfterFunc(4*time.Second, cancel).Stop()
	if err := r.Hold(ctx, s); err != nil {
		t.Error(err)
	}
	if doors, err := r.Doors(t.Context()); err != nil || len(doors) != 0 || r.spawned.Load() != 1 || len(r.ended) != 0 {
		t.Errorf("%v %v, started %d times", doors, err, r.spawned.Load())
	}
	s = r.open(s)
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.Hold(t.Context(), s); !fault.Because(err, "no_listener") {
		t.Error(err)
	}
}

// TestHoldEnds: whenever a holder ends, its door is closed, also while it says that it wants it.
func TestHoldEnds(t *testing.T) {
	r := run(t, time.Hour)
	r.Client.Every = 200 * time.Microsecond
	for i := range 500 {
		s := r.open(Spec{Resource: "cache", Protocol: target.Redis, Holder: "proxy-1"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i%20)*50*time.Microsecond)
		err := r.Hold(ctx, s)
		cancel()
		if doors, failed := r.Doors(t.Context()); err != nil || failed != nil || len(doors) != 0 {
			t.Fatal(i, doors, err, failed)
		}
	}
}

// TestHolder: who holds a door has it for itself: its port is another's neither at its opening nor at its end.
func TestHolder(t *testing.T) {
	r := run(t, time.Hour)
	shared := r.open(Spec{Cluster: "example.com", Resource: "dev", Role: identity.RoleKube})
	held := r.open(Spec{Cluster: "example.com", Resource: "dev", Role: identity.RoleKube, Holder: "proxy-1"})
	other := r.open(Spec{Cluster: "example.com", Resource: "dev", Role: identity.RoleKube, Holder: "proxy-2"})
	if held.Port == shared.Port || held.Port == other.Port || other.Port == shared.Port {
		t.Fatalf("ports %d, %d and %d", shared.Port, held.Port, other.Port)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Hold(ctx, held); err != nil {
		t.Fatal(err)
	}
	if again := r.open(Spec{Cluster: "example.com", Resource: "dev", Role: identity.RoleKube}); again.Port != shared.Port {
		t.Errorf("the shared door went from %d to %d", shared.Port, again.Port)
	}
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", held.Port)); err == nil {
		c.Close()
		t.Error("the held door stays open")
	}
}

// TestCloseEverybodys: a logout closes every door of its resource, or of all, but those that proxies hold and other kinds'.
func TestCloseEverybodys(t *testing.T) {
	r := run(t, time.Hour)
	open := map[string]Spec{}
	for _, name := range []string{"orders ", "orders as bob\x00", "orders proxy-1", "shop ", "shop as bob\x00"} {
		resource, holder, _ := strings.Cut(name, " ")
		open[name] = r.open(Spec{Cluster: "example.com", Resource: resource, Protocol: target.Redis, Holder: holder})
	}
	open["kube"] = r.open(Spec{Cluster: "example.com", Resource: "orders", Role: identity.RoleKube})
	socket := filepath.Join(r.Home, "run", "1", "redis.sock")
	r.open(Spec{Cluster: "example.com", Resource: "shop", Protocol: target.Redis, Socket: socket})
	closes := func(resource string, want ...string) {
		n, err := r.CloseAll(t.Context(), Spec{Cluster: "example.com", Role: identity.RoleDB, Resource: resource})
		if err != nil || n < len(want) {
			t.Fatal(n, err)
		}
		for name, s := range open {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
			if slices.Contains(want, name) != (err != nil) {
				t.Errorf("%q after %q: %v", name, resource, err)
			}
			if err == nil {
				c.Close()
			} else {
				delete(open, name)
			}
		}
	}
	closes("orders", "orders ", "orders as bob\x00")
	if _, err := os.Stat(socket); err != nil {
		t.Fatal(err)
	}
	closes("", "shop ", "shop as bob\x00")
	if _, err := os.Stat(filepath.Dir(socket)); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err, "is left of a door")
	}
	closes("")
}

// TestProxyGone: the door of a proxy that ended without a word is closed, for the next one wants its port; that of one that lives stays.
func TestProxyGone(t *testing.T) {
	r := run(t, 20*time.Second)
	spec := Spec{Cluster: "example.com", Resource: "orders", Protocol: target.Redis}
	r.open(spec)
	dead, lives := spec, spec
	dead.Holder, lives.Holder = "proxy-1", "proxy-2"
	dead, lives = r.open(dead), r.open(lives)
	dial := func(s Spec) bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	for end := time.Now().Add(20 * time.Second); dial(dead); {
		if r.open(lives); !dial(lives) || time.Now().After(end) {
			t.Fatal("the dead one stays, or the living one does not")
		}
	}
	if r.open(lives); !dial(lives) {
		t.Error("the living one is closed")
	}
}

// TestPortHeld: a door keeps its port, and one that another program holds is an error that names the login command.
func TestPortHeld(t *testing.T) {
	r := run(t, 0)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	held := l.Addr().(*net.TCPAddr).Port
	_, err = r.Open(t.Context(), Spec{Role: identity.RoleDB, Resource: "orders", Protocol: target.Redis, Port: held, Home: filepath.Join(r.Home, "local")})
	if f := fault.Of(err); f.Reason != "port_held" || !strings.Contains(f.Fix, "tsh db login orders") {
		t.Errorf("%+v", f)
	}
	a := r.open(Spec{Resource: "orders", Protocol: target.Redis})
	b := r.open(Spec{Resource: "orders", Protocol: target.Redis})
	if a.Port == 0 || a.Port != b.Port {
		t.Errorf("%d, then %d", a.Port, b.Port)
	}
	doors, err := r.Doors(t.Context())
	if err != nil || len(doors) != 1 || doors[0].Port != a.Port {
		t.Errorf("%+v %v", doors, err)
	}
	if err := r.Close(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", a.Port)); err == nil {
		c.Close()
		t.Error("the door is still open")
	}
}

// TestEnds: a listener ends when it is told to, with all that it carries, and when nobody uses it; never before.
func TestEnds(t *testing.T) {
	r := run(t, 0)
	socket := filepath.Join(r.Home, "run", "x")
	r.open(Spec{Resource: "orders", Protocol: target.Redis, Socket: socket})
	c := unixDial(t, socket)
	defer c.Close()
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection outlives its listener: %v", err)
	}
	if err := <-r.ended; err != nil {
		t.Error(err)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Errorf("nothing to stop: %v", err)
	}
	idle := run(t, 200*time.Millisecond)
	socket = filepath.Join(idle.Home, "run", "x")
	idle.open(Spec{Resource: "orders", Protocol: target.Redis, Socket: socket})
	used := unixDial(t, socket)
	select {
	case <-idle.ended:
		t.Error("it ended while it was used")
	case <-time.After(time.Second):
	}
	used.Close()
	select {
	case err := <-idle.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it stays with nothing connected")
	}
	for _, how := range []func(home string) error{os.RemoveAll, func(home string) error {
		return errors.Join(os.Rename(home, home+".old"), os.Mkdir(home, 0o700), os.WriteFile(Path(home), nil, 0o600)) // another's
	}} {
		endsWhenGone(t, how)
	}
}

func endsWhenGone(t *testing.T, how func(home string) error) {
	t.Helper()
	gone := run(t, 10*time.Second)
	t.Cleanup(func() { os.RemoveAll(gone.Home + ".old") })
	gone.open(Spec{Resource: "orders", Protocol: target.Redis})
	if err := how(gone.Home); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-gone.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(5 * time.Second):
		t.Error("it stays though its home is gone")
	}
}

// TestControlRefuses: what is no call is answered with a fault or not at all, and hurts nobody.
func TestControlRefuses(t *testing.T) {
	r := run(t, 0)
	r.open(Spec{Resource: "orders", Protocol: target.Redis, Socket: filepath.Join(r.Home, "run", "x")})
	for _, raw := range []string{"", "\x00", "\xff\xff{}", "\x00\x02xx", "\x00\x0d{\"op\":\"boom\"}", "GET / HTTP/1.1\r\n\r\n"} {
		c := unixDial(t, Path(r.Home))
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		_, _ = c.Write([]byte(raw))
		_ = c.(*net.UnixConn).CloseWrite()
		var a answer
		if err := tunnel.ReadFrame(c, &a); err == nil && a.Status.OK {
			t.Errorf("%q was done", raw)
		}
		c.Close()
	}
	if doors, err := r.Doors(t.Context()); err != nil || len(doors) != 1 {
		t.Errorf("%v %v", doors, err)
	}
}

func FuzzPostgresGuard(f *testing.F) {
	f.Add(sslRequest)
	f.Add(gssEncRequest)
	f.Add(append(bytes.Clone(gssEncRequest), sslRequest...))
	f.Add([]byte{0, 0, 0, 16, 4, 210, 22, 46, 0, 0, 0, 1, 0, 0, 0, 2})
	f.Add([]byte{22, 3, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, b := net.Pipe()
		defer a.Close()
		go func() {
			_ = b.SetDeadline(time.Now().Add(time.Second))
			_, _ = b.Write(raw)
			b.Close()
		}()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		_, _ = postgresGuard(a, func(c net.Conn) (net.Conn, error) { return c, nil })
	})
}

// TestA33MySQLGreetings: who does not show this user's certificate makes the server speak eight times at once, and no
// more, and gets nothing but its greeting.
func TestA33MySQLGreetings(t *testing.T) {
	r := run(t, 0)
	s := r.open(Spec{Resource: "shop", Protocol: target.MySQL})
	for range 3 * maxGreeting {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	deadline := time.Now().Add(time.Second)
	for time.Now().Before(deadline) {
		r.mu.Lock()
		n := len(r.heads)
		r.mu.Unlock()
		if n > maxGreeting {
			t.Fatalf("%d streams were opened for strangers", n)
		}
		time.Sleep(20 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.heads) != maxGreeting {
		t.Errorf("%d streams were opened", len(r.heads))
	}
}
