package member

import (
	"testing"
	"time"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/role"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/wire"
)

// TestPictureInParts takes a complete picture that comes in parts at its end, and not before.
func TestPictureInParts(t *testing.T) {
	f := Follower{Mirror: snapshot.NewMirror(func() time.Duration { return 0 })}
	part := func(name string, more bool) *pb.FollowResponse {
		r, err := wire.Resource(manifest.New(&role.Role{Name: name}, 0))
		if err != nil {
			t.Fatal(err)
		}
		m := &pb.FollowResponse{Run: 3, Revision: 7, Complete: true, More: more, Put: []*pb.Resource{r}}
		if name == "a" {
			m.Authorities = &pb.Authorities{}
		}
		return m
	}
	var pending snapshot.Change
	for _, name := range []string{"a", "b"} {
		if err := f.apply(part(name, true), &pending); err != nil {
			t.Fatal(err)
		}
		if p, _ := f.Mirror.Current(); len(p.Roles) != 0 {
			t.Fatalf("half a picture was taken: %v", p.Roles)
		}
	}
	if err := f.apply(part("c", false), &pending); err != nil {
		t.Fatal(err)
	}
	if p, _ := f.Mirror.Current(); len(p.Roles) != 3 || p.Revision != 7 {
		t.Fatalf("%v", p.Roles)
	}
	if run, after := f.Mirror.Resume(); run != 3 || after != 7 {
		t.Fatal(run, after)
	}
	// The next complete one begins anew.
	if err := f.apply(part("d", false), &pending); err != nil {
		t.Fatal(err)
	}
	if p, _ := f.Mirror.Current(); len(p.Roles) != 1 {
		t.Fatalf("%v", p.Roles)
	}
}
