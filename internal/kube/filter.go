package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
)

// maxFiltered bounds a list that is looked through, in bytes.
const maxFiltered = 64 << 20

// filter takes out of a list or a watch what is not granted. What it cannot read it withholds.
func (x *exchange) filter(res *http.Response) error {
	if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusGone || !x.session.Filters() {
		return nil
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if err != nil || media != "application/json" || res.Header.Get("Content-Encoding") != "" {
		return fault.New(fault.Denied, "the cluster answered in a form that cannot be looked through").WithReason("unfiltered").
			WithCause("content type %q", fault.Plain(res.Header.Get("Content-Type")))
	}
	if x.request.Verb == "watch" && res.StatusCode == http.StatusOK {
		res.Body, res.ContentLength = x.filterWatch(res.Body), -1
		res.Header.Del("Content-Length")
		return nil
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, maxFiltered+1))
	res.Body.Close()
	if err != nil {
		return err
	}
	if len(raw) > maxFiltered {
		return fault.New(fault.Denied, "the list is too long to be looked through").WithReason("unfiltered").WithFix("ask for one namespace, or with --chunk-size=500")
	}
	out, err := x.filterList(raw)
	if err != nil {
		return fault.New(fault.Denied, "the list could not be looked through").WithReason("unfiltered").Wrapping(err)
	}
	res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(out)), int64(len(out))
	res.Header.Set("Content-Length", fmt.Sprint(len(out)))
	return nil
}

// named is what of an object says whose it is; a table's rows carry theirs in object.
type named struct {
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// shows asks access about one object.
func (x *exchange) shows(raw json.RawMessage) bool {
	var n named
	if json.Unmarshal(raw, &n) != nil || n.Metadata.Name == "" {
		return false
	}
	return x.session.Shows(n.Metadata.Namespace, n.Metadata.Name)
}

// filterList keeps the items, or a table's rows, that are granted. Everything else of the list stays as it was.
func (x *exchange) filterList(raw []byte) ([]byte, error) {
	var list map[string]json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, err
	}
	if err := x.door.pages.hide(list); err != nil {
		return nil, err
	}
	field := ""
	for _, f := range []string{"items", "rows"} {
		if _, has := list[f]; has {
			if field != "" {
				return nil, fmt.Errorf("a list with items and rows")
			}
			field = f
		}
	}
	var kind string
	_ = json.Unmarshal(list["kind"], &kind)
	if field == "" {
		if kind == "Table" || kind == "Status" || strings.HasSuffix(kind, "List") { // an empty one, or why there is none
			return json.Marshal(list)
		}
		return nil, fmt.Errorf("a %q is no list", kind)
	}
	var items []json.RawMessage
	if err := json.Unmarshal(list[field], &items); err != nil {
		return nil, err
	}
	kept := []json.RawMessage{}
	for _, item := range items {
		object := item
		if field == "rows" {
			var row struct {
				Object json.RawMessage `json:"object"`
			}
			if json.Unmarshal(item, &row) != nil {
				continue
			}
			object = row.Object
		}
		if x.shows(object) {
			kept = append(kept, item)
		}
	}
	var err error
	if list[field], err = json.Marshal(kept); err != nil {
		return nil, err
	}
	return json.Marshal(list)
}

// filterWatch passes on the events of what is granted.
func (x *exchange) filterWatch(body io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer body.Close()
		dec := json.NewDecoder(body)
		var columns json.RawMessage
		for {
			var ev struct {
				Type   string          `json:"type"`
				Object json.RawMessage `json:"object"`
			}
			if err := dec.Decode(&ev); err != nil {
				w.CloseWithError(err)
				return
			}
			object, keep := x.filterEvent(ev.Type, ev.Object, &columns)
			if !keep {
				continue
			}
			raw, err := json.Marshal(map[string]any{"type": ev.Type, "object": object})
			if err == nil {
				_, err = w.Write(append(raw, '\n'))
			}
			if err != nil {
				w.CloseWithError(err)
				return
			}
		}
	}()
	return &piped{r, body}
}

// filterEvent decides about one event: bookmarks and errors name no object. Tables have their columns in the first one
// alone; columns keeps them for the first that is shown.
func (x *exchange) filterEvent(kind string, object json.RawMessage, columns *json.RawMessage) (json.RawMessage, bool) {
	if kind == "BOOKMARK" || kind == "ERROR" {
		return object, true
	}
	var head struct {
		Kind string `json:"kind"`
	}
	if json.Unmarshal(object, &head) != nil {
		return nil, false
	}
	if head.Kind == "Table" {
		out, err := x.filterList(object)
		var t struct {
			Rows []json.RawMessage `json:"rows"`
		}
		var table map[string]json.RawMessage
		if err != nil || json.Unmarshal(out, &t) != nil || json.Unmarshal(out, &table) != nil {
			return nil, false
		}
		if own := table["columnDefinitions"]; len(own) > 0 && string(own) != "null" && string(own) != "[]" {
			*columns = own
		}
		if len(t.Rows) == 0 {
			return nil, false
		}
		if len(*columns) > 0 {
			table["columnDefinitions"], *columns = *columns, nil
			out, err = json.Marshal(table)
		}
		return out, err == nil
	}
	return object, x.shows(object)
}

type piped struct {
	*io.PipeReader
	body io.Closer
}

// Close ends both ends.
func (p *piped) Close() error {
	p.body.Close()
	return p.PipeReader.Close()
}
