package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/contact"
	"github.com/sallyport/sallyport/internal/client/member"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/target"
	"github.com/sallyport/sallyport/internal/tunnel"
)

// The crowd: users, and how many sessions each has.
const (
	crowdUsers = 20
	crowdEach  = 50
)

// crowd is a thousand live SSH sessions of twenty users on one node.
type crowd struct {
	address client.Address
	admin   *client.Cluster
	users   []*person
}

// person is one user's login, and their sessions' ends.
type person struct {
	name   string
	login  client.Certificates
	signer ssh.Signer

	mu    sync.Mutex
	ended []time.Time // guarded by mu
	wait  sync.WaitGroup
}

type answers struct{}

func (answers) Password(context.Context) (string, error)       { return strings.TrimSpace(password), nil }
func (answers) NewPassword(context.Context) (string, error)    { return "", errors.New("not asked") }
func (answers) OTP(context.Context) (string, error)            { return "", errors.New("not asked") }
func (answers) NewOTP(context.Context, string) (string, error) { return "", errors.New("not asked") }

// cuts measures how soon trust that ends is at an end: of a thousand sessions, those of one user by a lock, and all of
// them by the cluster's mode.
func (w *world) cuts(ctx context.Context) ([]row, error) {
	c, err := w.crowd(ctx)
	if err != nil {
		return nil, err
	}
	defer c.admin.Close()
	began := time.Now()
	if err := c.fill(ctx, c.users); err != nil {
		return nil, err
	}
	filled := time.Since(began)
	var took []time.Duration
	untouched := 0
	for i, p := range c.users {
		began := time.Now()
		name := "bench-" + p.name
		if _, err := c.admin.Write(ctx, []*manifest.Resource{manifest.New(&lock.Lock{Name: name, Target: lock.Target{User: p.name}}, 0)}, true); err != nil {
			return nil, err
		}
		p.wait.Wait()
		for _, at := range p.ended {
			took = append(took, at.Sub(began))
		}
		for _, other := range c.users[i+1:] {
			other.mu.Lock()
			untouched += crowdEach - len(other.ended)
			other.mu.Unlock()
		}
		if _, err := c.admin.Delete(ctx, manifest.Lock, name); err != nil {
			return nil, err
		}
	}
	want := crowdEach * crowdUsers * (crowdUsers - 1) / 2
	slices.Sort(took)
	if err := c.fill(ctx, c.users); err != nil {
		return nil, err
	}
	all, err := c.cutAll(ctx)
	return []row{
		{"1,000 live SSH sessions: a lock on a user cuts their 50, from the call to what each client sees, p99 (p50)",
			fmt.Sprintf("%s (%s)", ms(took[len(took)*99/100]), ms(took[len(took)/2])), "", "", "≤ 1 s, target 200 ms"},
		{"the others' sessions that live on", fmt.Sprintf("%d of %d", untouched, want), "", "", "all"},
		{"the cluster's mode is raised: all 1,000 are cut, the last after", ms(all), "", "", "≤ 2 s"},
		{"1,000 sessions begun (handshake, admission, command), 20 at once", filled.Round(100 * time.Millisecond).String(), "", "", ""},
	}, err
}

func (c *crowd) cutAll(ctx context.Context) (time.Duration, error) {
	res, err := c.admin.Get(ctx, manifest.Cap, manifest.CapName)
	if err != nil {
		return 0, err
	}
	set := *res.Spec.(*cluster.Settings)
	required := set
	required.DeviceTrust.Mode = device.ModeRequired
	began := time.Now()
	if _, err := c.admin.Write(ctx, []*manifest.Resource{manifest.New(&required, 0)}, true); err != nil {
		return 0, err
	}
	var last time.Duration
	for _, p := range c.users {
		p.wait.Wait()
		for _, at := range p.ended {
			last = max(last, at.Sub(began))
		}
	}
	_, err = c.admin.Write(ctx, []*manifest.Resource{manifest.New(&set, 0)}, true)
	return last, err
}

func (w *world) crowd(ctx context.Context) (*crowd, error) {
	c := &crowd{admin: client.Local(filepath.Join(w.dir, "data", "admin.sock"))}
	raw, err := os.ReadFile(filepath.Join(w.dir, "data.out"))
	if err != nil {
		return nil, err
	}
	pin := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(string(raw))
	proxy := regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(string(raw))
	authority, err := contact.Proxy(ctx, proxy[1], []string{pin[1]}, false)
	if err != nil {
		return nil, err
	}
	c.address = client.Address{Addr: proxy[1], Cluster: authority.Subject.CommonName, Authority: authority}
	anon := c.address.Call(nil)
	defer anon.Close()
	for i := range crowdUsers {
		p := &person{name: fmt.Sprint("crowd-", i)}
		a := &identity.Account{Name: p.name, Kind: identity.Human, Roles: []string{"access"}, Traits: map[string][]string{"logins": {"root"}}}
		if _, err := c.admin.AddUser(ctx, a, strings.TrimSpace(password)); err != nil {
			return nil, err
		}
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		if p.login, err = c.address.Login(ctx, anon, client.LoginRequest{User: p.name, Key: key.Public()}, answers{}); err != nil {
			return nil, err
		}
		s, err := ssh.NewSignerFromSigner(key)
		if err != nil {
			return nil, err
		}
		if p.signer, err = ssh.NewCertSigner(p.login.SSH, s); err != nil {
			return nil, err
		}
		c.users = append(c.users, p)
	}
	return c, nil
}

// fill gives every user their sessions, twenty beginning at once.
func (c *crowd) fill(ctx context.Context, users []*person) error {
	work, errs := make(chan *person), make(chan error, 20)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for p := range work {
				if err := c.begin(ctx, p); err != nil {
					select {
					case errs <- err:
					default:
					}
				}
			}
		})
	}
	for _, p := range users {
		p.ended = nil
		for range crowdEach {
			work <- p
		}
	}
	close(work)
	wg.Wait()
	close(errs)
	return <-errs
}

// begin begins a session and returns when its command runs.
func (c *crowd) begin(ctx context.Context, p *person) error {
	conn, err := c.address.Stream(ctx, tunnel.Dial{Target: "web", Door: tunnel.DoorSSH, Ticket: p.login.DialTicket})
	if err != nil {
		return err
	}
	s, err := session.Dial(ctx, conn, session.Config{Login: "root", Signer: p.signer, HostAuthorities: p.login.HostAuthorities, Target: "web", Now: time.Now})
	if err != nil {
		return err
	}
	up := make(chan struct{})
	p.wait.Go(func() {
		_ = s.Run(ctx, session.Job{Command: "echo; exec sleep 3600", In: strings.NewReader(""), Out: &first{up: up}, Err: io.Discard})
		at := time.Now()
		p.mu.Lock()
		p.ended = append(p.ended, at)
		p.mu.Unlock()
		s.Close()
	})
	select {
	case <-up:
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("a session did not begin")
	}
}

// first tells that something was written.
type first struct {
	once sync.Once
	up   chan struct{}
}

func (f *first) Write(b []byte) (int, error) {
	f.once.Do(func() { close(f.up) })
	return len(b), nil
}

// silent records nothing.
type silent struct{}

func (silent) Write(context.Context, event.Event) error { return nil }

// admission measures the gate itself, without the disk: 2,000 locks and 500 roles.
func (w *world) admission(context.Context) ([]row, error) {
	mirror := snapshot.NewMirror(func() time.Duration { return 0 })
	all := label.Selector{"*": {"*"}}
	set := cluster.Default()
	c := snapshot.Change{Complete: true, Revision: 1, Put: []*manifest.Resource{manifest.New(&set, 0)}}
	u := &identity.User{Name: "alice", Cluster: "c", Kind: identity.Human, KeyPolicy: identity.KeyAnywhere, Validity: identity.Validity{IssuedAt: time.Now(), Expires: time.Now().Add(time.Hour)}}
	for i := range 500 {
		name := fmt.Sprint("role-", i)
		c.Put = append(c.Put, manifest.New(&role.Role{Name: name, Allow: role.Conditions{Logins: []string{"root"}, NodeLabels: all}}, 0))
		if i < 20 {
			u.Roles = append(u.Roles, name)
		}
	}
	for i := range 2000 {
		t := lock.Target{User: fmt.Sprint("user-", i)}
		if i%4 == 0 {
			t = lock.Target{Role: fmt.Sprint("other-", i)}
		}
		c.Put = append(c.Put, manifest.New(&lock.Lock{Name: fmt.Sprint("l", i), Target: t}, 0))
	}
	mirror.Apply(c)
	mirror.Confirm(0)
	g := gate.New(mirror, silent{}, identity.Host{ID: "n1"}, time.Now)
	ctx := context.Background()
	var failed error
	r := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			s, err := g.Admit(ctx, gate.Request{Identity: u, Target: target.Target{Kind: target.Node, ID: "n1", Name: "web"}, Action: target.Action{Login: "root"},
				Start: event.Event{Kind: event.SessionStart}})
			if err != nil {
				failed = err
				return
			}
			s.End(nil)
		}
	})
	return []row{{"gate: a session admitted and ended, 20 roles of 500, 2,000 locks, without the disk", fmt.Sprintf("%.1f µs", float64(r.NsPerOp())/1000), "", "", "≤ 50 µs"}}, failed
}

const agents = 1000

// heartbeats follows the feed of an auth server of its own as a thousand agents, and reads what it costs there.
func (w *world) heartbeats(ctx context.Context) ([]row, error) {
	out, cmd, err := w.server("agents", "agents")
	if err != nil {
		return nil, err
	}
	listen := regexp.MustCompile(`auth +([0-9.:]+), admin`).FindStringSubmatch(out)
	proxy := regexp.MustCompile(`people type ([^)]+)\)`).FindStringSubmatch(out)
	pin := regexp.MustCompile(`CA pin +(\S+)`).FindStringSubmatch(out)
	authority, err := contact.Proxy(ctx, proxy[1], []string{pin[1]}, false)
	if err != nil {
		return nil, err
	}
	address := client.Address{Addr: proxy[1], Cluster: authority.Subject.CommonName, Authority: authority}
	admin := client.Local(filepath.Join(w.dir, "agents", "admin.sock"))
	defer admin.Close()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	mirrors := make([]*snapshot.Mirror, agents)
	for i := range mirrors {
		cert, err := join(ctx, admin, address)
		if err != nil {
			return nil, err
		}
		mirrors[i] = snapshot.NewMirror(func() time.Duration { return time.Since(began) })
		calls := address.CallOver(func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", listen[1])
		}, func() *tls.Certificate { return cert })
		running.Go(func() {
			defer calls.Close()
			for ctx.Err() == nil {
				_ = member.New(calls).Follow(ctx, member.Follower{Mirror: mirrors[i], Every: 5 * time.Minute, Served: func() *identity.Server { return &identity.Server{} }})
				time.Sleep(100 * time.Millisecond)
			}
		})
	}
	for _, m := range mirrors {
		for _, age := m.Current(); age == snapshot.Never; _, age = m.Current() {
			time.Sleep(10 * time.Millisecond)
		}
	}
	time.Sleep(5 * time.Second)
	before, err := processTime(cmd.Process.Pid)
	if err != nil {
		return nil, err
	}
	const measured = 30 * time.Second
	time.Sleep(measured)
	after, err := processTime(cmd.Process.Pid)
	oldest := time.Duration(0)
	for _, m := range mirrors {
		_, age := m.Current()
		oldest = max(oldest, age)
	}
	return []row{{"heartbeats of 1,000 agents, of one core at auth (its proxy and node included)",
		fmt.Sprintf("%.1f %% (oldest picture %.1f s)", 100*(after-before).Seconds()/measured.Seconds(), oldest.Seconds()), "", "", "≤ 5 %"}}, err
}

var began = time.Now()

func join(ctx context.Context, admin *client.Cluster, address client.Address) (*tls.Certificate, error) {
	token, err := admin.AddToken(ctx, []string{"node"}, "", 0)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	c := address.Call(nil)
	defer c.Close()
	got, err := member.New(c).Join(ctx, member.Request{Token: token.Token, Role: identity.RoleNode, TLSKey: key.Public(), SSHKey: public})
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(got.TLS)
	return &tls.Certificate{Certificate: [][]byte{got.TLS}, PrivateKey: key, Leaf: leaf}, err
}

// processTime is what a process has used, of user and system time, in clock ticks of 10 ms.
func processTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}
