// Package recording answers RecordingService, and carries recordings' bytes in and out beside it.
package recording

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/internal/archive"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/wire"
)

// Handler is a sallyportv1connect.RecordingServiceHandler. Caller tells who makes a call, Admit asks for a call beside the
// service, Still whether who reads may go on.
type Handler struct {
	Use    *archive.Service
	Caller func(context.Context) identity.Caller
	Admit  func(ctx context.Context, name string) error
	Still  func(context.Context) error
	Log    *slog.Logger

	mu     sync.Mutex
	taking map[string]int // guarded by mu: pieces that an agent sends now, by its UUID
}

// maxTaken is how many pieces of one agent's are held at once. It sends one after the other.
const maxTaken = 4

// enter makes room for a piece of an agent's; leave gives it back.
func (h *Handler) enter(host string) (leave func(), err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.taking[host] >= maxTaken {
		return nil, fault.New(fault.Exhausted, "too many pieces of recordings at once").WithReason("busy")
	}
	if h.taking == nil {
		h.taking = map[string]int{}
	}
	h.taking[host]++
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.taking[host]--; h.taking[host] == 0 {
			delete(h.taking, host)
		}
	}, nil
}

const (
	take = "TakePiece"
	open = "OpenRecording"
	path = "/sallyport/v1/recordings/{name}"
)

// Paths are the calls beside the service, as Admit gets them.
func Paths() []string { return []string{take, open} }

// Serve answers the paths of recordings' bytes (docs/protocol/recording.md): they are too many for messages.
func (h *Handler) Serve(mux *http.ServeMux) {
	mux.HandleFunc("PUT "+path, h.guarded(take, h.take))
	mux.HandleFunc("GET "+path, h.guarded(open, h.open))
}

// guarded asks before it answers; what fails answers with a Fault as protobuf.
func (h *Handler) guarded(name string, answer func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := h.Admit(r.Context(), name)
		if err == nil {
			err = answer(w, r)
		}
		if err == nil {
			return
		}
		f := fault.Of(err)
		if f.Kind == fault.Internal || f.Err != nil {
			h.Log.Warn("call failed", "method", name, "kind", f.Kind.String(), "err", err)
		}
		raw, err := proto.Marshal(wire.Fault(f))
		if err != nil {
			raw = nil
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
		w.WriteHeader(http.StatusConflict)
		_, _ = w.Write(raw)
	}
}

// take takes a piece from an agent.
func (h *Handler) take(w http.ResponseWriter, r *http.Request) error {
	host := h.Caller(r.Context()).Host
	if host == nil {
		return fault.New(fault.Unauthenticated, "only an agent hands in recordings")
	}
	offset, err := strconv.ParseInt(r.URL.Query().Get("offset"), 10, 64)
	if err != nil || offset < 0 {
		return fault.New(fault.Invalid, "a piece without its place")
	}
	leave, err := h.enter(host.ID)
	if err != nil {
		return err
	}
	defer leave()
	data, err := io.ReadAll(io.LimitReader(r.Body, archive.MaxPiece+1))
	if err != nil {
		return fault.New(fault.Unavailable, "the piece did not come whole").Wrapping(err)
	}
	have, err := h.Use.Take(r.Context(), *host, recording.Piece{Name: r.PathValue("name"), Offset: offset, Data: data, Last: r.URL.Query().Get("last") == "true"})
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(map[string]int64{"have": have})
}

// How a recording goes out.
const (
	stillEvery = 5 * time.Second
	writeTime  = time.Minute
	// Damage is the trailer that says that what was sent is not all there was to send.
	Damage = "Sallyport-Damage"
)

// open sends a recording's frames to who may see it.
func (h *Handler) open(w http.ResponseWriter, r *http.Request) error {
	p, err := h.Use.Open(r.Context(), h.Caller(r.Context()), r.PathValue("name"))
	if err != nil {
		return err
	}
	defer p.Close()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Trailer", Damage)
	out, control := bufio.NewWriterSize(w, recording.MaxData), http.NewResponseController(w)
	var frame []byte
	for asked := time.Now(); ; {
		f, err := p.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out.Flush()
		}
		if err == nil && time.Since(asked) > stillEvery {
			asked, err = time.Now(), h.Still(r.Context())
		}
		if err != nil {
			h.Log.Warn("a recording ends before it is over", "name", p.Entry.Name, "err", err)
			w.Header().Set(Damage, fault.Of(err).Text)
			if errors.Is(err, recording.ErrDamaged) {
				w.Header().Set(Damage, "the recording was changed or is damaged from here on")
			}
			return out.Flush()
		}
		frame = recording.AppendFrame(frame[:0], f)
		if err := control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil {
			return err
		}
		if _, err := out.Write(frame); err != nil {
			return nil // nobody reads any more
		}
	}
}

// ListRecordings is of the service.
func (h *Handler) ListRecordings(ctx context.Context, r *connect.Request[pb.ListRecordingsRequest]) (*connect.Response[pb.ListRecordingsResponse], error) {
	list, next, err := h.Use.List(ctx, h.Caller(ctx), recording.Query{Session: r.Msg.Session, User: r.Msg.User, From: at(r.Msg.From), To: at(r.Msg.To)}, r.Msg.After)
	if err != nil {
		return nil, err
	}
	out := &pb.ListRecordingsResponse{Next: next}
	for _, e := range list {
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		out.Recordings = append(out.Recordings, raw)
	}
	return connect.NewResponse(out), nil
}

func at(t *timestamppb.Timestamp) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.AsTime()
}
