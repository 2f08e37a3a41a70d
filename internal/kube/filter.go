package kube

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of a list or a watch that is looked through: of what is held of it before the first of it goes out, so that what cannot
// be read is refused whole, and of one object, or one event. Of a list no more is held, however long it is.
const (
	maxAhead  = 64 << 10
	maxObject = 8 << 20
)

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
	list := x.piped(res.Body, x.filterList)
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

// metered is a body of which no more than left is read.
type metered struct {
	io.Reader
	left int
}

// Read is of io.Reader.
func (m *metered) Read(p []byte) (int, error) {
	if m.left <= 0 {
		return 0, errors.New("an object that is too large to be looked through")
	}
	n, err := m.Reader.Read(p[:min(len(p), m.left)])
	m.left -= n
	return n, err
}

// piped is a body as a filter lets it through. It ends with what the filter says; an end of the body amid an object is none.
func (x *exchange) piped(body io.ReadCloser, filter func(io.Writer, io.Reader) error) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer body.Close()
		out := bufio.NewWriterSize(w, 16<<10)
		err := filter(out, body)
		if err == nil {
			err = out.Flush()
		} else if errors.Is(err, io.EOF) {
			err = errors.New("it ends too soon")
		}
		w.CloseWithError(err)
	}()
	return &piped{r, body}
}

// named is what of an object says whose it is; a table's rows carry theirs in object.
type named struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
}

// shows asks access about one object.
func (x *exchange) shows(raw json.RawMessage) bool {
	var n named
	return json.Unmarshal(raw, &n) == nil && x.grants(n)
}

func (x *exchange) grants(n named) bool {
	return n.Metadata.Name != "" && x.session.Shows(n.Metadata.Namespace, n.Metadata.Name)
}

// filterList keeps the items, or a table's rows, that are granted, one held at a time. Everything else of the list stays as it
// was, but for what tells of others.
func (x *exchange) filterList(w io.Writer, r io.Reader) error {
	l := list{exchange: x, out: w, in: &metered{r, maxObject}}
	l.dec = json.NewDecoder(l.in)
	if err := l.delim('{'); err != nil {
		return err
	}
	for between := "{"; l.dec.More(); between = "," {
		key, err := l.dec.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string) // of an object it always is
		label, err := json.Marshal(name)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s%s:", between, label); err != nil {
			return err
		}
		if err := l.field(name); err != nil {
			return err
		}
		l.fields++
	}
	if err := l.delim('}'); err != nil {
		return err
	}
	if _, err := l.dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something behind a list")
	}
	if l.of == "" && l.kind != "Table" && l.kind != "Status" && !strings.HasSuffix(l.kind, "List") { // an empty one, or why there is none
		return fmt.Errorf("a %q is no list", l.kind)
	}
	end := "}"
	if l.fields == 0 {
		end = "{}"
	}
	_, err := io.WriteString(w, end)
	return err
}

// list is one on its way.
type list struct {
	*exchange
	out      io.Writer
	in       *metered
	dec      *json.Decoder
	raw      json.RawMessage
	fields   int
	kind, of string // of is the field that has the objects
}

func (l *list) delim(want json.Delim) error {
	l.in.left = maxObject
	got, err := l.dec.Token()
	if err == nil && got != want {
		err = fmt.Errorf("no list")
	}
	return err
}

// next reads a value whole.
func (l *list) next() error {
	l.in.left = maxObject
	return l.dec.Decode(&l.raw)
}

// field passes on a field of the list.
func (l *list) field(name string) error {
	if name == "items" || name == "rows" {
		if l.of != "" {
			return fmt.Errorf("a list with items and rows")
		}
		l.of = name
		return l.objects()
	}
	if err := l.next(); err != nil {
		return err
	}
	switch name {
	case "kind":
		_ = json.Unmarshal(l.raw, &l.kind)
	case "metadata":
		hidden, err := l.door.pages.hide(l.raw)
		if err != nil {
			return err
		}
		l.raw = hidden
	}
	_, err := l.out.Write(l.raw)
	return err
}

// objects passes on those that are granted.
func (l *list) objects() error {
	l.in.left = maxObject
	open, err := l.dec.Token()
	if err != nil {
		return err
	}
	if open == nil { // null is none
		_, err := io.WriteString(l.out, "[]")
		return err
	}
	if open != json.Delim('[') {
		return fmt.Errorf("no list of objects")
	}
	between := "["
	for l.dec.More() {
		if err := l.next(); err != nil {
			return err
		}
		object := l.raw
		if l.of == "rows" {
			var row struct {
				Object json.RawMessage `json:"object"`
			}
			if json.Unmarshal(l.raw, &row) != nil {
				continue
			}
			object = row.Object
		}
		if !l.shows(object) {
			continue
		}
		if _, err := io.WriteString(l.out, between); err != nil {
			return err
		}
		if _, err := l.out.Write(l.raw); err != nil {
			return err
		}
		between = ","
	}
	if between == "[" {
		_, _ = io.WriteString(l.out, "[") // what is written here fails later, too
	}
	if _, err := io.WriteString(l.out, "]"); err != nil {
		return err
	}
	return l.delim(']')
}

// filterWatch passes on the events of what is granted.
func (x *exchange) filterWatch(body io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer body.Close()
		in := &metered{body, maxObject}
		dec := json.NewDecoder(in)
		var columns json.RawMessage
		var ev struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		var out bytes.Buffer
		for {
			in.left = maxObject
			ev.Type, ev.Object = "", ev.Object[:0]
			if err := dec.Decode(&ev); err != nil {
				w.CloseWithError(err)
				return
			}
			object, keep := x.filterEvent(ev.Type, ev.Object, &columns)
			if !keep || len(object) == 0 {
				continue
			}
			kind, err := json.Marshal(ev.Type)
			if err == nil {
				out.Reset()
				fmt.Fprintf(&out, `{"type":%s,"object":`, kind)
				out.Write(object)
				out.WriteString("}\n")
				_, err = w.Write(out.Bytes())
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
	var n named
	if json.Unmarshal(object, &n) != nil {
		return nil, false
	}
	if n.Kind == "Table" {
		var b bytes.Buffer
		err := x.filterList(&b, bytes.NewReader(object))
		out := json.RawMessage(b.Bytes())
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
	return object, x.grants(n)
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
