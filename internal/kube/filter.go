package kube

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/kube/sieve"
)

// maxAhead bounds what is held of a list that is looked through before the first of it goes out, so that what cannot be read
// is refused whole.
const maxAhead = 64 << 10

// filter takes out of a list or a watch what is not granted. What it cannot read it withholds.
func (x *exchange) filter(res *http.Response) error {
	if res.StatusCode/100 != 2 && res.StatusCode != http.StatusGone || !x.sifted && !x.session.Filters() {
		return nil
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || res.Header.Get("Content-Encoding") != "" {
		return fault.New(fault.Denied, "the cluster answered in a form that cannot be looked through").WithReason("unfiltered").
			WithCause("content type %q", fault.Plain(res.Header.Get("Content-Type")))
	}
	if x.request.Verb == "watch" && res.StatusCode == http.StatusOK {
		res.Body, res.ContentLength = x.sieve().Watch(res.Body), -1
		res.Header.Del("Content-Length")
		return nil
	}
	list := x.sieve().Body(res.Body)
	ahead := make([]byte, maxAhead)
	n, err := io.ReadFull(list, ahead)
	switch {
	case err == nil:
		res.Body, res.ContentLength = readCloser{io.MultiReader(bytes.NewReader(ahead), list), list}, -1
		res.Header.Del("Content-Length")
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		list.Close()
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(ahead[:n])), int64(n)
		res.Header.Set("Content-Length", strconv.Itoa(n))
		return nil
	}
	list.Close()
	return fault.New(fault.Denied, "the list could not be looked through").WithReason("unfiltered").Wrapping(err)
}

// readCloser reads from one and closes another.
type readCloser struct {
	io.Reader
	io.Closer
}

func (x *exchange) sieve() sieve.Sieve {
	within := x.request.Object.Namespace
	return sieve.Sieve{Pages: x.door.pages, Shows: func(namespace, name string) bool {
		// What is in a namespace's list is in the namespace, whether or not it says so: it is not cluster-wide.
		return x.session.Shows(cmp.Or(namespace, within), name)
	}}
}

// page is the query to send on in the place of the client's, with the way to the next page as the server gave it; nil where
// the client's is to stay. A list that is looked through has no pages of the client's own size: by small ones, empty where
// something is withheld, what is withheld could be counted and guessed.
func (x *exchange) page(r *http.Request) (url.Values, error) {
	q := r.URL.Query()
	at, limits := q["continue"], q.Has("limit")
	if !x.sifted || !limits && len(at) == 0 {
		return nil, nil
	}
	q.Del("limit")
	if len(at) == 0 || len(at) == 1 && at[0] == "" {
		return q, nil
	}
	if len(at) != 1 {
		return nil, errors.New("continue is there more than once")
	}
	token, err := x.door.pages.Continue(at[0])
	q.Set("continue", token)
	return q, err
}
