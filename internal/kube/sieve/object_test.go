package sieve

import (
	"encoding/json"
	"testing"
)

// FuzzRead: of any JSON what is read is what a decoder into a map reads, where no key is there twice; of no bytes it panics.
func FuzzRead(f *testing.F) {
	for _, s := range []string{`{"kind":"Pod","metadata":{"name":"a","namespace":"b"},"x":[1,{"y":"}"}]}`, ` { "metadata" : { "name" : "a\"}" , "x" : -1.5e3 } , "kind":null } `,
		`{"\u006detadata":{"name":"é"},"Metadata":{}}`, `{"metadata":null}`, `{"metadata":[]}`, `{"kind":1}`, `{}`, `[]`, `null`, `"`, `{"a":"\\","metadata":{"name":"x"}}`, `{"a"`, `{"a":`, `{"metadata":{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, ok := read(raw)
		if !json.Valid(raw) {
			return
		}
		var object, meta map[string]json.RawMessage
		var want named
		sound := json.Unmarshal(raw, &object) == nil && object != nil
		sound = sound && (object["metadata"] == nil || json.Unmarshal(object["metadata"], &meta) == nil)
		for v, into := range map[*string]json.RawMessage{&want.kind: object["kind"], &want.name: meta["name"], &want.namespace: meta["namespace"]} {
			sound = sound && (into == nil || json.Unmarshal(into, v) == nil)
		}
		if ok && (!sound || got != want) {
			t.Errorf("%q: %+v, not %+v", raw, got, want)
		}
	})
}

// TestRead: what is read, and what is not.
func TestRead(t *testing.T) {
	for raw, want := range map[string]named{
		` { "a" : "\"}{" , "metadata" : { "x" : [ { } , "]" , null , true , -1.5e3 ] , "namespace" : "dev" , "name" : "w\u0065b" } , "kind" : "Pod" } `: {"Pod", "dev", "web"},
		`{"metadata":null,"kind":"Table"}`: {kind: "Table"},
		`{}`:                               {},
	} {
		if got, ok := read([]byte(raw)); !ok || got != want {
			t.Errorf("%s: %+v %v", raw, got, ok)
		}
	}
	for _, raw := range []string{`[]`, `null`, `1`, `"x"`, ``, `{`, `{"metadata":[]}`, `{"metadata":{"name":1}}`, `{"kind":"A","kind":"B"}`,
		`{"metadata":{"name":"a"},"metadata":{"name":"b"}}`, `{"metadata":{"name":"a","n\u0061me":"b"}}`} {
		if got, ok := read([]byte(raw)); ok {
			t.Errorf("%s is taken for %+v", raw, got)
		}
	}
}
