package world_test

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/config"
	"github.com/sallyport/sallyport/internal/daemon"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/tunnel"
	"github.com/sallyport/sallyport/internal/world"
)

// slowFeed stands where the proxy is and hands everything on, but what comes from auth only after a while, once it is
// told to: it knows those connections by their ALPN.
type slowFeed struct {
	listener net.Listener
	to       string
	delay    atomic.Int64 // in nanoseconds
	running  sync.WaitGroup
}

func newSlowFeed(t *testing.T, to string) *slowFeed {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &slowFeed{listener: l, to: to}
	ctx, cancel := context.WithCancel(context.Background())
	s.running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.running.Go(func() { s.carry(ctx, c) })
		}
	})
	t.Cleanup(func() { cancel(); l.Close(); s.running.Wait() })
	return s
}

func (s *slowFeed) carry(ctx context.Context, c net.Conn) {
	defer c.Close()
	hello := make([]byte, 4096)
	n, err := c.Read(hello)
	if err != nil {
		return
	}
	up, err := net.Dial("tcp", s.to)
	if err != nil {
		return
	}
	defer up.Close()
	stop := context.AfterFunc(ctx, func() { c.Close(); up.Close() })
	defer stop()
	if _, err := up.Write(hello[:n]); err != nil {
		return
	}
	go func() { _, _ = io.Copy(up, c); up.Close() }()
	if !bytes.Contains(hello[:n], []byte(tunnel.ALPNAuth)) {
		_, _ = io.Copy(c, up)
		return
	}
	s.late(ctx, c, up)
}

// late hands on each piece when its time has come.
func (s *slowFeed) late(ctx context.Context, to, from net.Conn) {
	type piece struct {
		at   time.Time
		data []byte
	}
	pieces := make(chan piece, 4096)
	go func() {
		defer close(pieces)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			pieces <- piece{time.Now().Add(time.Duration(s.delay.Load())), buf[:n]}
		}
	}()
	for p := range pieces {
		select {
		case <-time.After(time.Until(p.at)):
		case <-ctx.Done():
			return
		}
		if _, err := to.Write(p.data); err != nil {
			return
		}
	}
}

// TestA10FeedDelayed has a proxy that was taken over hold the feed back: by a minute at once, and little by little, so that
// echoes come all the time, but of pings that are old. The node, to which everything else comes as ever, lets nobody in after
// picture_age.admit, and ends what it carries after picture_age.live.
func TestA10FeedDelayed(t *testing.T) {
	for name, hold := range map[string]func(*slowFeed, chan<- struct{}){
		"at once": func(s *slowFeed, held chan<- struct{}) {
			s.delay.Store(int64(time.Minute))
			close(held)
		},
		"little by little": func(s *slowFeed, held chan<- struct{}) {
			s.running.Go(func() {
				defer close(held)
				for d := time.Duration(0); d < 12*time.Second; d += 300 * time.Millisecond {
					s.delay.Store(int64(d))
					time.Sleep(400 * time.Millisecond)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			feedDelayed(t, hold)
		})
	}
}

func feedDelayed(t *testing.T, hold func(*slowFeed, chan<- struct{})) {
	w := world.New(t, func(c *config.Config) { c.SSH = nil })
	set := cluster.Default()
	set.SecondFactors = []string{}
	set.PictureAge = cluster.PictureAge{Admit: role.Duration(10 * time.Second), Live: role.Duration(11 * time.Second)}
	w.Write(&set)
	w.User("alice", "access")
	rogue := newSlowFeed(t, w.State.Listen)
	token, err := w.Admin.AddToken(t.Context(), []string{"node"}, "web", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := config.Default("example.com")
	c.Auth, c.Proxy, c.DataDir = nil, nil, filepath.Join(w.Dir, "node")
	c.SSH = &config.SSH{}
	c.Join = &config.Join{Proxy: rogue.listener.Addr().String(), Token: token.Token, CAPins: []string{w.State.CAPin}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	ready := make(chan daemon.State, 1)
	go func() {
		ended <- daemon.Run(ctx, daemon.Options{Config: c, Executable: "/bin/false", Out: io.Discard, Log: slog.New(slog.DiscardHandler),
			Ready: func(s daemon.State) { ready <- s }})
	}()
	defer func() { cancel(); <-ended }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	l := w.Login("alice")
	var s *carried
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if err := try(t, l); err == nil {
			s = carry(t, l)
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	held := make(chan struct{})
	hold(rogue, held)
	began := time.Now()
	time.Sleep(time.Second) // what was under way
	w.Write(&lock.Lock{Name: "l", Target: lock.Target{User: "bob"}})
	for {
		err := try(t, l)
		if err != nil {
			if !strings.Contains(err.Error(), "has not heard from the auth server") {
				t.Fatal(err)
			}
			break
		}
		if time.Since(began) > 30*time.Second {
			t.Fatal("a node whose feed is held back still lets people in")
		}
		time.Sleep(200 * time.Millisecond)
	}
	<-held
	s.cut(t, "has not heard from the auth server")
	time.Sleep(11 * time.Second) // what was read while the delay was short is there
	// Old echoes come by now, and make nothing young.
	for quiet := time.Now().Add(7 * time.Second); time.Now().Before(quiet); time.Sleep(500 * time.Millisecond) {
		if err := try(t, l); err == nil {
			t.Fatalf("let in %s after the feed was held back", time.Since(began))
		}
	}
	// The proxy lets go, and service returns by itself.
	rogue.delay.Store(0)
	for deadline := time.Now().Add(90 * time.Second); try(t, l) != nil; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("service does not return")
		}
	}
}

// try runs a command on the node.
func try(t *testing.T, l *world.Login) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, err := l.World.Address().Stream(ctx, tunnel.Dial{Target: "web", Door: tunnel.DoorSSH, Ticket: l.DialTicket})
	if err != nil {
		return err
	}
	c, err := session.Dial(ctx, conn, session.Config{Login: "root", Signer: certSigner(t, l), HostAuthorities: l.HostAuthorities, Target: "web", Now: time.Now})
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Run(ctx, session.Job{Command: "true", In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
}
