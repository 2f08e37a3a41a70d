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
	ctx := t.Context()
	u := m.hold("a")
	if err := u.enter(ctx, say("enable", errors.New("no")), "r"); err == nil || u.live != 0 {
		t.Fatal("a user who was not made is live")
	}
	if err := u.enter(ctx, say("enable", nil), "r"); err != nil {
		t.Fatal(err)
	}
	second := m.hold("a")
	if second != u {
		t.Fatal("two of one user")
	}
	if err := second.enter(ctx, say("again", nil), "r,s"); !fault.Because(err, "db_roles_in_use") {
		t.Fatal(err)
	}
	if err := second.enter(ctx, say("again", nil), "r"); err != nil {
		t.Fatal(err)
	}
	if err := u.leave(ctx, say("early", nil)); err != nil {
		t.Fatal(err)
	}
	if err := u.leave(ctx, say("disable", nil)); err != nil {
		t.Fatal(err)
	}
	m.release("a")
	m.release("a")
	if len(m.users) != 0 || len(calls) != 3 || calls[2] != "disable" {
		t.Fatalf("%v %v", m.users, calls)
	}
	held := m.hold("b")
	held.turn <- struct{}{}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if err := held.enter(over, say("x", nil), ""); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
