package kubeconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

const theirs = `# mine
apiVersion: v1
kind: Config
current-context: other
clusters:
  - name: other # the old one
    cluster: {server: "https://127.0.0.1:1", extra: kept}
users:
  - {name: other, user: {exec: {command: aws, args: [eks, get-token]}}}
contexts:
  - {name: other, context: {cluster: other, user: other, namespace: x}}
extensions: [{name: e}]
`

func entry(name string) Entry {
	return Entry{Name: "example.com-" + name, Server: "https://127.0.0.1:4711", CAFile: "/h/ca.pem", Command: "/usr/local/bin/tsh",
		Args: []string{"kube", "credentials", "--kube-cluster=" + name, "--proxy=p:3080"}, Env: map[string]string{"TSH_HOME": "/h"}}
}

// TestOthersStay puts, replaces and removes entries of ours, and looks that everything else is as it was.
func TestOthersStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(theirs), 0o640); err != nil {
		t.Fatal(err)
	}
	again := entry("dev")
	again.Server = "https://127.0.0.1:4712"
	for _, e := range []Entry{entry("dev"), entry("prod"), again} {
		if err := Put(path, e); err != nil {
			t.Fatal(err)
		}
	}
	raw, _ := os.ReadFile(path)
	text := string(raw)
	for want, n := range map[string]int{"# mine": 1, "# the old one": 1, "extra: kept": 1, "namespace: x": 1, "extensions": 1, "127.0.0.1:4711": 1, "127.0.0.1:4712": 1, "current-context: example.com-dev": 1, "get-token": 1} {
		if strings.Count(text, want) != n {
			t.Errorf("%q is there %d times, not %d:\n%s", want, strings.Count(text, want), n, text)
		}
	}
	if st, _ := os.Stat(path); st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", st.Mode())
	}
	if err := Remove(path, Ours("p:3080", "dev")); err != nil {
		t.Fatal(err)
	}
	raw, _ = os.ReadFile(path)
	if text = string(raw); strings.Contains(text, "4712") || !strings.Contains(text, "4711") || strings.Contains(text, "current-context: example.com-dev") {
		t.Errorf("one removed:\n%s", text)
	}
	if err := Remove(path, Ours("elsewhere:3080", "")); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path, Ours("p:3080", "")); err != nil {
		t.Fatal(err)
	}
	raw, _ = os.ReadFile(path)
	var was, is map[string]any
	if yaml.Unmarshal([]byte(theirs), &was) != nil || yaml.Unmarshal(raw, &is) != nil {
		t.Fatal("no YAML")
	}
	delete(was, "current-context")
	delete(is, "current-context")
	a, _ := yaml.Marshal(was)
	b, _ := yaml.Marshal(is)
	if string(a) != string(b) {
		t.Errorf("what is left:\n%s\nwas:\n%s", b, a)
	}
}

// TestOdd: a file that is not there is made, an empty one filled, and one that is no kubeconfig left alone.
func TestOdd(t *testing.T) {
	dir := t.TempDir()
	fresh := filepath.Join(dir, "sub", "config")
	if err := Put(fresh, entry("dev")); err != nil {
		t.Fatal(err)
	}
	if raw, _ := os.ReadFile(fresh); !strings.Contains(string(raw), "client.authentication.k8s.io/v1beta1") {
		t.Errorf("%s", raw)
	}
	if err := Remove(filepath.Join(dir, "nothing"), Ours("p:3080", "")); err != nil {
		t.Error(err)
	}
	for name, text := range map[string]string{"a list": "- a\n", "no YAML": "{", "text": "hello"} {
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Put(path, entry("dev")); err == nil {
			t.Errorf("%s is taken", name)
		}
		if raw, _ := os.ReadFile(path); string(raw) != text {
			t.Errorf("%s was changed to %q", name, raw)
		}
	}
	null := filepath.Join(dir, "null")
	if err := os.WriteFile(null, []byte("apiVersion: v1\nkind: Config\nclusters: null\nusers: []\ncontexts:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(null, link); err != nil {
		t.Fatal(err)
	}
	if err := Put(link, entry("dev")); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Lstat(link); err != nil || st.Mode()&os.ModeSymlink == 0 {
		t.Error("the link was replaced by a file")
	}
	if raw, _ := os.ReadFile(null); !strings.Contains(string(raw), "example.com-dev") {
		t.Errorf("%s", raw)
	}
}

// TestTogether: of many who log in at once none takes another's entry away, and a lock that kubectl holds is waited for, not
// for ever.
func TestTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a place", "config")
	const many = 16
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			if err := Put(path, entry(fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i := range many {
		if !strings.Contains(string(raw), fmt.Sprintf("--kube-cluster=%d\n", i)) {
			t.Errorf("entry %d is gone", i)
		}
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*")); err != nil || len(left) != 1 {
		t.Errorf("%q is left, %v", left, err)
	}
	if err := os.WriteFile(path+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	was := lockWait
	lockWait = 50 * time.Millisecond
	defer func() { lockWait = was }()
	if err := Put(path, entry("late")); err == nil || !strings.Contains(err.Error(), "being changed") {
		t.Errorf("%v", err)
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(raw) {
		t.Error("it was changed under a lock")
	}
}
