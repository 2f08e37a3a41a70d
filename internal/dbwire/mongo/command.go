package mongo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxText is how much of a command is shown, in bytes.
const MaxText = 8 << 10

// Name is the command's name, and its value.
func (m *Message) Name() (string, Element) {
	e, _ := m.Body.First()
	return e.Name, e
}

// Text is the command as extended JSON, cut, its secrets masked; it reports whether there were any.
func (m *Message) Text() (string, bool) {
	w := writer{hider: m.hides()}
	w.document(m.Body, false, func() {
		for _, s := range m.Sequences {
			w.next()
			w.b = append(strconv.AppendQuote(w.b, s.Name), ":["...)
			w.first = true
			for rest := s.Docs; len(rest) > 0 && !w.full(); {
				var d Doc
				var err error
				if d, rest, err = doc(rest); err != nil {
					break
				}
				w.next()
				w.document(d, false, nil)
			}
			w.b = append(w.b, ']')
			w.first = false
		}
	})
	if w.full() { // what is not shown may be one
		return strings.ToValidUTF8(string(w.b[:MaxText]), "") + "…", w.had || w.hider.any()
	}
	return string(w.b), w.had
}

// writer writes relaxed extended JSON.
type writer struct {
	b     []byte
	hider hider
	had   bool
	first bool // nothing precedes in this document or array
	depth int
}

func (w *writer) full() bool { return len(w.b) > MaxText }

func (w *writer) next() {
	if !w.first {
		w.b = append(w.b, ',')
	}
	w.first = false
}

// transport are fields that drivers send with every command, and that say nothing of it.
var transport = []string{"$db", "lsid", "$clusterTime", "$readPreference", "txnNumber", "apiVersion"}

func (w *writer) document(d Doc, array bool, more func()) {
	w.b = append(w.b, map[bool]byte{true: '[', false: '{'}[array])
	w.first = true
	w.depth++
	_ = d.Each(func(e Element) bool {
		if w.full() || w.depth > maxNesting {
			return false
		}
		if w.depth == 1 && slices.Contains(transport, e.Name) {
			return true
		}
		w.next()
		if !array {
			w.b = append(strconv.AppendQuote(w.b, e.Name), ':')
		}
		if w.hider.hides(e.Name, w.depth) {
			w.mask()
			return true
		}
		w.value(e)
		return true
	})
	if more != nil {
		more()
	}
	w.depth--
	w.b = append(w.b, map[bool]byte{true: ']', false: '}'}[array])
	w.first = false
}

func (w *writer) mask() {
	w.had = true
	w.b = append(w.b, `"`+Masked+`"`...)
}

// The subtypes of binary data that are not shown: BSON's own mark for what is sensitive, and what a client has encrypted.
const (
	encrypted = 6
	sensitive = 8
)

func (w *writer) value(e Element) {
	switch e.Type {
	case Document, Array:
		w.document(e.Doc(), e.Type == Array, nil)
	case String:
		s := e.Str()
		if len(s) > MaxText {
			s = strings.ToValidUTF8(s[:MaxText], "")
		}
		s, had := maskAddresses(s)
		w.had = w.had || had
		w.b = strconv.AppendQuote(w.b, s)
	case Double:
		f := e.Number()
		if math.IsNaN(f) || math.IsInf(f, 0) {
			w.b = fmt.Appendf(w.b, `{"$numberDouble":"%v"}`, f)
			return
		}
		w.b = strconv.AppendFloat(w.b, f, 'g', -1, 64)
	case Int32, Int64:
		if e.Type == Int64 {
			w.b = strconv.AppendInt(w.b, int64(binary.LittleEndian.Uint64(e.Value)), 10)
			return
		}
		w.b = strconv.AppendInt(w.b, int64(int32(binary.LittleEndian.Uint32(e.Value))), 10)
	case Bool:
		w.b = strconv.AppendBool(w.b, e.Value[0] != 0)
	case Binary:
		v := e.Bytes()
		if e.Value[4] == sensitive || e.Value[4] == encrypted {
			had := w.had
			w.mask()
			w.had = had || e.Value[4] == sensitive
			return
		}
		w.b = fmt.Appendf(w.b, `{"$binary":{"base64":"%s","subType":"%02x"}}`, base64.StdEncoding.EncodeToString(v[:min(len(v), MaxText)]), e.Value[4])
	case Date:
		ms := int64(binary.LittleEndian.Uint64(e.Value))
		if ms < 0 || ms > 253402300799999 { // past the year 9999
			w.b = fmt.Appendf(w.b, `{"$date":{"$numberLong":"%d"}}`, ms)
			return
		}
		w.b = fmt.Appendf(w.b, `{"$date":"%s"}`, time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z"))
	case 0x07:
		w.b = fmt.Appendf(w.b, `{"$oid":"%x"}`, e.Value)
	case 0x0a, 0x06:
		w.b = append(w.b, "null"...)
	case 0x0b:
		pattern, options, _ := strings.Cut(strings.TrimSuffix(string(e.Value), "\x00"), "\x00")
		w.b = fmt.Appendf(w.b, `{"$regularExpression":{"pattern":%q,"options":%q}}`, pattern, options)
	case 0x11:
		w.b = fmt.Appendf(w.b, `{"$timestamp":{"t":%d,"i":%d}}`, binary.LittleEndian.Uint32(e.Value[4:]), binary.LittleEndian.Uint32(e.Value))
	default:
		w.b = fmt.Appendf(w.b, `{"$type":"0x%02x","$hex":"%s"}`, byte(e.Type), hex.EncodeToString(e.Value[:min(len(e.Value), 64)]))
	}
}

// Databases lists the databases that a command reaches: its own first, then those that its stages, namespaces and outputs
// name. A command that does not say its own, or says it twice, is an error.
func (m *Message) Databases() ([]string, error) {
	own, has := m.Body.Get("$db")
	if m.Opcode == OpQuery {
		own, has = Element{Type: String, Value: append(append(make([]byte, 4), m.Database...), 0)}, true
	}
	if !has || own.Type != String || own.Str() == "" {
		return nil, malformed("a command of no database")
	}
	out := []string{own.Str()}
	add := func(db string) {
		if db != "" && !slices.Contains(out, db) {
			out = append(out, db)
		}
	}
	name, value := m.Name()
	switch strings.ToLower(name) {
	case "renamecollection":
		add(database(value.Str()))
		m.Body.each("to", func(e Element) { add(database(e.Str())) })
	case "bulkwrite", "applyops":
		for _, list := range []string{"nsInfo", "applyOps", "ops"} {
			m.Body.each(list, func(e Element) { namespaces(e.Doc(), add) })
		}
		for _, s := range m.Sequences {
			for rest := s.Docs; len(rest) > 0; {
				var d Doc
				var err error
				if d, rest, err = doc(rest); err != nil {
					return nil, err
				}
				namespaces(d, add)
			}
		}
	default:
		stages(m.Body, add)
	}
	return out, nil
}

func database(namespace string) string {
	db, _, _ := strings.Cut(namespace, ".")
	return db
}

// namespaces finds what `ns` and the like name.
func namespaces(d Doc, add func(string)) {
	_ = d.Each(func(e Element) bool {
		if e.Type == String && (e.Name == "ns" || e.Name == "to" || e.Name == "renameCollection") {
			add(database(e.Str()))
		}
		if inner := e.Doc(); inner != nil {
			namespaces(inner, add)
		}
		return true
	})
}

// reaching are the stages and fields whose documents can name another database.
var reaching = []string{"$out", "$merge", "$lookup", "$graphLookup", "$unionWith", "into", "from", "out"}

func stages(d Doc, add func(string)) {
	_ = d.Each(func(e Element) bool {
		inner := e.Doc()
		if inner == nil {
			return true
		}
		if slices.Contains(reaching, e.Name) {
			_ = inner.Each(func(x Element) bool {
				if x.Name == "db" && x.Type == String {
					add(x.Str())
				}
				return true
			})
		}
		if e.Type == Document && e.Name == "explain" {
			inner.each("$db", func(e Element) { add(e.Str()) })
		}
		stages(inner, add)
		return true
	})
}
