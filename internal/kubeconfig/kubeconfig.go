// Package kubeconfig edits the entries of ours in a kubeconfig, and leaves everything else in it as it is.
package kubeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sallyport/sallyport/internal/fault"
)

// Entry is a context with its cluster and user, all of one name: a server, and the program that gets certificates for it.
type Entry struct {
	Name    string
	Server  string
	TLSName string // by which the server is asked for and verified, where it is not its address
	CAFile  string
	Command string
	Args    []string
	Env     map[string]string
}

// Path is the file that kubectl would write to.
func Path(env func(string) string) string {
	if list := filepath.SplitList(env("KUBECONFIG")); len(list) > 0 && list[0] != "" {
		return list[0]
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "."
	}
	return filepath.Join(home, ".kube", "config")
}

// Put writes entries into a file, in the place of those of the same names, and makes the first of them current.
func Put(path string, entries ...Entry) error {
	return edit(path, func(root *yaml.Node) error {
		for _, e := range entries {
			for _, kind := range []string{"clusters", "users", "contexts"} {
				if err := putNamed(root, kind, e.Name, e.value(kind)); err != nil {
					return err
				}
			}
		}
		if len(entries) > 0 {
			set(root, "current-context", scalar(entries[0].Name))
		}
		return nil
	})
}

// Remove takes the entries away whose user's program is called with arguments that ours accepts; a file that is not there
// has none.
func Remove(path string, ours func(command string, args []string) bool) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return edit(path, func(root *yaml.Node) error {
		var gone []string
		for _, item := range list(root, "users") {
			var u struct {
				Name string `yaml:"name"`
				User struct {
					Exec struct {
						Command string   `yaml:"command"`
						Args    []string `yaml:"args"`
					} `yaml:"exec"`
				} `yaml:"user"`
			}
			if item.Decode(&u) == nil && u.User.Exec.Command != "" && ours(u.User.Exec.Command, u.User.Exec.Args) {
				gone = append(gone, u.Name)
			}
		}
		for _, kind := range []string{"clusters", "users", "contexts"} {
			removeNamed(root, kind, gone)
		}
		if c := get(root, "current-context"); c != nil && slices.Contains(gone, c.Value) {
			set(root, "current-context", scalar(""))
		}
		return nil
	})
}

// Ours are the entries that `tsh kube login` wrote for a proxy: all of them, or those of one cluster.
func Ours(proxy, cluster string) func(command string, args []string) bool {
	return func(command string, args []string) bool {
		base := filepath.Base(command)
		return (base == "tsh" || base == "tsh.exe") && len(args) == 4 && args[0] == "kube" && args[1] == "credentials" && args[3] == "--proxy="+proxy &&
			(cluster == "" || args[2] == "--kube-cluster="+cluster)
	}
}

func (e Entry) value(kind string) map[string]any {
	switch kind {
	case "clusters":
		c := map[string]any{"server": e.Server, "certificate-authority": e.CAFile}
		if e.TLSName != "" {
			c["tls-server-name"] = e.TLSName
		}
		return map[string]any{"cluster": c}
	case "contexts":
		return map[string]any{"context": map[string]any{"cluster": e.Name, "user": e.Name}}
	}
	env := []map[string]string{}
	for k, v := range e.Env {
		env = append(env, map[string]string{"name": k, "value": v})
	}
	exec := map[string]any{"apiVersion": "client.authentication.k8s.io/v1beta1", "command": e.Command, "args": e.Args, "interactiveMode": "IfAvailable", "provideClusterInfo": false}
	if len(env) > 0 {
		exec["env"] = env
	}
	return map[string]any{"user": map[string]any{"exec": exec}}
}

// lockWait is how long another program may hold a kubeconfig.
var lockWait = 5 * time.Second

// hold keeps others from changing a file between its being read and written, by the lock that kubectl takes too (k8s.io/client-go,
// clientcmd): a file beside it. Where none can be made the kubeconfig cannot be replaced either, and reading it needs none.
func hold(path string) (release func(), err error) {
	lock := path + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(lock, os.O_CREATE|os.O_EXCL, 0)
		if err == nil {
			f.Close()
			return func() { os.Remove(lock) }, nil
		}
		goes := runtime.GOOS == "windows" && errors.Is(err, fs.ErrPermission) // one that is being removed
		if !errors.Is(err, fs.ErrExist) && !goes {
			return func() {}, nil
		}
		if time.Now().After(end) {
			return nil, fault.New(fault.Unavailable, "the kubeconfig %s is being changed by somebody else", path).WithReason("kubeconfig_locked").
				WithFix("try again; if nobody does, remove %s", lock)
		}
	}
}

// edit reads a file, changes it and replaces it in one step.
func edit(path string, change func(root *yaml.Node) error) error {
	release, err := hold(path)
	if err != nil {
		return err
	}
	defer release()
	raw, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.Invalid, "the kubeconfig %s cannot be read", path).Wrapping(err)
	}
	var doc yaml.Node
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = []byte("apiVersion: v1\nkind: Config\npreferences: {}\n")
	}
	if err := yaml.Unmarshal(raw, &doc); err != nil || len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return fault.New(fault.Invalid, "the kubeconfig %s is no kubeconfig", path).WithReason("kubeconfig").WithFix("mend it, or set KUBECONFIG to another file")
	}
	before, err := yaml.Marshal(&doc)
	if err != nil {
		return err
	}
	if err := change(doc.Content[0]); err != nil {
		return err
	}
	after, err := yaml.Marshal(&doc)
	if err != nil || bytes.Equal(before, after) {
		return err
	}
	return replace(path, after)
}

func replace(path string, raw []byte) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".config-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(raw)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return os.Rename(f.Name(), path)
}

func scalar(v string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: v} }

func get(root *yaml.Node, key string) *yaml.Node {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			return root.Content[i+1]
		}
	}
	return nil
}

func set(root *yaml.Node, key string, v *yaml.Node) {
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			root.Content[i+1] = v
			return
		}
	}
	root.Content = append(root.Content, scalar(key), v)
}

// list are the items of a list; none where it is missing or null.
func list(root *yaml.Node, key string) []*yaml.Node {
	n := get(root, key)
	if n == nil || n.Kind != yaml.SequenceNode {
		return nil
	}
	return n.Content
}

func nameOf(item *yaml.Node) string {
	if n := get(item, "name"); n != nil && item.Kind == yaml.MappingNode {
		return n.Value
	}
	return ""
}

func putNamed(root *yaml.Node, kind, name string, v map[string]any) error {
	v["name"] = name
	var item yaml.Node
	if err := item.Encode(v); err != nil {
		return err
	}
	seq := get(root, kind)
	if seq == nil || seq.Kind != yaml.SequenceNode {
		seq = &yaml.Node{Kind: yaml.SequenceNode}
		set(root, kind, seq)
	}
	seq.Style = 0
	for i, old := range seq.Content {
		if nameOf(old) == name {
			seq.Content[i] = &item
			return nil
		}
	}
	seq.Content = append(seq.Content, &item)
	return nil
}

func removeNamed(root *yaml.Node, kind string, names []string) {
	if seq := get(root, kind); seq != nil && seq.Kind == yaml.SequenceNode {
		seq.Content = slices.DeleteFunc(seq.Content, func(n *yaml.Node) bool { return slices.Contains(names, nameOf(n)) })
	}
}
