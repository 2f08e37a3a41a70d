package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// Forward is one forwarding: connections to Listen on one side go to Target on the other, each HOST:PORT. Of a dynamic
// one (-D) Target is empty. Listen's host is localhost unless another is typed, and empty for every address.
type Forward struct{ Listen, Target string }

// ParseForward reads [bind:]port:host:hostport, or, of a dynamic forward, [bind:]port. IPv6 addresses are in brackets.
func ParseForward(s string, dynamic bool) (Forward, error) {
	want := "[bind:]port:host:hostport"
	if dynamic {
		want = "[bind:]port"
	}
	wrong := fault.New(fault.Invalid, "%q is no forward: want %s", s, want).WithReason("forward")
	parts, err := split(s)
	if err != nil {
		return Forward{}, wrong.Wrapping(err)
	}
	need := 3
	if dynamic {
		need = 1
	}
	bind := "localhost"
	if len(parts) == need+1 {
		bind, parts = parts[0], parts[1:]
		if bind == "*" {
			bind = ""
		}
	}
	if len(parts) != need {
		return Forward{}, wrong
	}
	if _, err := strconv.ParseUint(parts[0], 10, 16); err != nil || !hostName(bind) {
		return Forward{}, wrong
	}
	f := Forward{Listen: net.JoinHostPort(bind, parts[0])}
	if dynamic {
		return f, nil
	}
	if n, err := strconv.ParseUint(parts[2], 10, 16); err != nil || n == 0 || parts[1] == "" || !hostName(parts[1]) {
		return Forward{}, wrong
	}
	f.Target = net.JoinHostPort(parts[1], parts[2])
	return f, nil
}

// hostName reports whether nothing in s can be taken for more than a host's name or address.
func hostName(s string) bool {
	return len(s) <= 255 && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("[]/", r) })
}

// split takes a text apart at its colons, those in brackets excepted.
func split(s string) ([]string, error) {
	var parts []string
	for {
		if rest, ok := strings.CutPrefix(s, "["); ok {
			inside, after, ok := strings.Cut(rest, "]")
			if _, err := netip.ParseAddr(inside); !ok || err != nil || (after != "" && after[0] != ':') {
				return nil, errors.New("brackets hold an IPv6 address")
			}
			parts = append(parts, inside)
			if after == "" {
				return parts, nil
			}
			s = after[1:]
			continue
		}
		part, rest, more := strings.Cut(s, ":")
		parts = append(parts, part)
		if !more {
			return parts, nil
		}
		s = rest
	}
}

// ForwardLocal listens here (-L, and -D with an empty target) until ctx or the connection ends; it returns once it
// listens. report is told of single connections that fail.
func (c *Client) ForwardLocal(ctx context.Context, f Forward, report func(error)) (net.Addr, error) {
	l, err := net.Listen("tcp", f.Listen)
	if err != nil {
		return nil, fault.New(fault.Unavailable, "cannot listen on %s", f.Listen).WithReason("listen").Wrapping(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	context.AfterFunc(ctx, func() { l.Close() })
	go func() {
		_ = c.ssh.Wait()
		cancel()
	}()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				cancel()
				return
			}
			go func() {
				if err := c.carry(conn, f.Target); err != nil {
					report(err)
				}
			}()
		}
	}()
	return l.Addr(), nil
}

// carry brings one local connection to its target, which SOCKS names where there is none.
func (c *Client) carry(conn net.Conn, target string) error {
	defer conn.Close()
	answer := func(error) {}
	if target == "" {
		_ = conn.SetDeadline(time.Now().Add(socksTime))
		var err error
		if target, err = readSOCKS(conn); err != nil {
			return fault.New(fault.Invalid, "not a SOCKS5 connection").WithReason("socks").Wrapping(err)
		}
		answer = func(err error) { _, _ = conn.Write(socksReply(err)) }
		_ = conn.SetDeadline(time.Time{})
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return err
	}
	n, _ := strconv.ParseUint(port, 10, 16)
	origin, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	channel, requests, err := c.open("direct-tcpip", ssh.Marshal(struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}{host, uint32(n), origin.Addr().Unmap().String(), uint32(origin.Port())}))
	answer(err)
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	go ssh.DiscardRequests(requests)
	splice(channel, conn)
	return nil
}

// splice copies both ways until both are over.
func splice(channel ssh.Channel, conn net.Conn) {
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(conn, channel)
		if h, ok := conn.(interface{ CloseWrite() error }); ok {
			_ = h.CloseWrite()
		}
	})
	both.Go(func() {
		if _, err := io.Copy(channel, conn); err != nil {
			_ = channel.Close()
		}
		_ = channel.CloseWrite()
	})
	both.Wait()
	_ = channel.Close()
	conn.Close()
}

// remoteForward is where connections that come in at the node go to.
type remoteForward struct {
	target string
	report func(error)
}

// ForwardRemote has the node listen (-R) until the connection ends. It returns the port, which the node chooses where
// Listen's is 0.
func (c *Client) ForwardRemote(f Forward, report func(error)) (int, error) {
	host, text, err := net.SplitHostPort(f.Listen)
	if err != nil {
		return 0, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock() // a connection that comes at once waits until the forward is known
	ok, payload, err := c.ssh.SendRequest("tcpip-forward", true, ssh.Marshal(struct {
		Host string
		Port uint32
	}{host, uint32(port)}))
	if err != nil {
		return 0, fault.New(fault.Unavailable, "the connection was lost").WithReason("connection_lost").Wrapping(err)
	}
	if !ok {
		return 0, fault.New(fault.Denied, "the node does not listen on %s", f.Listen).WithReason("remote_forward").
			WithCause("port forwarding is not granted, or the port is taken or not yours to take")
	}
	var m struct{ Port uint32 }
	if port == 0 && ssh.Unmarshal(payload, &m) == nil {
		port = uint64(m.Port)
	}
	key := net.JoinHostPort(host, strconv.FormatUint(port, 10))
	c.forwards[key] = remoteForward{f.Target, report}
	return int(port), nil
}

// forwarded takes a connection that came in at the node, if a forward of ours asked for it.
func (c *Client) forwarded(ch ssh.NewChannel) {
	var m struct {
		Host       string
		Port       uint32
		Originator string
		OriginPort uint32
	}
	if ssh.Unmarshal(ch.ExtraData(), &m) != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	key := net.JoinHostPort(m.Host, strconv.FormatUint(uint64(m.Port), 10))
	c.mu.Lock()
	f, ours := c.forwards[key]
	c.mu.Unlock()
	if !ours {
		_ = ch.Reject(ssh.Prohibited, "no such forward")
		return
	}
	conn, err := net.DialTimeout("tcp", f.target, 30*time.Second)
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "target not reachable")
		f.report(err)
		return
	}
	accepted(ch, conn)
}

func accepted(ch ssh.NewChannel, conn net.Conn) {
	channel, requests, err := ch.Accept()
	if err != nil {
		conn.Close()
		return
	}
	go ssh.DiscardRequests(requests)
	splice(channel, conn)
}

// ForwardAgent lets the node reach the agent at a socket (SSH_AUTH_SOCK), for jobs with Agent set. An agent that holds
// a certificate of ours is tsh's own and is not forwarded.
func (c *Client) ForwardAgent(socket string) error {
	conn, err := dialAgent(socket)
	if err != nil {
		return fault.New(fault.Unavailable, "no agent answers at %s", socket).WithReason("agent").Wrapping(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	keys, err := agent.NewClient(conn).List()
	if err != nil {
		return fault.New(fault.Unavailable, "no agent answers at %s", socket).WithReason("agent").Wrapping(err)
	}
	for _, k := range keys {
		key, err := ssh.ParsePublicKey(k.Blob)
		if err != nil {
			continue
		}
		if cert, ok := key.(*ssh.Certificate); ok && cert.Extensions[identity.ExtIdentity] != "" {
			return fault.New(fault.Denied, "tsh's own agent is not forwarded").WithReason("own_agent").
				WithCause("it signs with the session key, which does not leave this device").
				WithFix("point SSH_AUTH_SOCK at another agent, or leave out -A")
		}
	}
	c.mu.Lock()
	c.agent = socket
	c.mu.Unlock()
	return nil
}

func (c *Client) agentChannel(ch ssh.NewChannel) {
	c.mu.Lock()
	socket := c.agent
	c.mu.Unlock()
	if socket == "" {
		_ = ch.Reject(ssh.Prohibited, "no agent is forwarded")
		return
	}
	conn, err := dialAgent(socket)
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "the agent does not answer")
		return
	}
	accepted(ch, conn)
}
