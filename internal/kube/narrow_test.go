package kube

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/role"
)

// TestA54Narrower: a watch that showed everything does not go on so once its roles show less, though nobody is another user
// by it; one that they leave everything goes on.
func TestA54Narrower(t *testing.T) {
	more := make(chan string)
	p := newPlace(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for line := `{"type":"ADDED","object":{"metadata":{"name":"first","namespace":"dev"}}}`; ; {
			fmt.Fprintln(w, line)
			_ = http.NewResponseController(w).Flush()
			select {
			case line = <-more:
			case <-r.Context().Done():
				return
			}
		}
	}, role.KubeResource{Kind: "pods", Namespace: "*", Name: "*", Verbs: []string{"watch"}})
	c := p.dials()
	go func() { _, _ = io.WriteString(c, get("/api/v1/pods?watch=1")) }()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "first") {
		t.Fatalf("%q %v", line, err)
	}
	says := func(kind string, rules ...role.KubeResource) {
		p.apply(false, &role.Role{Name: "devs", Allow: role.Conditions{KubernetesLabels: label.Selector{"*": {"*"}}, KubernetesGroups: []string{"devs", "readers"},
			KubernetesResources: append(rules, role.KubeResource{Kind: kind, Namespace: "*", Name: "*", Verbs: []string{"*"}})}})
	}
	says("pods")
	more <- `{"type":"ADDED","object":{"metadata":{"name":"second","namespace":"prod"}}}`
	if line, err := lines.ReadString('\n'); err != nil || !strings.Contains(line, "second") {
		t.Fatalf("%q %v", line, err)
	}
	says("nodes", role.KubeResource{Kind: "pods", Namespace: "dev", Name: "*", Verbs: []string{"watch"}})
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	if line, err := lines.ReadString('\n'); !strings.Contains(line, `"ERROR"`) || !strings.Contains(line, "show less") {
		t.Errorf("%q %v", line, err)
	}
}
