package manifest

import (
	"bytes"
	"io"

	"go.yaml.in/yaml/v3"
)

// WriteYAML prints JSON documents as YAML, one after another, with the order of their fields kept.
func WriteYAML(w io.Writer, docs ...[]byte) error {
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	for _, raw := range docs {
		var node yaml.Node
		if err := yaml.Unmarshal(bytes.TrimSpace(raw), &node); err != nil {
			return err
		}
		block(&node)
		if err := enc.Encode(&node); err != nil {
			return err
		}
	}
	return enc.Close()
}

// block takes the JSON look off a tree; long texts (PEM) become literal blocks.
func block(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		var probe yaml.Node
		if yaml.Unmarshal([]byte(n.Value), &probe) != nil || len(probe.Content) != 1 || probe.Content[0].Tag != "!!str" {
			n.Style = yaml.DoubleQuotedStyle
		}
		if bytes.ContainsRune([]byte(n.Value), '\n') {
			n.Style = yaml.LiteralStyle
		}
	}
	for _, c := range n.Content {
		block(c)
	}
}
