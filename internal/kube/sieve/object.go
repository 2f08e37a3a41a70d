package sieve

import (
	"bytes"
	"encoding/json"
)

// named is what of an object says whose it is; a table's rows carry theirs in object.
type named struct{ kind, namespace, name string }

// read takes an object's kind and name by keys that are exactly so, as Kubernetes' clients do: encoding/json by itself would
// take "Metadata" for "metadata" too. What is there twice is not read. raw is sound JSON, as a decoder gave it.
func read(raw []byte) (n named, ok bool) {
	object := pick(raw, "kind", "metadata")
	if object == nil {
		return n, false
	}
	meta := [][]byte{nil, nil}
	if m := object[1]; m != nil && string(m) != "null" {
		if meta = pick(m, "name", "namespace"); meta == nil {
			return n, false
		}
	}
	text := func(v []byte, into *string) bool { return v == nil || json.Unmarshal(v, into) == nil }
	ok = text(object[0], &n.kind) && text(meta[0], &n.name) && text(meta[1], &n.namespace)
	return n, ok
}

// pick gives the values of an object's keys, nil for those that it has not; nothing where it is no object, or has one of them
// twice. It looks at the bytes once and copies none: a list has thousands of them.
func pick(raw []byte, keys ...string) [][]byte {
	out := make([][]byte, len(keys))
	at := space(raw, 0)
	if at >= len(raw) || raw[at] != '{' {
		return nil
	}
	for at = space(raw, at+1); at < len(raw) && raw[at] != '}'; {
		end := value(raw, at)
		key := raw[at:end]
		from := space(raw, end) + 1 // behind the colon
		from = space(raw, from)
		to := value(raw, from)
		if len(key) < 2 || key[0] != '"' || to <= from || to >= len(raw) {
			return nil
		}
		var name string
		if bytes.IndexByte(key, '\\') >= 0 {
			if json.Unmarshal(key, &name) != nil {
				return nil
			}
		} else {
			name = string(key[1 : len(key)-1])
		}
		for i, k := range keys {
			if k != name {
				continue
			}
			if out[i] != nil {
				return nil
			}
			out[i] = raw[from:to]
		}
		if at = space(raw, to); at < len(raw) && raw[at] == ',' {
			at = space(raw, at+1)
		}
	}
	if at >= len(raw) {
		return nil
	}
	return out
}

// space is where something is again from at on.
func space(raw []byte, at int) int {
	for at < len(raw) && (raw[at] == ' ' || raw[at] == '\n' || raw[at] == '\t' || raw[at] == '\r') {
		at++
	}
	return at
}

// value is where the value that begins at at is over.
func value(raw []byte, at int) int {
	for depth := 0; at < len(raw); at++ {
		switch raw[at] {
		case '"':
			for at++; at < len(raw) && raw[at] != '"'; at++ {
				if raw[at] == '\\' {
					at++
				}
			}
		case '{', '[':
			depth++
			continue
		case '}', ']':
			depth--
		default:
			if depth > 0 {
				continue
			}
			for at < len(raw) && !bytes.ContainsRune([]byte(",]} \n\t\r"), rune(raw[at])) { // a number or a word
				at++
			}
			return at
		}
		if depth <= 0 {
			return min(at+1, len(raw))
		}
	}
	return len(raw)
}
