package listener

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/listener/localcert"
	"github.com/sallyport/sallyport/internal/listener/refusal"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// door is one that is open.
type door struct {
	spec     Spec
	listener net.Listener
	guard    guard
	tls      *tls.Config   // of a port
	greeting chan struct{} // behind a MySQL port: those of whom it is not known yet who they are
	wanted   time.Time     // when somebody asked for it last; guarded by Listener.mu
}

// maxGreeting is how many of them there may be at once.
const maxGreeting = 8

// guard lets a local client in, and returns the connection with the resource's own protocol on it.
type guard func(net.Conn) (net.Conn, error)

// entryTime bounds what a local client has to say before it is let in, and reaching the resource.
const entryTime = 15 * time.Second

func (s Spec) key() string {
	kind := "port"
	if s.Socket != "" {
		kind = "socket"
	}
	return s.Cluster + "\x00" + string(s.Role) + "\x00" + s.Resource + "\x00" + kind + "\x00" + s.Holder
}

// openDoor opens a door, or finds it open; one that is there for something else is closed first.
func (l *Listener) openDoor(ctx context.Context, s Spec) (Spec, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ctx.Err() != nil {
		return s, fault.New(fault.Unavailable, "the listener is stopping").WithFix("try again")
	}
	l.active = time.Now()
	if d := l.doors[s.key()]; d != nil {
		if d.spec.same(s) {
			d.wanted = l.active
			if d.tls != nil {
				return d.spec, localcert.Renew(s.Home)
			}
			return d.spec, nil
		}
		d.close()
		delete(l.doors, s.key())
	}
	d, err := newDoor(s)
	if err != nil {
		return s, err
	}
	d.wanted = l.active
	l.doors[s.key()] = d
	l.wg.Go(func() { l.accept(ctx, d) })
	return d.spec, nil
}

// closeDoor closes a door, or Everybody's, and returns how many they were.
func (l *Listener) closeDoor(s Spec) (closed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, d := range l.doors {
		if key == s.key() || s.Holder == Everybody && d.spec.of(s) && !d.spec.proxied() {
			d.close()
			delete(l.doors, key)
			closed++
		}
	}
	return closed
}

// of reports whether a door is of a resource, or of any of its role where none is named.
func (s Spec) of(o Spec) bool {
	return s.Cluster == o.Cluster && s.Role == o.Role && (s.Resource == o.Resource || o.Resource == "")
}

// proxied reports whether a door is a proxy's, which says each minute that it is wanted.
func (s Spec) proxied() bool { return strings.HasPrefix(s.Holder, proxyHolder) }

// unwanted closes the doors of proxies that are gone without a word.
func (l *Listener) unwanted() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, d := range l.doors {
		if d.spec.proxied() && time.Since(d.wanted) > l.Idle/20 {
			d.close()
			delete(l.doors, key)
		}
	}
}

// close closes a door and leaves nothing of a socket, its directory neither.
func (d *door) close() {
	d.listener.Close()
	if d.spec.Socket != "" {
		_ = os.Remove(filepath.Dir(d.spec.Socket)) // unless something else is there
	}
}

func newDoor(s Spec) (*door, error) {
	if s.Socket != "" {
		if err := hwkey.MakeDir(filepath.Dir(s.Socket)); err != nil {
			return nil, err
		}
		n, err := listenUnix(s.Socket)
		return &door{spec: s, listener: n, guard: open}, err
	}
	if err := localcert.Renew(s.Home); err != nil {
		return nil, err
	}
	n, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
	if err != nil {
		command := "tsh %s login %s --port=0   (chooses another)"
		if s.Holder != "" {
			command = "tsh proxy %s %s --port=0   (chooses another)"
		}
		return nil, fault.New(fault.Unavailable, "port %d of this machine is held by another program", s.Port).WithReason("port_held").Wrapping(err).
			WithFix(command, string(s.Role), s.Resource)
	}
	if a, ok := n.Addr().(*net.TCPAddr); ok {
		s.Port = a.Port
	}
	config := localcert.Config(s.Home)
	return &door{spec: s, listener: n, guard: guardFor(s.Protocol, config), tls: config, greeting: make(chan struct{}, maxGreeting)}, nil
}

// open lets everybody in: a socket's own mode keeps others out, and behind a MySQL port the door speaks first.
func open(c net.Conn) (net.Conn, error) { return c, nil }

// listenUnix makes a socket for this user alone; one that is left over is replaced.
func listenUnix(path string) (net.Listener, error) {
	if st, err := os.Lstat(path); err == nil {
		if st.Mode()&os.ModeSocket == 0 && st.Size() > 0 {
			return nil, fault.New(fault.Exists, "%s is in the way and is no socket", path).WithReason("socket_held")
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	n, err := unixAlone(path)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "the socket %s cannot be made", path).WithReason("socket").WithCause("%v", err).Wrapping(err)
	}
	return n, nil
}

// accept serves a door until it is closed.
func (l *Listener) accept(ctx context.Context, d *door) {
	for {
		c, err := d.listener.Accept()
		if err != nil {
			if ne, ok := err.(net.Error); ok && ne.Timeout() {
				continue
			}
			return
		}
		if !l.begin(ctx, c) {
			c.Close()
			return
		}
		l.wg.Go(func() {
			defer l.end(c)
			l.carry(ctx, d, c)
		})
	}
}

// carry lets one local client in and joins it with a stream to the resource. What keeps it from there is told in the
// resource's own protocol.
func (l *Listener) carry(ctx context.Context, d *door, c net.Conn) {
	_ = c.SetDeadline(time.Now().Add(entryTime))
	inner, err := d.guard(c)
	if err != nil {
		return
	}
	// Behind a MySQL port the server speaks before it is known who asks: few may make it do so at once.
	greets := d.tls != nil && d.spec.Protocol == target.MySQL
	if greets {
		select {
		case d.greeting <- struct{}{}:
		case <-time.After(entryTime):
			return
		case <-ctx.Done():
			return
		}
	}
	known := sync.OnceFunc(func() {
		if greets {
			<-d.greeting
		}
	})
	defer known()
	dial, cancel := context.WithTimeout(ctx, entryTime)
	up, err := l.stream(dial, d.spec)
	cancel()
	if err != nil {
		_ = c.SetDeadline(time.Now().Add(entryTime))
		refuse(inner, d.spec, fault.Of(err))
		return
	}
	if greets {
		_ = up.SetDeadline(time.Now().Add(entryTime))
		if inner, err = mysqlTLS(c, up, d.tls); err != nil {
			up.Close()
			return
		}
		_ = up.SetDeadline(time.Time{})
	}
	known()
	_ = c.SetDeadline(time.Time{})
	tunnel.Splice(inner, up)
}

// drainTime is how long a client that was refused may still send before its connection is closed: a close with unread
// bytes would take the refusal away from it.
const drainTime = 500 * time.Millisecond

func drain(c net.Conn) {
	_ = c.SetReadDeadline(time.Now().Add(drainTime))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

// refuse tells a client in its protocol why it gets no further; the caller closes the connection.
func refuse(c net.Conn, s Spec, f *fault.Error) {
	_, _ = c.Write(refusal.Of(s.Role, s.Protocol, f))
	drain(c)
}
