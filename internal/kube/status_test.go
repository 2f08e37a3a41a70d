package kube

import (
	"io"
	"net/http"
	"testing"

	"github.com/sallyport/sallyport/internal/event"
)

// TestA52Statuses: a server whose answer has a status that is none is no way to stop the answer, or its record.
func TestA52Statuses(t *testing.T) {
	for _, status := range []string{"000", "099", "999"} {
		p := newPlace(t, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 "+status+" Odd\r\nContent-Type: text/plain\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		})
		if res, _ := p.asks(get("/api/v1/namespaces/dev/pods/web")); res.StatusCode < 400 {
			t.Errorf("%s: %d", status, res.StatusCode)
		}
		if res, _ := p.asks(get("/api/v1/namespaces/dev/pods/web/exec?command=id", opens...)); res.StatusCode < 400 {
			t.Errorf("%s: exec %d", status, res.StatusCode)
		}
		if n := len(p.log.kinds(event.KubeRequest)); n != 2 {
			t.Errorf("%s: %d are on record", status, n)
		}
	}
}
