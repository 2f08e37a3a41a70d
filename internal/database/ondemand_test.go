package database

import (
	"context"
	"errors"
	"testing"

	"github.com/sallyport/sallyport/internal/fault"
)

func TestMadeUserIsShared(t *testing.T) {
	m := made{users: map[string]*madeUser{}}
	var calls []string
	say := func(what string, err error) func() error {
		return func() error { calls = append(calls, what); return err }
	}
	make := func(what string, err error) func() (func(), error) {
		return func() (func(), error) { return func() { calls = append(calls, "settled") }, say(what, err)() }
	}
	ctx := t.Context()
	u := m.hold("a")
	if _, err := u.enter(ctx, make("enable", errors.New("no")), "r"); err == nil || u.live != 0 {
		t.Fatal("a user who was not made is live")
	}
	settled, err := u.enter(ctx, make("enable", nil), "r")
	if err != nil {
		t.Fatal(err)
	}
	early, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := u.enter(early, make("again", nil), "r"); !errors.Is(err, context.Canceled) {
		t.Fatal("a second session does not wait for the first to connect")
	}
	settled()
	second := m.hold("a")
	if second != u {
		t.Fatal("two of one user")
	}
	if _, err := second.enter(ctx, make("again", nil), "r,s"); !fault.Because(err, "db_roles_in_use") {
		t.Fatal(err)
	}
	settled, err = second.enter(ctx, make("again", nil), "r")
	if err != nil {
		t.Fatal(err)
	}
	settled()
	if err := u.leave(ctx, say("early", nil)); err != nil {
		t.Fatal(err)
	}
	if err := u.leave(ctx, say("disable", nil)); err != nil {
		t.Fatal(err)
	}
	m.release("a")
	m.release("a")
	if len(m.users) != 0 || len(calls) != 6 || calls[5] != "disable" {
		t.Fatalf("%v %v", m.users, calls)
	}
	held := m.hold("b")
	held.turn <- struct{}{}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := held.enter(over, make("x", nil), ""); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
