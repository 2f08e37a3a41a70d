package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/internal/fault"
)

// MaxFile bounds a file of resources, in bytes.
const MaxFile = 4 << 20

// Parse reads one or several YAML (or JSON) documents, strictly: all of them or none.
func Parse(r io.Reader) ([]*Resource, error) {
	raw, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > MaxFile {
		return nil, fault.New(fault.Invalid, "more than %d bytes of resources", MaxFile)
	}
	var out []*Resource
	dec := yaml.NewDecoder(bytes.NewReader(raw))
	for {
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "%s", strings.TrimPrefix(err.Error(), "yaml: ")).WithReason("malformed_yaml")
		}
		if len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
			continue
		}
		res, err := parseNode(node.Content[0])
		if err != nil {
			return nil, err
		}
		out = append(out, res)
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "no resource in the file").WithReason("malformed_yaml")
	}
	return out, nil
}

// ParseJSON reads one resource as JSON prints it.
func ParseJSON(raw []byte) (*Resource, error) {
	list, err := Parse(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fault.New(fault.Invalid, "%d resources where one was expected", len(list))
	}
	return list[0], nil
}

// parseNode reads one document.
func parseNode(n *yaml.Node) (*Resource, error) {
	head := scalars(n)
	kind, err := ParseKind(head["kind"])
	if err != nil {
		return nil, at(n, "kind", err)
	}
	sh := shapes[kind]
	if v := head["version"]; v != sh.version {
		return nil, fault.New(fault.Invalid, "line %d: version: %s is of version %s, this file says %q", n.Line, kind, sh.version, v).
			WithReason("unknown_version")
	}
	doc := document{Spec: sh.spec()}
	w := walker{spec: reflect.TypeOf(doc.Spec).Elem()}
	if err := w.walk(n, reflect.TypeOf(doc), ""); err != nil {
		return nil, err
	}
	raw, err := toJSON(n)
	if err != nil {
		return nil, at(n, "", err)
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		return nil, at(n, "", err)
	}
	res := &Resource{Kind: kind, Metadata: doc.Metadata, Spec: doc.Spec}
	if kind == Cap && res.Metadata.Name == "" {
		res.Metadata.Name = CapName
	}
	res.setName()
	if err := res.Check(); err != nil {
		return nil, locate(n, err)
	}
	return res, nil
}

// scalars are the plain fields at the top of a document.
func scalars(n *yaml.Node) map[string]string {
	out := map[string]string{}
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i+1].Kind == yaml.ScalarNode {
			out[n.Content[i].Value] = n.Content[i+1].Value
		}
	}
	return out
}

func at(n *yaml.Node, path string, err error) error {
	f := *fault.Of(err)
	if f.Kind == fault.Internal {
		f = fault.Error{Kind: fault.Invalid, Text: err.Error()}
	}
	prefix := fmt.Sprintf("line %d: ", n.Line)
	if path != "" {
		prefix += path + ": "
	}
	f.Text = prefix + f.Text
	if f.Reason == "" {
		f.Reason = "malformed_yaml"
	}
	return &f
}

// locate adds the line of the field that a noun's own rule names.
func locate(n *yaml.Node, err error) error {
	f := fault.Of(err)
	_, rule, _ := strings.Cut(f.Text, ": ")
	field, _, _ := strings.Cut(rule, ":")
	field, _, _ = strings.Cut(field, " ")
	node := n
	for part := range strings.SplitSeq("spec."+field, ".") {
		part, _, _ = strings.Cut(part, "[")
		next := child(node, part)
		if next == nil {
			break
		}
		node = next
	}
	return at(node, "", f)
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

// walker compares a tree with the Go type that it is for, so that every mistake has its line.
type walker struct{ spec reflect.Type }

var unmarshaler = reflect.TypeFor[json.Unmarshaler]()

func (w walker) walk(n *yaml.Node, t reflect.Type, path string) error {
	if n.Kind == yaml.AliasNode {
		return at(n, path, errors.New("aliases are not taken"))
	}
	if path == "spec" {
		t = w.spec
	}
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if n.Tag == "!!null" || (t.Kind() == reflect.Interface && path != "spec") {
		return nil
	}
	if reflect.PointerTo(t).Implements(unmarshaler) {
		return w.leaf(n, t, path)
	}
	switch t.Kind() {
	case reflect.Struct:
		return w.mapping(n, path, func(key string) (reflect.Type, error) { return field(t, key) })
	case reflect.Map:
		return w.mapping(n, path, func(string) (reflect.Type, error) { return t.Elem(), nil })
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return w.leaf(n, t, path)
		}
		if n.Kind != yaml.SequenceNode {
			return at(n, path, errors.New("want a list"))
		}
		for i, c := range n.Content {
			if err := w.walk(c, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
		return nil
	}
	return w.leaf(n, t, path)
}

func (w walker) mapping(n *yaml.Node, path string, typeOf func(string) (reflect.Type, error)) error {
	if n.Kind != yaml.MappingNode {
		return at(n, path, errors.New("want fields and values"))
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		inside := strings.TrimPrefix(path+"."+key.Value, ".")
		if seen[key.Value] {
			return at(key, inside, errors.New("stands twice"))
		}
		seen[key.Value] = true
		t, err := typeOf(key.Value)
		if err != nil {
			return at(key, path, err)
		}
		if err := w.walk(value, t, inside); err != nil {
			return err
		}
	}
	return nil
}

func (w walker) leaf(n *yaml.Node, t reflect.Type, path string) error {
	raw, err := toJSON(n)
	if err == nil {
		err = json.Unmarshal(raw, reflect.New(t).Interface())
	}
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) {
		err = fmt.Errorf("want a %s, got %s", wrong.Type, wrong.Value)
	}
	if err != nil {
		return at(n, path, err)
	}
	return nil
}

// field finds the type of a JSON field, those of embedded structs included, or says what it might have been.
func field(t reflect.Type, key string) (reflect.Type, error) {
	best, bestAt := "", 3
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" || name == "-" { // embedded: its fields are visited themselves
			continue
		}
		if name == key {
			return f.Type, nil
		}
		if d := distance(name, key); d < bestAt {
			best, bestAt = name, d
		}
	}
	if best != "" {
		return nil, fmt.Errorf("unknown field %q, did you mean %q?", key, best)
	}
	return nil, fmt.Errorf("unknown field %q", key)
}

// distance is the Levenshtein distance.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// toJSON converts a tree.
func toJSON(n *yaml.Node) ([]byte, error) {
	v, err := plain(n, 0)
	if err != nil {
		return nil, err
	}
	return json.Marshal(v)
}

const maxDepth = 32

func plain(n *yaml.Node, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("line %d: nested too deeply", n.Line)
	}
	switch n.Kind {
	case yaml.MappingNode:
		m := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			v, err := plain(n.Content[i+1], depth+1)
			if err != nil {
				return nil, err
			}
			m[n.Content[i].Value] = v
		}
		return m, nil
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := plain(c, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return scalar(n)
	}
	return nil, fmt.Errorf("line %d: aliases are not taken", n.Line)
}

func scalar(n *yaml.Node) (any, error) {
	switch n.Tag {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		err := n.Decode(&b)
		return b, err
	case "!!int":
		return json.Number(n.Value), nil
	case "!!str", "!!timestamp":
		return n.Value, nil
	case "!!float":
		return json.Number(n.Value), nil
	}
	return nil, fmt.Errorf("line %d: values of type %s are not taken", n.Line, n.Tag)
}
