package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/sshcert"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// jumpChannels is how many channels one jump connection may have open.
const jumpChannels = 16

// jumpGrace is how long a jump connection that a lock ends still carries the nodes' words.
const jumpGrace = time.Second

// jump is the service for `ssh -J`: direct-tcpip to names of the roster and nothing else. A user certificate opens it;
// what it opens is a way to a gate.
func (p *Proxy) jump(ctx context.Context, c *peeked, known func()) {
	var who *identity.User
	config := &ssh.ServerConfig{MaxAuthTries: 6, ServerVersion: "SSH-2.0-Sallyport"}
	config.PublicKeyCallback = func(meta ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		u, err := p.verify(meta, key)
		if err != nil {
			return nil, err
		}
		return &ssh.Permissions{ExtraData: map[any]any{jumpUser{}: u}}, nil
	}
	config.AddHostKey(p.HostKey())
	conn, chans, reqs, err := ssh.NewServerConn(c, config)
	if err != nil {
		p.Log.Debug("jump refused", "addr", c.addr, "err", err)
		return
	}
	defer conn.Close()
	who, _ = conn.Permissions.ExtraData[jumpUser{}].(*identity.User)
	known()
	_ = c.SetDeadline(time.Time{})
	go ssh.DiscardRequests(reqs)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.cutWhenLocked(ctx, who, conn)
	slots := make(chan struct{}, jumpChannels)
	for ch := range chans {
		select {
		case slots <- struct{}{}:
			go func() {
				defer func() { <-slots }()
				if l, is := p.locked(who); is {
					_ = ch.Reject(ssh.Prohibited, fmt.Sprintf("lock targeting %s is in force", l.Target))
					return
				}
				p.jumpChannel(ctx, c, ch)
			}()
		default:
			_ = ch.Reject(ssh.ResourceShortage, "too many channels")
		}
	}
}

type jumpUser struct{}

// verify takes a user certificate of this cluster that no lock refuses.
func (p *Proxy) verify(meta ssh.ConnMetadata, key ssh.PublicKey) (*identity.User, error) {
	picture, _ := p.Pictures.Current()
	// The login name means nothing here: the certificate says who it is.
	u, err := sshcert.Rules{Authorities: picture.Authorities.SSHUser, Cluster: p.Cluster, Now: p.Now()}.User("", key)
	if err != nil {
		return nil, err
	}
	if addr, ok := meta.RemoteAddr().(*net.TCPAddr); u.PinnedIP.IsValid() && (!ok || addr.AddrPort().Addr().Unmap() != u.PinnedIP.Unmap()) {
		return nil, errors.New("certificate pinned to another address")
	}
	if l, is := p.locked(u); is {
		return nil, &ssh.BannerError{Err: errors.New("locked"), Message: fmt.Sprintf("lock targeting %s is in force\n", l.Target)}
	}
	return u, nil
}

// locked finds a lock on the user, whatever the target.
func (p *Proxy) locked(u *identity.User) (lock.Lock, bool) {
	picture, _ := p.Pictures.Current()
	if l := picture.Locks.MatchUser(u, p.Now()); l != nil {
		return *l, true
	}
	return lock.Lock{}, false
}

func (p *Proxy) cutWhenLocked(ctx context.Context, u *identity.User, conn ssh.Conn) {
	for {
		changed := p.Pictures.Changed()
		if _, is := p.locked(u); is {
			select { // the nodes, which cut what goes through, have a moment to say why
			case <-time.After(jumpGrace):
			case <-ctx.Done():
			}
			conn.Close()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// directTCPIP is the extra data of a direct-tcpip channel (RFC 4254 section 7.2). The port is not the client's choice.
type directTCPIP struct {
	Host       string
	Port       uint32
	Originator string
	OriginPort uint32
}

func (p *Proxy) jumpChannel(ctx context.Context, c *peeked, ch ssh.NewChannel) {
	if ch.ChannelType() != "direct-tcpip" {
		_ = ch.Reject(ssh.Prohibited, "this is a jump host: ssh -J "+p.Cluster+" USER@NODE")
		return
	}
	var req directTCPIP
	if err := ssh.Unmarshal(ch.ExtraData(), &req); err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, "malformed request")
		return
	}
	up, err := p.openTarget(ctx, c, req.Host, tunnel.DoorSSH)
	if err != nil {
		_ = ch.Reject(ssh.ConnectionFailed, fault.Of(err).Lines())
		return
	}
	stream, reqs, err := ch.Accept()
	if err != nil {
		up.Close()
		return
	}
	go ssh.DiscardRequests(reqs)
	p.carry(ctx, &channelConn{stream, c}, up)
}

// channelConn is an SSH channel as a connection; its deadlines are those of nothing.
type channelConn struct {
	ssh.Channel
	under net.Conn
}

func (c *channelConn) LocalAddr() net.Addr              { return c.under.LocalAddr() }
func (c *channelConn) RemoteAddr() net.Addr             { return c.under.RemoteAddr() }
func (c *channelConn) SetDeadline(time.Time) error      { return nil }
func (c *channelConn) SetReadDeadline(time.Time) error  { return nil }
func (c *channelConn) SetWriteDeadline(time.Time) error { return nil }
