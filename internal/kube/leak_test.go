package kube

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails where a test leaves a goroutine of the door's behind: each stream, watch and request has an owner that waits
// for it. What the tests' pod and the SPDY library of their clients leave is theirs: the door itself frames alone.
func TestMain(m *testing.M) {
	var theirs []goleak.Option
	for _, f := range []string{"(*Connection).Serve.func1", "(*Connection).Serve.func2", "(*Connection).shutdown", "(*Connection).frameHandler", "(*idleAwareFramer).monitor", "(*Connection).Serve", "(*Stream).waitWriteReply"} {
		theirs = append(theirs, goleak.IgnoreAnyFunction("github.com/moby/spdystream."+f))
	}
	theirs = append(theirs, goleak.IgnoreAnyFunction("github.com/sallyport/sallyport/internal/kube.(*pod).ServeHTTP"))
	goleak.VerifyTestMain(m, theirs...)
}
