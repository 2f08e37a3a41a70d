// Package recordings hands recordings to a cluster, lists them and reads them.
package recordings

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/wire"
)

const (
	sendTime  = time.Minute
	maxAnswer = 64 << 10
	damage    = "Sallyport-Damage"
)

// Recordings calls auth about recordings.
type Recordings struct {
	http connect.HTTPClient
	base string
	list sallyportv1connect.RecordingServiceClient
}

// New calls over c, which stays the caller's to close.
func New(c *client.Cluster) *Recordings {
	h, base, opts := c.Transport()
	return &Recordings{h, base, sallyportv1connect.NewRecordingServiceClient(h, base, opts...)}
}

func (r *Recordings) do(ctx context.Context, method, path string, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+"/sallyport/v1/recordings/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	res, err := r.http.Do(req)
	if err != nil {
		return nil, client.FromRPC(connect.NewError(connect.CodeUnavailable, err))
	}
	if res.StatusCode == http.StatusOK {
		return res, nil
	}
	defer res.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	var m pb.Fault
	if res.StatusCode == http.StatusConflict && proto.Unmarshal(raw, &m) == nil && m.Kind != "" {
		return nil, wire.FromFault(&m)
	}
	return nil, fault.New(fault.Unavailable, "the cluster did not answer").WithCause("HTTP status %s", res.Status)
}

// Send hands in a piece and returns how much of its recording auth then has.
func (r *Recordings) Send(ctx context.Context, p recording.Piece) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, sendTime)
	defer cancel()
	res, err := r.do(ctx, http.MethodPut, fmt.Sprintf("%s?offset=%d&last=%t", p.Name, p.Offset, p.Last), p.Data)
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	var answer struct {
		Have int64 `json:"have"`
	}
	return answer.Have, json.NewDecoder(io.LimitReader(res.Body, maxAnswer)).Decode(&answer)
}

// List is a page of recordings, the newest first, behind the page before; next is empty on the last.
func (r *Recordings) List(ctx context.Context, q recording.Query, after string) (list []recording.Entry, next string, err error) {
	req := &pb.ListRecordingsRequest{Session: q.Session, User: q.User, After: after}
	if !q.From.IsZero() {
		req.From = timestamppb.New(q.From)
	}
	if !q.To.IsZero() {
		req.To = timestamppb.New(q.To)
	}
	res, err := r.list.ListRecordings(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, "", err
	}
	list = make([]recording.Entry, len(res.Msg.Recordings))
	for i, raw := range res.Msg.Recordings {
		if err := json.Unmarshal(raw, &list[i]); err != nil {
			return nil, "", err
		}
	}
	return list, res.Msg.Next, nil
}

// Stream is a recording that is being read. Close it.
type Stream struct {
	res *http.Response
	in  *bufio.Reader
}

// Open reads a recording.
func (r *Recordings) Open(ctx context.Context, name string) (*Stream, error) {
	if !recording.ValidName(name) {
		return nil, fault.New(fault.Invalid, "%q is no recording's name", name).WithFix("tsh recordings ls")
	}
	res, err := r.do(ctx, http.MethodGet, name, nil)
	if err != nil {
		return nil, err
	}
	return &Stream{res, bufio.NewReaderSize(res.Body, recording.MaxData)}, nil
}

// Next gives the next frame, io.EOF at the end of what there is.
func (s *Stream) Next() (recording.Frame, error) {
	f, err := recording.ReadFrame(s.in)
	if err == io.EOF && s.res.Trailer.Get(damage) != "" {
		return f, fault.New(fault.Internal, "%s", fault.Plain(s.res.Trailer.Get(damage))).WithReason("recording_damaged")
	}
	return f, err
}

// Close gives the connection back.
func (s *Stream) Close() error { return s.res.Body.Close() }
