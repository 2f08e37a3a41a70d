// Package listener is the one background process of a TSH_HOME that opens local doors to resources for clients that
// cannot sign with hardware.
//
// It is single by a lock on TSH_HOME/listener.lock and steered through TSH_HOME/listener.sock, each call one frame there
// and one back (package tunnel's). A door is a unix socket of this user's alone, or a loopback port behind TLS with a
// client certificate that is good there and nowhere else. Behind a door each connection becomes a stream inside one mutual
// TLS connection a login and resource: further ones cost no signature.
package listener

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// idleTime is how long a listener stays with nothing connected.
const idleTime = time.Hour

// Spec describes a door. Socket is the path of a unix socket; where it is empty, Port is a port on 127.0.0.1, 0 for any
// that is free.
type Spec struct {
	Cluster  string            `json:"cluster"` // whose login is used
	Role     identity.HostRole `json:"role"`
	Resource string            `json:"resource"`
	Protocol target.Protocol   `json:"protocol,omitempty"`
	DBUser   string            `json:"db_user,omitempty"`
	DBName   string            `json:"db_name,omitempty"`
	Socket   string            `json:"socket,omitempty"`
	Port     int               `json:"port,omitempty"`
	Home     string            `json:"home"` // where the certificates of a port lie
	// Holder is who has a door of a resource for itself; empty is the one that everybody shares. To close Everybody's is to close
	// all doors of the resource, or without one of all resources of the role, but those of proxies.
	Holder string `json:"holder,omitempty"`
}

// Everybody is the holder of all doors of a resource but those of proxies.
const Everybody = "*"

// proxyHolder begins the holders that have a door for as long as their process runs.
const proxyHolder = "proxy-"

// ProxyHolder is the holder that this process is.
func ProxyHolder() string { return proxyHolder + strconv.Itoa(os.Getpid()) }

// same reports whether a door that is open serves what another spec asks for.
func (s Spec) same(o Spec) bool {
	if o.Port == 0 && o.Socket == "" {
		o.Port = s.Port
	}
	return s == o
}

// Login is the login that streams are opened with, as it is now.
type Login struct {
	ID      string // another one for each certificate
	Streams func(ctx context.Context, role identity.HostRole, resource string) (*tunnel.Tunnel, error)
}

// Config is what a listener runs with. Login reads the login to a cluster as it is now, or says what to do about there being
// none.
type Config struct {
	Home  string
	Login func(cluster string) (Login, error)
	Idle  time.Duration // 0: an hour
}

// Listener is a running one.
type Listener struct {
	Config
	control net.Listener
	mine    fs.FileInfo // the control socket as it was made
	unlock  func()
	cancel  context.CancelFunc

	mu     sync.Mutex
	doors  map[string]*door      // guarded by mu: by cluster, role and resource
	muxes  map[string]*mux       // guarded by mu: by login, role and resource
	open   int                   // guarded by mu: local connections
	active time.Time             // guarded by mu: when the last one ended
	conns  map[net.Conn]struct{} // guarded by mu
	wg     sync.WaitGroup
}

// Path is where a listener of a TSH_HOME is steered.
func Path(home string) string { return filepath.Join(home, "listener.sock") }

// New takes the lock and the control socket. A fault with the reason listener_running where another listener has them.
func New(c Config) (*Listener, error) {
	unlock, err := lock(filepath.Join(c.Home, "listener.lock"))
	if err != nil {
		return nil, err
	}
	if c.Idle == 0 {
		c.Idle = idleTime
	}
	l := &Listener{Config: c, unlock: unlock, doors: map[string]*door{}, muxes: map[string]*mux{}, active: time.Now(), conns: map[net.Conn]struct{}{}}
	if l.control, err = listenUnix(Path(c.Home)); err != nil {
		unlock()
		return nil, err
	}
	if l.mine, err = os.Lstat(Path(c.Home)); err != nil {
		l.control.Close()
		unlock()
		return nil, err
	}
	return l, nil
}

// Run answers until ctx ends, it is told to stop, its control socket has been removed or replaced, or nothing was connected for an hour; then it
// closes everything.
func (l *Listener) Run(ctx context.Context) error {
	defer l.unlock()
	ctx, l.cancel = context.WithCancel(ctx)
	defer l.cancel()
	stop := context.AfterFunc(ctx, l.shut)
	defer stop()
	l.wg.Go(func() { l.idle(ctx) })
	for {
		c, err := l.control.Accept()
		if err != nil {
			if ctx.Err() == nil && !errors.Is(err, net.ErrClosed) {
				time.Sleep(50 * time.Millisecond)
				continue
			}
			l.cancel()
			l.wg.Wait()
			return nil
		}
		l.wg.Go(func() { l.answer(ctx, c) })
	}
}

// shut ends everything that is open.
func (l *Listener) shut() {
	l.control.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.doors {
		d.close()
	}
	for _, m := range l.muxes {
		m.close()
	}
	for c := range l.conns {
		c.Close()
	}
}

// idle ends a listener that nobody uses, or whose TSH_HOME has been removed.
func (l *Listener) idle(ctx context.Context) {
	tick := time.NewTicker(max(l.Idle/60, 10*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		l.mu.Lock()
		over := l.open == 0 && time.Since(l.active) > l.Idle
		l.mu.Unlock()
		if now, err := os.Lstat(Path(l.Home)); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(now, l.mine) {
			over = true // nobody can steer it any more
		}
		if over {
			l.cancel()
			return
		}
		l.unwanted()
		l.sweep()
	}
}

// call is what the control socket is asked.
type call struct {
	Op   string `json:"op"` // open, close, status, stop
	Spec Spec   `json:"spec,omitzero"`
}

// answer is what it says: the doors that are open now, or, after open, that one.
type answer struct {
	Status tunnel.Status `json:"status"`
	Doors  []Spec        `json:"doors,omitempty"`
	Closed int           `json:"closed,omitempty"` // how many doors a close closed
}

// callTime bounds one exchange on the control socket.
const callTime = 20 * time.Second

func (l *Listener) answer(ctx context.Context, c net.Conn) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(callTime))
	var q call
	if err := tunnel.ReadFrame(c, &q); err != nil {
		return
	}
	var a answer
	var err error
	switch q.Op {
	case "open":
		var s Spec
		s, err = l.openDoor(ctx, q.Spec)
		a.Doors = []Spec{s}
	case "close":
		a.Closed = l.closeDoor(q.Spec)
	case "status":
		a.Doors = l.specs()
	case "stop":
		defer l.cancel()
	default:
		err = fault.New(fault.Unsupported, "the listener does not know %q", q.Op).WithFix("tsh logout; tsh login")
	}
	a.Status = tunnel.StatusOf(err)
	_ = tunnel.WriteFrame(c, a)
}

func (l *Listener) specs() []Spec {
	l.mu.Lock()
	defer l.mu.Unlock()
	out, room := []Spec{}, 3500 // bytes of a frame
	for _, d := range l.doors {
		raw, _ := json.Marshal(d.spec)
		if room -= len(raw) + 1; room > 0 {
			out = append(out, d.spec)
		}
	}
	return out
}

// begin counts a local connection; false where the listener is ending.
func (l *Listener) begin(ctx context.Context, c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	l.open++
	l.conns[c] = struct{}{}
	return true
}

func (l *Listener) end(c net.Conn) {
	c.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	l.active = time.Now()
	delete(l.conns, c)
}
