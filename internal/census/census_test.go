package census

import (
	"encoding/json"
	"testing"

	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/target"
)

// FuzzRead takes sessions as hosts tell them: what is taken is the host's own, and can be stored and told again.
func FuzzRead(f *testing.F) {
	good, err := json.Marshal(live.Session{ID: "4382d772-baf7-4a47-8037-5891444407c2", Host: "other", Protocol: "ssh",
		Identity: identity.User{Name: "alice"}, Target: target.Target{Kind: target.Node, ID: "other", Name: "prod"}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"id":"../../role/access","identity":{"name":"alice"}}`))
	f.Add([]byte(`{"id":"4382d772-baf7-4a47-8037-5891444407c2","identity":{"name":"a,b"}}`))
	f.Add([]byte(`{"since":"9999999-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &Service{}
		l, err := s.read(identity.Host{ID: "own", Role: identity.RoleNode, Name: "web"}, raw)
		if err != nil {
			return
		}
		if l.Host != "own" || l.Target.ID != "own" || l.Target.Name != "web" || l.Target.Kind != target.Node || !live.ValidID(l.ID) {
			t.Fatalf("%+v", l)
		}
		if _, err := records.PutSession(l, l.Since); err != nil {
			t.Fatalf("taken, and cannot be stored: %v", err)
		}
	})
}
