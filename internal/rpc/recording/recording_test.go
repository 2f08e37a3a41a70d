package recording

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/identity"
)

const path1 = "/sallyport/v1/recordings/5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01?offset=0"

// put sends a piece, and gives the reason of what it is answered.
func put(mux http.Handler, body io.Reader) string {
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodPut, path1, body))
	var m pb.Fault
	if w.Code != http.StatusConflict || proto.Unmarshal(w.Body.Bytes(), &m) != nil {
		return ""
	}
	return m.Reason
}

// TestA75_PiecesAtOnce: an agent that begins any number of pieces and does not end them has memory for a few, and another
// agent is served meanwhile.
func TestA75_PiecesAtOnce(t *testing.T) {
	var mu sync.Mutex
	host := "a"
	h := &Handler{Use: &archive.Service{}, Log: slog.New(slog.DiscardHandler), Admit: func(context.Context, string) error { return nil },
		Caller: func(context.Context) identity.Caller {
			mu.Lock()
			defer mu.Unlock()
			return identity.Caller{Host: &identity.Host{ID: host}}
		}}
	mux := http.NewServeMux()
	h.Serve(mux)
	var slow sync.WaitGroup
	var ends []*io.PipeWriter
	for range maxTaken {
		r, w := io.Pipe()
		ends = append(ends, w)
		slow.Go(func() { put(mux, r) })
		_, _ = w.Write([]byte("x")) // it is being read
	}
	if got := put(mux, http.NoBody); got != "busy" {
		t.Errorf("one more is answered %q", got)
	}
	mu.Lock()
	host = "b"
	mu.Unlock()
	if got := put(mux, http.NoBody); got != "no_recordings" {
		t.Errorf("another agent's is answered %q", got)
	}
	for _, w := range ends {
		w.Close()
	}
	slow.Wait()
	mu.Lock()
	host = "a"
	mu.Unlock()
	if got := put(mux, http.NoBody); got != "no_recordings" || len(h.taking) != 0 {
		t.Errorf("afterwards it is answered %q, %v", got, h.taking)
	}
}
