// Package rig is what the bench's measurements stand on: processes of its own that are an agent or a relay, an agent's gate
// with picture and audit log, and what they cost.
package rig

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sallyport/sallyport/internal/audit/spool"
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/gate"
	"github.com/sallyport/sallyport/internal/gate/recorder"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/peer/authority"
	"github.com/sallyport/sallyport/internal/recording"
	tape "github.com/sallyport/sallyport/internal/recording/spool"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
)

// Row is a line of the table.
type Row struct{ What, Value, Beside, Ratio, Goal string }

// Line makes one.
func Line(what, value, beside, ratio, goal string) Row { return Row{what, value, beside, ratio, goal} }

// Rig stands for a test towards what runs for tests.
type Rig struct{ after []func() }

type failure struct{ error }

// Helper is of peer.TB.
func (*Rig) Helper() {}

// Fatal is of peer.TB.
func (*Rig) Fatal(args ...any) { panic(failure{errors.New(fmt.Sprint(args...))}) }

// Fatalf is of peer.Run.
func (*Rig) Fatalf(f string, a ...any) { panic(failure{fmt.Errorf(f, a...)}) }

// Skip is of peer.TB: a bench leaves nothing out.
func (*Rig) Skip(args ...any) { panic(failure{errors.New(fmt.Sprint(args...))}) }

// Cleanup is of peer.Run.
func (r *Rig) Cleanup(f func()) { r.after = append(r.after, f) }

// Check ends the measurement with an error.
func (r *Rig) Check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

// Measure runs f with a rig that is taken down after it.
func Measure(f func(*Rig) []Row) (rows []Row, err error) {
	r := &Rig{}
	defer func() {
		for _, f := range slices.Backward(r.after) {
			f()
		}
	}()
	defer func() {
		switch p := recover().(type) {
		case nil:
		case failure:
			err = p.error
		default:
			panic(p)
		}
	}()
	return f(r), nil
}

// Begin starts an agent or a relay in a process of its own, which env tells what it is, and gives its address and process.
func (r *Rig) Begin(env string, place any) (string, int) {
	self, err := os.Executable()
	r.Check(err)
	b, err := json.Marshal(place)
	r.Check(err)
	c := exec.Command(self)
	c.Env = append(os.Environ(), env+"="+string(b))
	return r.Start(c)
}

// Start starts a process that says its address in the first line that it prints, and ends it by its standard input, or else.
func (r *Rig) Start(c *exec.Cmd) (string, int) {
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	r.Check(err)
	out, err := c.StdoutPipe()
	r.Check(err)
	r.Check(c.Start())
	r.Cleanup(func() {
		in.Close()
		late := time.AfterFunc(2*time.Second, func() { _ = c.Process.Kill() })
		defer late.Stop()
		_ = c.Wait()
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		r.Fatal("an agent or relay did not start: ", err)
	}
	return strings.TrimSpace(addr), c.Process.Pid
}

// Listen is such a process: it says where it listens, hands out connections, and ends with its standard input.
func Listen(handle func(net.Conn)) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go handle(c)
	}
}

// Join carries bytes both ways and looks at none, until either end is over.
func Join(a, b net.Conn) {
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
		to.Close()
		from.Close()
	}
	both.Go(func() { one(a, b) })
	both.Go(func() { one(b, a) })
	both.Wait()
}

// Load reads the files that Files wrote.
func Load(dir string) (*tls.Config, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		return nil, err
	}
	pool, err := authority.Load(filepath.Join(dir, "ca.pem"))
	return &tls.Config{Certificates: []tls.Certificate{cert}, RootCAs: pool, ServerName: "localhost", SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}, err
}

// Files writes a certificate's files into a directory of its own.
func (r *Rig) Files(a *authority.Authority, c tls.Certificate) string {
	dir := r.Dir()
	r.Check(a.Files(dir, c))
	return dir
}

// Dir is a directory for as long as the rig stands.
func (r *Rig) Dir() string {
	dir, err := os.MkdirTemp("", "bench")
	r.Check(err)
	r.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Turns measures every way in turn, some times, and gives the medians.
func Turns(rounds int, ways []string, f func(way string) float64) map[string]float64 {
	all := map[string][]float64{}
	for range rounds {
		for _, w := range ways {
			all[w] = append(all[w], f(w))
		}
	}
	out := map[string]float64{}
	for w, v := range all {
		slices.Sort(v)
		out[w] = v[len(v)/2]
	}
	return out
}

// CPU is the time that a process has had; 0 of none.
func CPU(pid int) time.Duration {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// RSS is what of memory a process holds, in bytes; 0 of none.
func RSS(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, _ := strconv.Atoi(f[1])
	return pages * os.Getpagesize()
}

const host = "6f0f4a8e-6c2c-4b8c-9d51-5f1f7f9d2c11"

// Agent is what an agent of a part has: a gate with picture and audit log, what records sessions, and alice.
type Agent struct {
	Gate     *gate.Gate
	Recorder *recorder.Recorder
	User     *identity.User
}

// NewAgent makes an agent whose files are in dir; the one role is alice's.
func NewAgent(ctx context.Context, dir string, part identity.HostRole, is role.Role) (*Agent, error) {
	key, err := recording.NewIdentity(nil)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	is.Name = "access"
	mirror := snapshot.NewMirror(func() time.Duration { return time.Since(began) })
	mirror.Apply(snapshot.Change{Revision: 1, Complete: true, Put: []*manifest.Resource{
		manifest.New(&cluster.Settings{DeviceTrust: cluster.DeviceTrust{Mode: device.ModeOff}}, 0), manifest.New(&is, 0)}, Authorities: &snapshot.Authorities{Recording: key.Recipient()}})
	mirror.Confirm(mirror.Now())
	log, err := spool.Open(spool.Config{Dir: dir, Writer: host, Cluster: "example.com", Now: time.Now, Max: 1 << 40})
	if err != nil {
		return nil, err
	}
	tapes, err := tape.Open(tape.Config{Dir: filepath.Join(dir, "recordings"), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	go func() {
		_ = tapes.Run(ctx, func(_ context.Context, p recording.Piece) (int64, error) { return p.Offset + int64(len(p.Data)), nil })
	}()
	go func() { // auth takes what is durable, as a cluster's would
		_ = log.Run(ctx, func(_ context.Context, entries []event.Entry) (uint64, error) {
			return entries[len(entries)-1].Seq, nil
		})
	}()
	go func() {
		for ; ; time.Sleep(time.Second) {
			mirror.Confirm(mirror.Now())
		}
	}()
	self := identity.Host{ID: host, Role: part, Name: "agent", Cluster: "example.com"}
	g := gate.New(mirror, log, self, time.Now)
	go g.Run(ctx)
	return &Agent{g, &recorder.Recorder{Spool: tapes, Pictures: mirror, Host: self, Now: time.Now}, &identity.User{Name: "alice", Cluster: "example.com", Kind: identity.Human, Roles: []string{"access"}, KeyPolicy: identity.KeyAnywhere,
		Validity: identity.Validity{IssuedAt: began, Expires: began.Add(24 * time.Hour)}}}, nil
}
