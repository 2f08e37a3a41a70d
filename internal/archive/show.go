package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/store"
)

const (
	pageSize = 200
	maxLook  = 5000 // entries that one page looks at
)

// List is a page of what the caller may see, the newest first; next is empty on the last page.
func (s *Service) List(ctx context.Context, from identity.Caller, q recording.Query, after string) (list []recording.Entry, next string, err error) {
	rng := store.Range{Prefix: atPrefix, After: after, Limit: pageSize, Descending: true}
	if after == "" && !q.To.IsZero() {
		rng.After = fmt.Sprintf("%s%016x", atPrefix, q.To.UnixMicro())
	}
	for looked := 0; looked < maxLook && len(list) < pageSize; looked += pageSize {
		page, err := s.Store.List(ctx, rng)
		if err != nil {
			return nil, "", err
		}
		for _, rec := range page.Records {
			e, err := decode(rec)
			if err != nil {
				return nil, "", err
			}
			if !q.From.IsZero() && e.Time.Before(q.From) {
				return list, "", nil
			}
			if (q.User == "" || q.User == e.User) && strings.HasPrefix(e.Name, q.Session) && s.may(from, "list", e) == nil {
				list = append(list, e.Entry)
			}
			rng.After = rec.Key
		}
		if !page.More {
			return list, "", nil
		}
	}
	return list, rng.After, nil
}

// Playback is a recording that is being read. Close it.
type Playback struct {
	recording.Entry
	file *os.File
	*recording.Opener
}

// Close gives the file back.
func (p *Playback) Close() error { return p.file.Close() }

// Open opens a recording for the caller; that somebody looked is on record. One that is still being made gives what is there.
// A recording that is not the caller's to see is not there.
func (s *Service) Open(ctx context.Context, from identity.Caller, name string) (*Playback, error) {
	if err := s.off(); err != nil {
		return nil, err
	}
	missing := fault.New(fault.NotFound, "recording %q not found", name).WithReason("not_found").WithFix("tsh recordings ls")
	if !recording.ValidName(name) {
		return nil, missing
	}
	e, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	if e == nil {
		return nil, missing
	}
	ev := event.Event{Kind: event.RecordingAccess, User: from.Name(), Session: &event.Session{SessionID: recording.SessionOf(name), Recording: name, Addr: from.Addr.String()},
		Resource: &event.Resource{ResourceKind: Kind, ResourceName: name}}
	if from.User != nil {
		ev.Device = event.DeviceOf(from.User.Device)
	}
	refusal := s.may(from, "read", e)
	if refusal != nil {
		ev.Message, ev.Session.Reason = fault.Of(refusal).Text, fault.Of(refusal).Reason
	}
	ev.Success = refusal == nil
	if _, err := s.Audit.Record(ctx, ev); err != nil {
		return nil, err
	}
	if refusal != nil {
		return nil, missing
	}
	return s.play(e)
}

func (s *Service) play(e *entry) (*Playback, error) {
	f, err := os.Open(s.file(e.Name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "the file of recording %s is gone", e.Name).WithReason("recording_gone").WithFix("look in %s on the auth server, or in its backup", s.Dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open recording: %w", err)
	}
	o, err := recording.NewOpener(io.NewSectionReader(f, 0, e.Length), s.Key)
	if err != nil {
		f.Close()
		return nil, fault.New(fault.Internal, "recording %s cannot be opened", e.Name).WithReason("recording_damaged").Wrapping(err)
	}
	return &Playback{e.Entry, f, o}, nil
}
