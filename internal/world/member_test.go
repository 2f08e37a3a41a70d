package world_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/world"
)

// host is a node that joined from this process.
type host struct {
	t   *testing.T
	w   *world.World
	key *ecdsa.PrivateKey
	ssh ssh.PublicKey
	member.Certificates
}

func newHost(t *testing.T, w *world.World) *host {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return &host{t: t, w: w, key: key, ssh: public}
}

func (h *host) token(name string, roles ...string) string {
	h.t.Helper()
	i, err := h.w.Admin.AddToken(h.t.Context(), roles, name, 0)
	if err != nil {
		h.t.Fatal(err)
	}
	return i.Token
}

func (h *host) join(token, name string) error {
	c := h.w.Address().Call(nil)
	defer c.Close()
	var err error
	h.Certificates, err = member.New(c).Join(h.t.Context(), member.Request{Token: token, Role: identity.RoleNode, Name: name, TLSKey: h.key.Public(), SSHKey: h.ssh})
	return err
}

// call does something as this host.
func (h *host) call(f func(m *member.Host) error) error {
	c := h.w.Address().Call(&tls.Certificate{Certificate: [][]byte{h.TLS}, PrivateKey: h.key})
	defer c.Close()
	return f(member.New(c))
}

func (h *host) renew() error {
	return h.call(func(m *member.Host) error {
		_, err := m.Renew(h.t.Context(), member.Request{TLSKey: h.key.Public(), SSHKey: h.ssh})
		return err
	})
}

// serve follows the feed until the node is listed.
func (h *host) serve() {
	h.t.Helper()
	err := h.call(func(m *member.Host) error {
		ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
		defer cancel()
		mirror := snapshot.NewMirror(func() time.Duration { return 1 })
		changed := mirror.Changed()
		go func() {
			for {
				<-changed
				changed = mirror.Changed()
				if p, _ := mirror.Current(); p.Servers[h.ID] != nil {
					cancel()
					return
				}
			}
		}()
		return m.Follow(ctx, member.Follower{Mirror: mirror, Served: func() *identity.Server { return &identity.Server{} }, Every: time.Hour})
	})
	if _, gerr := h.w.Admin.Get(h.t.Context(), manifest.Node, h.ID); gerr != nil {
		h.t.Fatal(err, gerr)
	}
}

// told are sessions that a host says it carries.
type told []live.Session

func (s told) News() <-chan struct{}                          { return nil }
func (s told) All() []live.Session                            { return s }
func (s told) Tell() (changed []live.Session, ended []string) { return nil, nil }

// tell follows the feed until auth has taken, or refused, what the host says of its sessions.
func (h *host) tell(list ...live.Session) error {
	h.t.Helper()
	return h.call(func(m *member.Host) error {
		ctx, cancel := context.WithTimeout(h.t.Context(), 10*time.Second)
		defer cancel()
		mirror := snapshot.NewMirror(func() time.Duration { return 1 })
		go func() {
			for ctx.Err() == nil {
				if _, age := mirror.Current(); age != snapshot.Never {
					cancel() // the first echo comes after what came with the ping
				}
				time.Sleep(10 * time.Millisecond)
			}
		}()
		_ = m.Follow(ctx, member.Follower{Mirror: mirror, Sessions: told(list), Served: func() *identity.Server { return &identity.Server{} }, Every: time.Hour})
		if _, age := mirror.Current(); age == snapshot.Never {
			h.t.Error("the host heard nothing")
		}
		return nil
	})
}

// TestA13NamesStayTheirs tries to come by another host's name: by its id, by removing a namesake, by asking again.
func TestA13NamesStayTheirs(t *testing.T) {
	w := world.New(t, nil)
	first, second, third := newHost(t, w), newHost(t, w), newHost(t, w)
	if err := first.join(first.token("", "node"), "db1"); err != nil || first.Name != "db1" {
		t.Fatalf("%q %v", first.Name, err)
	}
	w.Refused(second.join(second.token("", "node"), first.ID), "host_name", event.HostJoin)
	if err := second.join(second.token("db1", "node"), ""); err != nil || second.Name != "db1" {
		t.Fatalf("a token that names it: %q %v", second.Name, err)
	}
	second.serve()
	if _, err := w.Admin.Delete(t.Context(), manifest.Node, second.ID); err != nil {
		t.Fatal(err)
	}
	if err := third.join(third.token("", "node"), "db1"); err != nil || third.Name != "" || third.Notice == "" {
		t.Fatalf("the name of another, after its namesake went: %q %q %v", third.Name, third.Notice, err)
	}
	if err := first.renew(); err != nil {
		t.Fatal(err)
	}
	w.Refused(second.renew(), "host_removed", event.Auth)
}

// TestA13SharedName: a name that tokens give to several is what they share: one that names itself so does not get it, and
// with it what they serve, as long as one of them is there.
func TestA13SharedName(t *testing.T) {
	w := world.New(t, nil)
	first, second, thief := newHost(t, w), newHost(t, w), newHost(t, w)
	for _, h := range []*host{first, second} {
		if err := h.join(h.token("orders-agents", "node"), ""); err != nil || h.Name != "orders-agents" {
			t.Fatalf("%q %v", h.Name, err)
		}
	}
	if err := thief.join(thief.token("", "node"), "orders-agents"); err != nil || thief.Name != "" || thief.Notice == "" {
		t.Fatalf("the name that others share was taken: %q %q %v", thief.Name, thief.Notice, err)
	}
	for _, h := range []*host{first, second} {
		if _, err := w.Admin.Delete(t.Context(), manifest.Node, h.ID); err != nil {
			// one that nobody has heard of goes by its id alone
			t.Fatal(err)
		}
	}
	if err := thief.join(thief.token("", "node"), "orders-agents"); err != nil || thief.Name != "orders-agents" {
		t.Fatalf("the name is not free: %q %q %v", thief.Name, thief.Notice, err)
	}
}

// TestA13RemovedWhileAway removes a node that nobody has heard of: its key may be with somebody else by now.
func TestA13RemovedWhileAway(t *testing.T) {
	w := world.New(t, nil)
	for _, by := range []string{"name", "id"} {
		h, next := newHost(t, w), newHost(t, w)
		if err := h.join(h.token("", "node"), "away"); err != nil {
			t.Fatal(err)
		}
		named := map[string]string{"name": "away", "id": h.ID}[by]
		if _, err := w.Admin.Delete(t.Context(), manifest.Node, named); err != nil {
			t.Fatalf("by %s: %v", by, err)
		}
		w.Refused(h.renew(), "host_removed", event.Auth)
		if err := next.join(next.token("", "node"), "away"); err != nil || next.Name != "away" {
			t.Fatalf("the name is not free: %q %v", next.Name, err)
		}
		if _, err := w.Admin.Delete(t.Context(), manifest.Node, next.ID); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Admin.Delete(t.Context(), manifest.Node, "never-was"); !fault.Because(err, "not_found") {
		t.Fatal(err)
	}
}

// TestA73JoinTokens guesses, reuses, and races.
func TestA73JoinTokens(t *testing.T) {
	w := world.New(t, nil)
	h := newHost(t, w)
	w.Refused(h.join("guess", "x"), "invalid_join_token", event.HostJoin)
	w.Refused(h.join(h.token("", "proxy"), "x"), "invalid_join_token", event.HostJoin)
	c := w.Address().Call(nil)
	defer c.Close()
	_, err := member.New(c).Join(t.Context(), member.Request{Token: "guess", Role: identity.RoleDB, TLSKey: h.key.Public(), SSHKey: h.ssh})
	if w.Refused(err, "invalid_join_token", event.HostJoin); fault.Of(err).Fix != "tctl tokens add --type=db" {
		t.Errorf("a database agent is told %q", fault.Of(err).Fix)
	}
	if twice := w.Events(event.Auth); len(twice) != 0 {
		t.Errorf("refusals of joins were recorded twice: %+v", twice)
	}
	token := h.token("", "node")
	results := make([]error, 4)
	var wg sync.WaitGroup
	for i := range results {
		own := newHost(t, w)
		wg.Go(func() { results[i] = own.join(token, "") })
	}
	wg.Wait()
	won := 0
	for _, err := range results {
		if err == nil {
			won++
		} else if !fault.Because(err, "invalid_join_token") {
			t.Errorf("a loser was told %v", err)
		}
	}
	if won != 1 {
		t.Fatalf("%d hosts joined by one token", won)
	}
	w.Refused(h.join(token, ""), "invalid_join_token", event.HostJoin)
}

// TestA76FollowsNoFeed has a node of another build follow the feed: it would not enforce what it cannot read.
func TestA76FollowsNoFeed(t *testing.T) {
	w := world.New(t, nil)
	h := newHost(t, w)
	if err := h.join(h.token("", "node"), "db1"); err != nil {
		t.Fatal(err)
	}
	c := w.Address().Call(&tls.Certificate{Certificate: [][]byte{h.TLS}, PrivateKey: h.key})
	defer c.Close()
	transport, base, opts := c.Transport()
	for _, protocol := range []uint32{0, cluster.ProtocolVersion + 1} {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		stream := sallyportv1connect.NewFeedServiceClient(transport, base, opts...).Follow(ctx)
		if err := stream.Send(&pb.FollowRequest{Ping: 1, Version: "v0.0.9", ProtocolVersion: protocol}); err != nil {
			t.Fatal(err)
		}
		m, err := stream.Receive()
		cancel()
		if m != nil || !fault.Because(client.FromRPC(err), "protocol_version") {
			t.Fatalf("protocol %d: it was told %v, %v", protocol, m, err)
		}
		w.Refused(client.FromRPC(err), "protocol_version", event.Auth)
	}
}
