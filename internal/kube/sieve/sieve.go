// Package sieve lets lists and watches of a Kubernetes API server through object by object, as JSON: what is not granted stays
// behind, and what would tell of it.
package sieve

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxObject bounds one object of a list, or one event: no more is held of a list, however long it is.
const maxObject = 8 << 20

// Sieve lets through what Shows says yes to.
type Sieve struct {
	Shows func(namespace, name string) bool
	Pages Pages
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

// Body is a list's body as it is let it through. It ends with what List says; an end of the body amid an object is none.
func (s Sieve) Body(body io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer body.Close()
		out := bufio.NewWriterSize(w, 16<<10)
		err := s.List(out, body)
		if err == nil {
			err = out.Flush()
		} else if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // which would be the end of a whole one
			err = errors.New("it ends too soon")
		}
		w.CloseWithError(err)
	}()
	return &piped{r, body}
}

// shows asks access about one object.
func (s Sieve) shows(raw json.RawMessage) bool {
	n, ok := read(raw)
	return ok && s.grants(n)
}

func (s Sieve) grants(n named) bool {
	return n.name != "" && s.Shows(n.namespace, n.name)
}

// List keeps the items, or a table's rows, that are granted, one held at a time. What else a list has stays as it was, but for
// what tells of others; fields that no list has are left out.
func (s Sieve) List(w io.Writer, r io.Reader) error {
	l := list{Sieve: s, out: w, in: &metered{r, maxObject}}
	l.dec = json.NewDecoder(l.in)
	if err := l.delim('{'); err != nil {
		return err
	}
	for l.dec.More() {
		key, err := l.dec.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string) // of an object it always is
		if err := l.field(name); err != nil {
			return err
		}
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

// known are the fields of lists, of tables and of a Status (meta/v1). Others may tell of what is withheld.
var known = map[string]bool{"kind": true, "apiVersion": true, "metadata": true, "items": true, "columnDefinitions": true, "rows": true,
	"status": true, "message": true, "reason": true, "details": true, "code": true}

// list is one on its way.
type list struct {
	Sieve
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

// label writes a field's name, behind those before it.
func (l *list) label(name string) error {
	label, err := json.Marshal(name)
	if err != nil {
		return err
	}
	between := ","
	if l.fields == 0 {
		between = "{"
	}
	l.fields++
	_, err = fmt.Fprintf(l.out, "%s%s:", between, label)
	return err
}

// field passes on a field of the list.
func (l *list) field(name string) error {
	if !known[name] {
		return l.next()
	}
	if err := l.label(name); err != nil {
		return err
	}
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
		hidden, err := l.Pages.hide(l.raw)
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
			row := pick(l.raw, "object")
			if row == nil {
				continue
			}
			object = row[0]
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

// Watch passes on the events of what is granted.
func (s Sieve) Watch(body io.ReadCloser) io.ReadCloser {
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
			object, keep := s.event(ev.Type, ev.Object, &columns)
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

// event decides about one event: errors name no object, and neither does what is a bookmark. Tables have their columns in the first one
// alone; columns keeps them for the first that is shown.
func (s Sieve) event(kind string, object json.RawMessage, columns *json.RawMessage) (json.RawMessage, bool) {
	if kind == "ERROR" {
		return object, true
	}
	n, ok := read(object)
	if !ok || kind == "BOOKMARK" {
		return object, ok && (n.name == "" || s.grants(n))
	}
	if n.kind == "Table" {
		var b bytes.Buffer
		err := s.List(&b, bytes.NewReader(object))
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
	return object, s.grants(n)
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
