//go:build linux

package tctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/tctl"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (w *world) file(name, text string) string {
	w.t.Helper()
	path := filepath.Join(w.t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// TestGuide plays the guide's edit of a user: get, a line more, create -f.
func TestGuide(t *testing.T) {
	w := newWorld(t)
	w.ok("users", "add", "myuser", "--roles=access,auditor,editor", "--logins=root,ubuntu")
	text := w.ok("get", "users/myuser")
	edited := strings.Replace(text, "    - editor\n", "    - editor\n    - require-trusted-device # add this line\n", 1)
	file := w.file("myuser.yaml", edited)
	w.fails(1, `user "myuser" already exists`, "create", file)
	if out := w.ok("create", "-f", file); out != "user \"myuser\" has been updated\n" {
		t.Error(out)
	}
	has(t, w.ok("get", "user/myuser"), "- require-trusted-device")
	r := w.fails(1, `user "myuser" was changed since it was read`, "create", "-f", file)
	has(t, r.err, "the file is of revision", "to fix: tctl get user/myuser")
}

func TestCreate(t *testing.T) {
	w := newWorld(t)
	doc := func(name string) string {
		return "kind: user\nversion: v2\nmetadata: {name: " + name + "}\nspec: {roles: [access]}\n"
	}
	if r := w.run(doc("a")+"---\n"+doc("b"), "create", "-"); r.code != 0 || r.out != "user \"a\" has been created\nuser \"b\" has been created\n" {
		t.Errorf("status %d\n%s%s", r.code, r.out, r.err)
	}
	if r := w.run(doc("c")+"---\n"+doc("a"), "create", "-"); r.code != 1 || r.out != "" {
		t.Errorf("one document exists: status %d\n%s%s", r.code, r.out, r.err)
	}
	w.fails(1, `user "c" not found`, "get", "user/c")
	if r := w.run(strings.Replace(doc("d"), "roles", "rolls", 1), "create", "-"); r.code != 1 || !strings.Contains(r.err, `line 4: spec: unknown field "rolls"`) {
		t.Errorf("status %d\n%s", r.code, r.err)
	}
	if r := w.run("kind: role\nversion: v7\nmetadata: {name: r}\nspec: {options: {require_session_mfa: true}}\n", "create", "-"); r.code != 1 || !strings.Contains(r.err, "is not enforced by this build") {
		t.Errorf("status %d\n%s", r.code, r.err)
	}
	if out := w.ok("rm", "user/a"); out != "user \"a\" has been removed\n" {
		t.Error(out)
	}
	w.fails(1, "cannot be removed", "rm", "cap")
}

func TestGet(t *testing.T) {
	w := newWorld(t)
	docs := strings.Split(w.ok("get", "roles", "cap"), "---\n")
	if len(docs) != 7 {
		t.Errorf("%d documents, want 7", len(docs))
	}
	if r := w.run("", "get", "locks"); r.out != "" || r.err != "No resources found\n" {
		t.Errorf("no resources: %q, %q", r.out, r.err)
	}
	var one map[string]any
	if err := json.Unmarshal([]byte(w.ok("get", "role/access", "--format=json")), &one); err != nil || one["kind"] != "role" {
		t.Error(err, one)
	}
	var many []map[string]any
	if err := json.Unmarshal([]byte(w.ok("get", "roles", "--format=json")), &many); err != nil || len(many) != 6 {
		t.Error(err, many)
	}
	has(t, w.ok("get", "roles", "--format=text"), "Kind Name                   Revision\n", "role access")
	w.fails(1, `role "nope" not found`, "get", "role/access", "role/nope")
}

// TestEdit runs an editor that is a script.
func TestEdit(t *testing.T) {
	w := newWorld(t)
	t.Setenv("TMPDIR", t.TempDir())
	edit := func(script string, args ...string) result {
		w.env["EDITOR"] = w.file("editor.sh", "#!/bin/sh\n"+script+"\n")
		return w.run("", append([]string{"edit"}, args...)...)
	}
	if r := edit(`:`, "role/access"); r.code != 0 || r.out != "role \"access\" was not changed\n" {
		t.Errorf("unchanged: status %d %s%s", r.code, r.out, r.err)
	}
	r := edit(`sed -i 's/^  options:$/  options:\n    device_trust_mode: "required" # add this line/' "$1"`, "role/access")
	if r.code != 0 || r.out != "role \"access\" has been updated\n" {
		t.Errorf("the guide's edit: status %d %s%s", r.code, r.out, r.err)
	}
	has(t, w.ok("get", "role/access"), "device_trust_mode: required")
	for _, c := range []struct{ name, script, says string }{
		{"unknown field", `sed -i 's/device_trust_mode/device_trust_mod/' "$1"`, `unknown field "device_trust_mod"`},
		{"changed meanwhile", `sed -i 's/revision: .*/revision: 1/; s/12h/11h/' "$1"`, "was changed since it was read"},
		{"renamed", `sed -i 's/name: access/name: other/' "$1"`, `an edit keeps to role "access"`},
		{"editor fails", `exit 3`, "exit status 3"},
	} {
		r := edit(c.script, "role/access")
		if r.code != 1 || !strings.Contains(r.err, c.says) {
			t.Errorf("%s: status %d\n%s%s", c.name, r.code, r.out, r.err)
		}
		kept := regexp.MustCompile(`the edit is kept in (\S+)`).FindStringSubmatch(r.err)
		if kept == nil {
			t.Errorf("%s: the edit is not kept:\n%s", c.name, r.err)
			continue
		}
		if info, err := os.Stat(kept[1]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v", c.name, err)
		}
		os.Remove(kept[1])
	}
	if r := edit(`sed -i '/revision:/d; s/12h/11h/' "$1"`, "role/access"); r.code != 0 {
		t.Errorf("without a revision: %s", r.err)
	}
	w.env["VISUAL"] = w.file("visual.sh", "#!/bin/sh\n[ \"$1\" = --wait ] && sed -i 's/11h/10h/' \"$2\"\n") + " --wait"
	if r := edit(`exit 1`, "role/access"); r.code != 0 {
		t.Errorf("$VISUAL with an argument: %s", r.err)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "tctl-role-*.yaml")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// TestMain makes of this program an editor, for TestEditRace: it takes the revision out, edits, and meanwhile another
// administrator edits too.
func TestMain(m *testing.M) {
	other, dir := os.Getenv("TEST_OTHER_EDIT"), os.Getenv("TEST_DATA_DIR")
	if other == "" {
		os.Exit(m.Run())
	}
	path := os.Args[len(os.Args)-1]
	raw, err := os.ReadFile(path)
	if err == nil {
		raw = regexp.MustCompile(`(?m)^  revision: .*\n`).ReplaceAll(raw, nil)
		err = os.WriteFile(path, bytes.Replace(raw, []byte("12h"), []byte("11h"), 1), 0o600)
	}
	if err != nil {
		os.Exit(3)
	}
	p := tool.Program{Streams: console.Standard()}
	os.Exit(tctl.Main(context.Background(), p, []string{"--data-dir", dir, "create", "-f", other}))
}

func TestEditRace(t *testing.T) {
	w := newWorld(t)
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TEST_DATA_DIR", w.dir)
	t.Setenv("TEST_OTHER_EDIT", w.file("other.yaml", strings.Replace(w.ok("get", "role/access"), "12h", "10h", 1)))
	w.env["EDITOR"] = os.Args[0]
	r := w.fails(1, `role "access" was changed since it was read`, "edit", "role/access")
	has(t, r.out, `role "access" has been updated`) // by the other one
	has(t, r.err, "the edit is kept in ")
	has(t, w.ok("get", "role/access"), "max_session_ttl: 10h")
}

// TestResourcesPage holds that each example of docs/protocol/resources.md is one that tctl create takes.
func TestResourcesPage(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocol/resources.md")
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(examples) != 5 {
		t.Fatalf("%d examples, want 5", len(examples))
	}
	for _, e := range examples {
		if r := w.run(string(e[1]), "create", "-f", "-"); r.code != 0 {
			t.Errorf("%s\n%s", e[1], r.err)
		}
	}
}
