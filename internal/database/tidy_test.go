package database

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/target"
)

// server stands for what a Maker would ask: it is swept, is down, or never answers.
type server struct {
	Maker
	mu    sync.Mutex
	asked map[string]int   // guarded by mu
	down  map[string]error // guarded by mu; errHangs: it never answers
}

var errHangs = errors.New("hangs")

func (s *server) Left(ctx context.Context, v *Visit) ([]string, error) {
	s.mu.Lock()
	s.asked[v.Database.Name]++
	down := s.down[v.Database.Name]
	s.mu.Unlock()
	if down == errHangs {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return nil, down
}

func (s *server) set(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down[name] = err
}

func (s *server) times(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

// TestTidy: a database is swept when it is there and every ten minutes; one that is down for a day is two lines in the log, and those
// that never answer hold up nobody for long.
func TestTidy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := &server{asked: map[string]int{}, down: map[string]error{"a": fault.New(fault.Unavailable, "down").WithCause("it is painted"), "b": errHangs, "c": errHangs, "d": errHangs}}
		var mu sync.Mutex
		list, changed := []string{"b", "c", "d", "a", "none"}, make(chan struct{})
		databases := func() ([]*target.DatabaseServer, <-chan struct{}) {
			mu.Lock()
			defer mu.Unlock()
			var out []*target.DatabaseServer
			for _, name := range list {
				db := &target.DatabaseServer{Name: name, Protocol: target.PostgreSQL, AdminUser: "maker"}
				if name == "none" {
					db.AdminUser = ""
				}
				out = append(out, db)
			}
			return out, changed
		}
		ctx, cancel := context.WithCancel(t.Context())
		over := make(chan struct{})
		go func() {
			defer close(over)
			New(Config{}).Tidy(ctx, Tidy{Makers: map[target.Protocol]Maker{target.PostgreSQL: s}, Databases: databases, Log: slog.New(slog.NewTextHandler(&log, nil))})
		}()
		synctest.Wait()
		if s.times("a") != 1 || s.times("none") != 0 {
			t.Errorf("%v: not all are asked at once", s.asked)
		}
		time.Sleep(tidyTime + time.Second)
		mu.Lock()
		list, changed = append(list, "new"), func() chan struct{} { close(changed); return make(chan struct{}) }()
		mu.Unlock()
		synctest.Wait()
		if s.times("new") != 1 || s.times("a") != 1 {
			t.Errorf("%v: one that comes later is asked when it comes, and the others in their time", s.asked)
		}
		time.Sleep(24 * time.Hour)
		s.set("a", nil)
		time.Sleep(2*tidyEvery + time.Second)
		cancel()
		<-over
		if n := s.times("a"); n < 140 || n > 150 || s.times("none") != 0 {
			t.Errorf("%v", s.asked)
		}
		if n := strings.Count(log.String(), "db=a"); n != 2 || !strings.Contains(log.String(), "known again") || !strings.Contains(log.String(), "it is painted") || strings.Count(log.String(), "db=b") != 1 {
			t.Errorf("%d lines of one that was down for a day:\n%s", n, log.String())
		}
	})
}

// TestSweepLeavesTheLiving: whoever has sessions at this agent is not disabled, whatever the server shows of them.
func TestSweepLeavesTheLiving(t *testing.T) {
	d := New(Config{})
	k := key("orders", "alice")
	u := d.made.hold(k)
	settled, err := u.enter(t.Context(), func() (func(), error) { return func() {}, nil }, "")
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	disable := func() error { asked++; return nil }
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if done, err := d.made.unused(short, k, disable); done || err == nil {
		t.Error("one that is being let in", done, err)
	}
	settled()
	if done, err := d.made.unused(t.Context(), k, disable); done || err != nil || asked != 0 {
		t.Error("one that lives", done, err)
	}
	if err := u.leave(t.Context(), disable); err != nil || asked != 1 {
		t.Error(err, asked)
	}
	d.made.release(k)
	if done, err := d.made.unused(t.Context(), k, disable); !done || err != nil || len(d.made.users) != 0 {
		t.Error(done, err, d.made.users)
	}
}
