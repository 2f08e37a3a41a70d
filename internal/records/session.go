package records

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/live"
	"github.com/sallyport/sallyport/internal/store"
)

const (
	sessionPrefix = "session/"
	sessionsPage  = 200 // sessions that are read at once
)

func sessionsOf(host string) string { return sessionPrefix + url.PathEscape(host) + "/" }

// SessionKey is where a live session lies.
func SessionKey(host, id string) string { return sessionsOf(host) + id }

// PutSession is the operation that writes a live session down, until its agent should have told of it again.
func PutSession(s live.Session, until time.Time) (store.Op, error) {
	op, err := PutValue(SessionKey(s.Host, s.ID), s)
	return op.Until(until), err
}

// SessionIDs lists the ids of the sessions of a host.
func (r *Records) SessionIDs(ctx context.Context, host string) ([]string, error) {
	var out []string
	rng := store.Range{Prefix: sessionsOf(host), Limit: store.MaxPage}
	for {
		page, err := r.store.List(ctx, rng)
		if err != nil {
			return nil, err
		}
		for _, rec := range page.Records {
			out = append(out, strings.TrimPrefix(rec.Key, rng.Prefix))
			rng.After = rec.Key
		}
		if !page.More {
			return out, nil
		}
	}
}

// Sessions reads a page of the live sessions of all hosts, behind a key that a page before gave; next is empty on the
// last. A page ends once it has some number of bytes.
func (r *Records) Sessions(ctx context.Context, after string, bytes int) (list []live.Session, next string, err error) {
	size := 0
	page, err := r.store.List(ctx, store.Range{Prefix: sessionPrefix, After: after, Limit: sessionsPage})
	if err != nil {
		return nil, "", err
	}
	for _, rec := range page.Records {
		var s live.Session
		if err := json.Unmarshal(rec.Value, &s); err != nil {
			return nil, "", fmt.Errorf("stored %s: %w", rec.Key, err)
		}
		list = append(list, s)
		next = rec.Key
		if size += len(rec.Value); size >= bytes {
			return list, next, nil
		}
	}
	if !page.More {
		next = ""
	}
	return list, next, nil
}
