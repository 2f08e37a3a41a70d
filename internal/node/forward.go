package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/node/ask"
	"github.com/sallyport/sallyport/internal/shell"
)

const (
	noForwarding      = "port forwarding is not granted"
	noAgentForwarding = "agent forwarding is not granted"
	dialTime          = 10 * time.Second
	privileged        = 1024 // ports below it are root's
)

// directTCPIP dials for the client (RFC 4254 section 7.2).
func (c *connection) directTCPIP(ch ssh.NewChannel) {
	to, err := ask.Direct(ch.ExtraData())
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	ctx, may := c.lease(rightPort)
	if !may {
		c.denied(noForwarding, &event.Action{Target: to})
		_ = ch.Reject(ssh.Prohibited, noForwarding)
		return
	}
	if err := c.session.Record(c.ctx, event.Event{Kind: event.Port, Success: true, Action: &event.Action{Target: to}}); err != nil {
		_ = ch.Reject(ssh.Prohibited, fault.Of(err).Lines())
		return
	}
	dialer := net.Dialer{Timeout: dialTime, Control: refuseLinkLocal}
	up, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	stream, requests, err := ch.Accept()
	if err != nil {
		up.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	c.splice(ctx, stream, up)
}

// refuseLinkLocal keeps forwards from link-local addresses, where clouds hand a host's credentials to whoever
// connects from it: this server may, and the login may be kept from it by the host's firewall.
func refuseLinkLocal(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if ap.Addr().Unmap().IsLinkLocalUnicast() {
		return errors.New("link-local addresses are not forwarded to")
	}
	return nil
}

// halfCloser can end one direction.
type halfCloser interface{ CloseWrite() error }

// splice carries both ways until both are over, or the right to it is.
func (c *connection) splice(ctx context.Context, channel ssh.Channel, up net.Conn) {
	stop := context.AfterFunc(ctx, func() {
		up.Close()
		_ = channel.Close()
	})
	defer stop()
	var both sync.WaitGroup
	one := func(to io.Writer, from io.Reader) {
		err := pump(to, from)
		if h, ok := to.(halfCloser); ok && err == nil {
			_ = h.CloseWrite()
			return
		}
		up.Close()
		_ = channel.Close()
	}
	both.Go(func() { one(up, touching{channel, c}) })
	both.Go(func() { one(channel, up) })
	both.Wait()
	up.Close()
	_ = channel.Close()
}

// remoteForward is a port that listens for the client (RFC 4254 section 7.1).
type remoteForward struct {
	listener net.Listener
	address  string // as the client asked
	port     uint32
}

// listen opens a port for the client; the payload tells which where the client left it open.
func (c *connection) listen(payload []byte) (bool, []byte) {
	var m ask.Forward
	if ssh.Unmarshal(payload, &m) != nil || m.Port > 65535 {
		return false, nil
	}
	network, bind, err := c.bindAddress(m)
	asked := &event.Action{Target: m.Key(), Direction: "listen"}
	ctx, may := c.lease(rightPort)
	if err != nil || !may {
		text := noForwarding
		if err != nil {
			text = err.Error()
		}
		c.denied(text, asked)
		return false, nil
	}
	if c.session.Record(c.ctx, event.Event{Kind: event.Port, Success: true, Action: asked}) != nil {
		return false, nil
	}
	l, err := net.Listen(network, bind)
	if err != nil {
		return false, nil
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		l.Close()
		return false, nil
	}
	f := &remoteForward{listener: l, address: m.Address, port: uint32(tcp.Port)}
	key := ask.Forward{Address: m.Address, Port: f.port}.Key()
	c.mu.Lock()
	full := len(c.forwards.listeners) >= maxListeners || c.forwards.listeners[key] != nil || ctx.Err() != nil
	if !full {
		c.forwards.listeners[key] = f
	}
	c.mu.Unlock()
	if full {
		l.Close()
		return false, nil
	}
	c.running.Go(func() { c.accept(f) })
	if m.Port == 0 {
		return true, ssh.Marshal(struct{ Port uint32 }{f.port})
	}
	return true, nil
}

// bindAddress is where to listen.
func (c *connection) bindAddress(m ask.Forward) (network, address string, err error) {
	if m.Port != 0 && m.Port < privileged {
		if login, err := c.node.lookup(c.ssh.User()); err != nil || login.UID != 0 {
			return "", "", fmt.Errorf("port %d is root's to listen on", m.Port)
		}
	}
	return m.Bind()
}

func (c *connection) unlisten(payload []byte) bool {
	var m ask.Forward
	if ssh.Unmarshal(payload, &m) != nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.forwards.listeners[m.Key()]
	if f == nil {
		return false
	}
	delete(c.forwards.listeners, m.Key())
	f.listener.Close()
	return true
}

func (c *connection) closeListeners() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, f := range c.forwards.listeners {
		f.listener.Close()
		delete(c.forwards.listeners, k)
	}
}

func (c *connection) accept(f *remoteForward) {
	for {
		conn, err := f.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of files, say: wait a little rather than spin.
			select {
			case <-c.ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		origin := addressOf(conn)
		c.outward(conn, "forwarded-tcpip", rightPort, ssh.Marshal(struct {
			Address    string
			Port       uint32
			Originator string
			OriginPort uint32
		}{f.address, f.port, origin.Addr().String(), uint32(origin.Port())}))
	}
}

// outward opens a channel to the client for a connection that came in here.
func (c *connection) outward(conn net.Conn, kind string, by right, payload []byte) {
	ctx, may := c.lease(by)
	if !may {
		conn.Close()
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		conn.Close()
		return
	}
	c.running.Go(func() {
		defer func() { <-c.slots }()
		channel, requests, err := c.ssh.OpenChannel(kind, payload)
		if err != nil {
			conn.Close()
			return
		}
		go ssh.DiscardRequests(requests)
		c.splice(ctx, channel, conn)
	})
}

// forwardAgent makes a socket that reaches the client's agent (OpenSSH PROTOCOL.agent; auth-agent@openssh.com).
func (s *sessionChannel) forwardAgent() bool {
	if s.process != nil || s.agent != nil {
		return false
	}
	c := s.conn
	if _, may := c.lease(rightAgent); !may {
		s.deny(noAgentForwarding, nil)
		return false
	}
	socket, err := shell.NewSocket(s.login)
	if err != nil {
		c.node.Log.Error("ssh: agent socket", "login", s.login.Name, "err", err)
		return false
	}
	s.agent = socket
	s.pumps.Go(func() {
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			c.outward(conn, "auth-agent@openssh.com", rightAgent, nil)
		}
	})
	return true
}
