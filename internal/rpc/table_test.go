package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/lock"
	rpcrecording "github.com/sallyport/sallyport/internal/rpc/recording"
)

// TestA70EveryMethodHasARule walks the services against the table, and the table against the services.
func TestA70EveryMethodHasARule(t *testing.T) {
	seen := map[string]bool{}
	file := pb.File_sallyport_v1_login_proto.Package()
	protoregistry.GlobalFiles.RangeFilesByPackage(file, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				name := string(s.Name()) + "/" + string(s.Methods().Get(j).Name())
				seen[name] = true
				rule, ok := table[name]
				if !ok {
					t.Errorf("%s has no rule", name)
				}
				if !rule.anyone && !rule.user && len(rule.hosts) == 0 && rule.verb == "" {
					t.Errorf("%s asks nothing of anybody", name)
				}
				if rule.kind != "" && rule.verb == "" {
					t.Errorf("%s names a kind and no verb", name)
				}
			}
		}
		return true
	})
	for _, name := range rpcrecording.Paths() { // plain HTTP beside the services
		seen["RecordingService/"+name] = true
	}
	for name := range table {
		if !seen[name] {
			t.Errorf("%s is in the table and in no service", name)
		}
	}
	// What anybody may call is listed here a second time, so that it does not grow by accident.
	open := map[string]bool{"LoginService/Hello": true, "LoginService/Login": true, "MembershipService/Join": true}
	for name, rule := range table {
		if rule.anyone != open[name] {
			t.Errorf("%s: open to anybody: %t", name, rule.anyone)
		}
	}
}

// TestReachable are the calls that device modes leave open: a lock and the end of the login still close them.
func TestReachable(t *testing.T) {
	now := time.Now()
	c := identity.Caller{User: &identity.User{Name: "alice", Validity: identity.Validity{IssuedAt: now.Add(-time.Hour), Expires: now.Add(time.Hour)}}}
	if err := reachable(lock.Set{}, c, now); err != nil {
		t.Fatal(err)
	}
	if err := reachable(lock.NewSet(lock.Lock{Name: "l", Target: lock.Target{User: "alice"}}), c, now); !fault.Because(err, "locked") {
		t.Fatal(err)
	}
	if err := reachable(lock.NewSet(lock.Lock{Name: "l", Target: lock.Target{User: "alice"}, IssuedBefore: now.Add(-2 * time.Hour)}), c, now); err != nil {
		t.Fatal(err)
	}
	if err := reachable(lock.Set{}, c, now.Add(time.Hour)); !fault.Because(err, "expired") {
		t.Fatal(err)
	}
}

// TestCallersLeave: a caller that went away, as an agent that stops, is no failure in the log; what failed for another reason is.
func TestCallersLeave(t *testing.T) {
	var log bytes.Buffer
	s := &Server{log: slog.New(slog.NewTextHandler(&log, nil))}
	gone, leave := context.WithCancel(t.Context())
	leave()
	for _, c := range []struct {
		ctx  context.Context
		err  error
		logs bool
	}{
		{gone, fmt.Errorf("follow: %w", context.Canceled), false},
		{gone, errors.New("disk full"), true},
		{t.Context(), context.Canceled, true},
		{t.Context(), fault.New(fault.Denied, "no"), false},
	} {
		log.Reset()
		if err := s.outward(c.ctx, "/sallyport.v1.FeedService/Follow", c.err); err == nil || (log.Len() > 0) != c.logs {
			t.Errorf("%v: %v, %q", c.err, err, log.String())
		}
	}
}
