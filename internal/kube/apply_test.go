package kube

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/role"
)

// TestA51Apply: who may patch and not create makes nothing by a server-side apply.
func TestA51Apply(t *testing.T) {
	reached := 0
	answer := func(w http.ResponseWriter, _ *http.Request) {
		reached++
		fmt.Fprint(w, "{}")
	}
	patches := newPlace(t, answer, role.KubeResource{Kind: "pods", Namespace: "dev", Name: "web*", Verbs: []string{"patch"}})
	both := newPlace(t, answer, role.KubeResource{Kind: "pods", Namespace: "dev", Name: "web*", Verbs: []string{"patch", "create"}})
	patch := func(path, kind string) string {
		return "PATCH /api/v1/namespaces/dev/pods/" + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: " + kind + "\r\nContent-Length: 2\r\n\r\n{}"
	}
	for _, c := range []struct {
		p          *place
		path, kind string
		want       int
	}{
		{patches, "web", "application/apply-patch+yaml", 403},
		{patches, "web/?fieldManager=x", "application/apply-patch+cbor", 403},
		{patches, "web", "Application/Apply-Patch+YAML; charset=x", 403},
		{patches, "web", "application/json\r\nContent-Type: application/apply-patch+yaml", 403},
		{patches, "web", "application/merge-patch+json", 200},
		{patches, "web/status", "application/apply-patch+yaml", 200},
		{both, "web", "application/apply-patch+yaml", 200},
		{both, "other", "application/apply-patch+yaml", 403},
	} {
		reached = 0
		res, body := c.p.asks(patch(c.path, c.kind))
		if res.StatusCode != c.want || (reached == 1) != (c.want == 200) {
			t.Errorf("%s %q: %d %s", c.path, c.kind, res.StatusCode, body)
		}
		if c.p == patches && c.want == 403 && !strings.Contains(body, "server-side apply") {
			t.Errorf("%s", body)
		}
	}
}
