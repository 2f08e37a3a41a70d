package mongo

import (
	"encoding/binary"
	"fmt"
	"strings"
)

// Outcome is why a command failed, as its reply's document says, or "".
func Outcome(d Doc) string {
	o := outcome{}
	d.begun(o.element)
	switch {
	case o.failed:
		return describe(o.text, d)
	case o.why != "":
		return o.why
	case o.errors > 0 && o.first != "":
		return o.first
	case o.errors > 0:
		return fmt.Sprintf("%d of its writes failed", o.errors)
	}
	return ""
}

// Begun is the Outcome of m as far as the beginning of a reply tells, from its header on.
func (m *Message) Begun(b []byte) string {
	if len(b) < HeaderLen+5 || b[HeaderLen+4] != 0 {
		return ""
	}
	d := Doc(b[HeaderLen+5:])
	if name, _ := m.Name(); strings.EqualFold(name, "bulkWrite") { // how many failed stands behind the results
		o := outcome{}
		d.begun(o.element)
		return o.first
	}
	return Outcome(d)
}

// outcome is what a reply's elements say.
type outcome struct {
	failed bool   // ok is 0
	text   string // errmsg
	why    string // the first of writeErrors, or writeConcernError
	errors int    // nErrors of bulkWrite, whose results are its cursor's
	first  string // the first of these that failed
}

func (o *outcome) element(e Element) bool {
	switch e.Name {
	case "ok":
		o.failed = e.Number() == 0
	case "errmsg":
		o.text = e.Str()
	case "writeErrors":
		e.Doc().begun(func(x Element) bool {
			o.why = failure(x.Doc())
			return false
		})
	case "writeConcernError":
		if o.why == "" && e.Doc() != nil {
			o.why = failure(e.Doc())
		}
	case "nErrors":
		o.errors = int(e.Number())
	case "cursor":
		o.first = failedResult(e.Doc())
	}
	return true
}

// failedResult is the first result that failed, among those of a cursor that are bulkWrite's.
func failedResult(cursor Doc) (why string) {
	cursor.begun(func(e Element) bool {
		if e.Name == "firstBatch" {
			e.Doc().begun(func(x Element) bool {
				if ok, has := x.Doc().Get("ok"); has && ok.Number() == 0 {
					why = failure(x.Doc())
				}
				return why == ""
			})
		}
		return why == ""
	})
	return why
}

func failure(d Doc) string {
	text, _ := d.Get("errmsg")
	return describe(text.Str(), d)
}

func describe(text string, d Doc) string {
	if code, has := d.Get("code"); has {
		return fmt.Sprintf("%s (%d)", text, int(code.Number()))
	}
	if text == "" {
		return "it failed"
	}
	return text
}

// begun calls f for every element of a document that may be cut off: of the last one then there is what there is.
func (d Doc) begun(f func(Element) bool) {
	if len(d) < 4 {
		return
	}
	for b := d[4:]; len(b) > 1 && b[0] != 0; {
		e := Element{Type: Type(b[0])}
		end := 1
		for end < len(b) && b[end] != 0 {
			end++
		}
		if end == len(b) {
			return
		}
		e.Name, b = string(b[1:end]), b[end+1:]
		n, err := size(e.Type, b)
		if err != nil {
			if (e.Type == Document || e.Type == Array) && len(b) >= 4 && int64(binary.LittleEndian.Uint32(b)) > int64(len(b)) {
				e.Value = b
				f(e)
			}
			return
		}
		if e.Value, b = b[:n], b[n:]; !f(e) {
			return
		}
	}
}
