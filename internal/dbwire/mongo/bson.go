package mongo

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
)

// Type is a BSON element's type.
type Type byte

// The types that are looked at.
const (
	Double   Type = 0x01
	String   Type = 0x02
	Document Type = 0x03
	Array    Type = 0x04
	Binary   Type = 0x05
	Bool     Type = 0x08
	Date     Type = 0x09
	Int32    Type = 0x10
	Int64    Type = 0x12
)

// Doc is a BSON document as it is on the wire.
type Doc []byte

// Element is a document's element; Value is its bytes.
type Element struct {
	Type  Type
	Name  string
	Value []byte
}

// maxNesting bounds how documents nest; servers take 180.
const maxNesting = 200

// doc cuts the document that b begins with.
func doc(b []byte) (Doc, []byte, error) {
	if len(b) < 5 {
		return nil, nil, malformed("a document that is cut")
	}
	n := int32(binary.LittleEndian.Uint32(b))
	if n < 5 || int(n) > len(b) || b[n-1] != 0 {
		return nil, nil, malformed("a document's length")
	}
	return Doc(b[:n]), b[n:], nil
}

// Each calls f for every element until it returns false; a document that does not hold together is an error.
func (d Doc) Each(f func(Element) bool) error {
	if len(d) < 5 || int(int32(binary.LittleEndian.Uint32(d))) != len(d) || d[len(d)-1] != 0 {
		return malformed("a document's length")
	}
	for b := d[4 : len(d)-1]; len(b) > 0; {
		end := bytes.IndexByte(b[1:], 0)
		if end < 0 {
			return malformed("a name without end")
		}
		e := Element{Type: Type(b[0]), Name: string(b[1 : 1+end])}
		b = b[end+2:]
		n, err := size(e.Type, b)
		if err != nil {
			return err
		}
		e.Value, b = b[:n], b[n:]
		if !f(e) {
			return nil
		}
	}
	return nil
}

// size is how long a value is.
func size(t Type, b []byte) (int, error) {
	n, prefix := 0, func(extra int) int {
		if len(b) < 4 {
			return -1
		}
		return int(int32(binary.LittleEndian.Uint32(b))) + extra
	}
	switch t {
	case 0x06, 0x0a, 0xff, 0x7f: // undefined, null, min and max key
	case Bool:
		n = 1
	case Int32:
		n = 4
	case Double, Date, 0x11, Int64:
		n = 8
	case 0x07:
		n = 12
	case 0x13:
		n = 16
	case String, 0x0d, 0x0e:
		if n = prefix(4); n < 5 || n > len(b) || b[n-1] != 0 {
			return 0, malformed("a string's length")
		}
	case Document, Array, 0x0f:
		if n = prefix(0); n < 5 {
			return 0, malformed("a document's length")
		}
	case Binary:
		if n = prefix(5); n < 5 {
			return 0, malformed("binary data's length")
		}
	case 0x0b:
		first := bytes.IndexByte(b, 0)
		second := bytes.IndexByte(b[first+1:], 0)
		if first < 0 || second < 0 {
			return 0, malformed("a pattern without end")
		}
		n = first + second + 2
	case 0x0c:
		if n = prefix(4 + 12); n < 17 {
			return 0, malformed("a pointer's length")
		}
	default:
		return 0, malformed(fmt.Sprintf("a value of type 0x%02x", byte(t)))
	}
	if n > len(b) {
		return 0, malformed("a value that is cut")
	}
	return n, nil
}

// Str is the value as a string, where it is one.
func (e Element) Str() string {
	if e.Type != String || len(e.Value) < 5 {
		return ""
	}
	return string(e.Value[4 : len(e.Value)-1])
}

// Doc is the value as a document or array, where it is one.
func (e Element) Doc() Doc {
	if e.Type != Document && e.Type != Array {
		return nil
	}
	return Doc(e.Value)
}

// Number is the value as a number, where it is one.
func (e Element) Number() float64 {
	switch e.Type {
	case Double:
		return math.Float64frombits(binary.LittleEndian.Uint64(e.Value))
	case Int32:
		return float64(int32(binary.LittleEndian.Uint32(e.Value)))
	case Int64:
		return float64(int64(binary.LittleEndian.Uint64(e.Value)))
	case Bool:
		return float64(e.Value[0])
	}
	return 0
}

// Bytes is the value as binary data, where it is some.
func (e Element) Bytes() []byte {
	if e.Type != Binary {
		return nil
	}
	return e.Value[5:]
}

// Get finds an element; one that is there twice is not found, for two readers might take it for two things.
func (d Doc) Get(name string) (Element, bool) {
	var found Element
	n := 0
	_ = d.Each(func(e Element) bool {
		if e.Name == name {
			found, n = e, n+1
		}
		return true
	})
	return found, n == 1
}

// each calls f for every element of a name, which may be there twice.
func (d Doc) each(name string, f func(Element)) {
	_ = d.Each(func(e Element) bool {
		if e.Name == name {
			f(e)
		}
		return true
	})
}

// First is the first element: in a command, its name.
func (d Doc) First() (first Element, has bool) {
	_ = d.Each(func(e Element) bool {
		first, has = e, true
		return false
	})
	return first, has
}

// Check holds that a document, with those inside it, holds together and is not nested too deep.
func (d Doc) Check() error { return d.check(maxNesting) }

func (d Doc) check(depth int) error {
	if depth == 0 {
		return malformed("documents nest too deep")
	}
	var inner error
	err := d.Each(func(e Element) bool {
		if sub := e.Doc(); sub != nil {
			inner = sub.check(depth - 1)
		}
		return inner == nil
	})
	if err != nil {
		return err
	}
	return inner
}

// Field is one of a document that Build makes: its value is a string, int, int64, float64, bool, []byte, Doc or []string.
type Field struct {
	Name  string
	Value any
}

// Build makes a document.
func Build(fields ...Field) Doc {
	b := make([]byte, 4, 256)
	for _, f := range fields {
		b = appendField(b, f)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func appendField(b []byte, f Field) []byte {
	head := func(t Type) { b = append(append(append(b, byte(t)), f.Name...), 0) }
	switch v := f.Value.(type) {
	case string:
		head(String)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)+1))
		b = append(append(b, v...), 0)
	case int:
		head(Int32)
		b = binary.LittleEndian.AppendUint32(b, uint32(v))
	case int64:
		head(Date)
		b = binary.LittleEndian.AppendUint64(b, uint64(v))
	case float64:
		head(Double)
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
	case bool:
		head(Bool)
		b = append(b, map[bool]byte{true: 1}[v])
	case []byte:
		head(Binary)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(v)))
		b = append(append(b, 0), v...)
	case Doc:
		head(Document)
		b = append(b, v...)
	case []string:
		head(Array)
		var all []Field
		for i, s := range v {
			all = append(all, Field{fmt.Sprint(i), s})
		}
		b = append(b, Build(all...)...)
	}
	return b
}
