package profile

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/fault"
)

func home(t *testing.T) *Home {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tsh")
	h, err := Open(func(string) string { return dir })
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// TestNamesStayInside saves profiles whose names would lead elsewhere, and looks where everything lies.
func TestNamesStayInside(t *testing.T) {
	for _, name := range []string{"example.com", "..", ".", "../../etc/passwd", "/etc/passwd", `..\..\x`, "a/../../b", "a\x00b", "", "current", "keys", "%2e%2e", "-rf"} {
		h := home(t)
		p := &Profile{Cluster: name, User: name, Proxy: "h:1"}
		for _, path := range []string{h.file(name), h.KeyFile(p), h.KnownHosts(p), h.DeviceDir(name), h.key(p, "-cert.pem")} {
			rel, err := filepath.Rel(h.Dir(), path)
			if err != nil || rel == ".." || strings.HasPrefix(rel, "../") || rel == "." || strings.Contains(path, "\x00") {
				t.Errorf("%q leads to %s", name, path)
			}
		}
		if err := h.Save(p); err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		got, err := h.Profile(name)
		if err != nil || got.Cluster != name {
			t.Errorf("%q: %+v %v", name, got, err)
		}
		if parent, err := os.ReadDir(filepath.Dir(h.Dir())); err != nil || len(parent) != 1 {
			t.Errorf("%q: beside TSH_HOME lies %v, %v", name, parent, err)
		}
	}
}

// TestDifferentNamesDifferentFiles: no two users' logins share a file.
func TestDifferentNamesDifferentFiles(t *testing.T) {
	h, seen := home(t), map[string]string{}
	for _, user := range []string{"a", "a-cert", "a.key", "A", "a%2Fb", "a/b", "_..", "..", "known_hosts", "", "%", "_", "a:b", "a%3Ab"} {
		p := &Profile{Cluster: "c", User: user}
		for _, suffix := range []string{".key", "-cert.pub", "-cert.pem", ".json"} {
			path := h.key(p, suffix)
			if other, ok := seen[path]; ok && other != user || path == h.KnownHosts(p) {
				t.Errorf("%q and %q share %s", user, other, path)
			}
			seen[path] = user
		}
	}
}

func TestModes(t *testing.T) {
	h := home(t)
	p := &Profile{Cluster: "example.com", User: "alice"}
	if err := h.Save(p); err != nil {
		t.Fatal(err)
	}
	if err := Write(h.KeyFile(p), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(h.KeyFile(p), 0o644); err != nil { // one that somebody loosened is made anew
		t.Fatal(err)
	}
	if err := Write(h.KeyFile(p), []byte("secret")); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(h.Dir(), func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := e.Info()
		want := fs.FileMode(0o600)
		if e.IsDir() {
			want = 0o700
		}
		if err == nil && st.Mode().Perm() != want {
			t.Errorf("%s has mode %v", path, st.Mode())
		}
		if strings.HasPrefix(e.Name(), ".new-") {
			t.Errorf("%s was left behind", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Logout(p); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(h.KeyFile(p)); !os.IsNotExist(err) {
		t.Fatal("the session key outlives a logout")
	}
	if _, err := h.Profile("example.com"); err != nil {
		t.Fatal("the profile does not outlive a logout")
	}
}

func TestDamaged(t *testing.T) {
	h := home(t)
	if _, err := h.Current(); !fault.Because(err, "no_profile") {
		t.Fatal(err)
	}
	if err := h.Save(&Profile{Cluster: "c"}); err != nil {
		t.Fatal(err)
	}
	if err := Write(h.file("c"), []byte("{")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Current(); !fault.Is(err, fault.Invalid) || fault.Of(err).Fix == "" {
		t.Fatal(err)
	}
}
