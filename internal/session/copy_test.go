//go:build linux

package session

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
)

func itoa(n int) string { return strconv.Itoa(n) }

func webServer(t *testing.T) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "the page") }))
	t.Cleanup(s.Close)
	return strings.TrimPrefix(s.URL, "http://")
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
		t.Fatal(err)
	}
}

func holds(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	b, err := os.ReadFile(path)
	st, _ := os.Stat(path)
	if err != nil || string(b) != text || st.Mode() != mode {
		t.Errorf("%s: %v, %.20q, %v", path, err, b, st)
	}
}

// TestCopy copies to and from OpenSSH's server.
func TestCopy(t *testing.T) {
	c := sshd(t)
	here, there := t.TempDir(), t.TempDir()
	big := strings.Repeat("sallyport ", 1<<18)
	old := time.Unix(1_500_000_000, 0)
	write(t, here+"/tree/a.txt", "a", 0o644)
	write(t, here+"/tree/sub/run", "#!", 0o755)
	write(t, here+"/tree/sub/private", big, 0o600)
	write(t, here+"/setuid", "s", 0o755|os.ModeSetuid)
	if err := errors.Join(os.Chtimes(here+"/tree/a.txt", old, old), os.Symlink("a.txt", here+"/tree/link")); err != nil {
		t.Fatal(err)
	}
	run := func(job Copy) []string {
		t.Helper()
		var failed []string
		err := c.Copy(context.Background(), job, func(err error) { failed = append(failed, err.Error()) })
		if (err != nil) != (len(failed) > 0) {
			t.Errorf("%v and %q", err, failed)
		}
		return failed
	}
	if f := run(Copy{Upload: true, Recursive: true, Preserve: true, Sources: []string{here + "/tree"}, Destination: there}); f != nil {
		t.Error(f)
	}
	holds(t, there+"/tree/sub/private", big, 0o600)
	holds(t, there+"/tree/sub/run", "#!", 0o755)
	holds(t, there+"/tree/link", "a", 0o644)
	if st, _ := os.Stat(there + "/tree/a.txt"); !st.ModTime().Equal(old) {
		t.Error(st.ModTime())
	}
	if f := run(Copy{Upload: true, Sources: []string{here + "/tree/sub/private", here + "/setuid", here + "/none", here + "/tree"}, Destination: there}); len(f) != 2 ||
		!strings.Contains(f[0], "none: ") || !strings.Contains(f[1], "is a directory") {
		t.Error(f)
	}
	holds(t, there+"/private", big, 0o600)
	holds(t, there+"/setuid", "s", 0o755)
	back := t.TempDir()
	if f := run(Copy{Recursive: true, Preserve: true, Sources: []string{there + "/tree"}, Destination: back + "/new"}); f != nil {
		t.Error(f)
	}
	holds(t, back+"/new/sub/private", big, 0o600)
	holds(t, back+"/new/link", "a", 0o644)
	if f := run(Copy{Sources: []string{there + "/tree/*.txt", there + "/tree/nothing*", there + "/tree/sub"}, Destination: back}); len(f) != 2 {
		t.Error(f)
	}
	holds(t, back+"/a.txt", "a", 0o644)
	if f := run(Copy{Sources: []string{there + "/private"}, Destination: back + "/name"}); f != nil {
		t.Error(f)
	}
	holds(t, back+"/name", big, 0o600)
	if f := run(Copy{Sources: []string{there + "/private", there + "/setuid"}, Destination: back + "/name"}); len(f) != 1 {
		t.Error(f)
	}
	if f := run(Copy{Recursive: true, Sources: []string{there + "/tree/."}, Destination: back}); f != nil {
		t.Error(f)
	}
	holds(t, back+"/tree/a.txt", "a", 0o644)
}

// evil serves listings with names of its choice; every file holds "evil".
type evil struct{ names []string }

type fileInfo struct {
	name string
	mode os.FileMode
}

func (f fileInfo) Name() string       { return f.name }
func (f fileInfo) Size() int64        { return 4 }
func (f fileInfo) Mode() os.FileMode  { return f.mode }
func (f fileInfo) ModTime() time.Time { return time.Unix(0, 0) }
func (f fileInfo) IsDir() bool        { return f.mode.IsDir() }
func (f fileInfo) Sys() any           { return nil }

type listing []os.FileInfo

func (l listing) ListAt(out []os.FileInfo, at int64) (int, error) {
	if at >= int64(len(l)) {
		return 0, io.EOF
	}
	n := copy(out, l[at:])
	return n, nil
}

func (e evil) Fileread(*sftp.Request) (io.ReaderAt, error) { return strings.NewReader("evil"), nil }

func (e evil) Filelist(r *sftp.Request) (sftp.ListerAt, error) {
	if r.Method == "List" {
		var l listing
		for _, n := range e.names {
			l = append(l, fileInfo{n, 0o777 | os.ModeSetuid})
		}
		return l, nil
	}
	if strings.HasSuffix(r.Filepath, "dir") || strings.HasSuffix(r.Filepath, "folder") {
		return listing{fileInfo{"x", os.ModeDir | 0o755}}, nil
	}
	return listing{fileInfo{"x", 0o777 | os.ModeSetuid}}, nil
}

func (e evil) RealPath(string) (string, error) { return "/..", nil }

func (e evil) serve(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
	for ch := range channels {
		channel, requests, err := ch.Accept()
		if err != nil {
			return
		}
		go func() {
			for r := range requests {
				_ = r.Reply(r.Type == "subsystem", nil)
			}
		}()
		_ = sftp.NewRequestServer(channel, sftp.Handlers{FileGet: e, FileList: e}).Serve()
		channel.Close()
	}
}

// TestA29 downloads from a node that names files outside of the destination.
func TestA29(t *testing.T) {
	outer := t.TempDir()
	dst := filepath.Join(outer, "dst")
	write(t, outer+"/victim", "mine", 0o600)
	write(t, dst+"/keep", "", 0o600)
	if err := errors.Join(os.Symlink(outer, dst+"/planted"), os.Mkdir(dst+"/dir", 0o755), os.Symlink("../../victim", dst+"/dir/link")); err != nil {
		t.Fatal(err)
	}
	c := stand(t, evil{[]string{"good", "../victim", "..", ".", "", "/victim", "a/../../victim", "dir/../../victim", "link", "nul\x00", "planted"}}.serve)
	var failed []string
	err := c.Copy(context.Background(), Copy{Recursive: true, Sources: []string{"dir"}, Destination: dst}, func(err error) { failed = append(failed, err.Error()) })
	if err == nil {
		t.Error("all went well")
	}
	holds(t, outer+"/victim", "mine", 0o600)
	holds(t, dst+"/dir/good", "evil", 0o755)
	if entries, _ := os.ReadDir(outer); len(entries) != 2 {
		t.Error(entries)
	}
	if len(failed) < 3 {
		t.Errorf("failed: %q", failed)
	}
	for _, f := range failed {
		if strings.ContainsAny(f, "\x00\x1b") {
			t.Errorf("%q would reach the terminal", f)
		}
	}
	// The same one folder up: a link in the destination is not followed out of it.
	if err := c.Copy(context.Background(), Copy{Recursive: true, Sources: []string{"x/planted"}, Destination: dst}, func(error) {}); err == nil {
		t.Error("a planted link was written through")
	}
	for _, from := range []string{"..", "."} {
		if err := c.Copy(context.Background(), Copy{Recursive: true, Sources: []string{from}, Destination: dst}, func(error) {}); err == nil {
			t.Errorf("%s was copied as what the node says it is", from)
		}
	}
	holds(t, outer+"/victim", "mine", 0o600)
}

// TestCopyCut ends the connection in the middle, with a reason.
func TestCopyCut(t *testing.T) {
	c := stand(t, func(_ *ssh.ServerConn, channels <-chan ssh.NewChannel) {
		channel, requests, err := (<-channels).Accept()
		if err != nil {
			return
		}
		_ = (<-requests).Reply(true, nil)
		_, _ = io.WriteString(channel.Stderr(), "lock in force\n")
		_, _ = io.ReadFull(channel, make([]byte, 9))
	})
	err := c.Copy(context.Background(), Copy{Sources: []string{"x"}, Destination: t.TempDir()}, func(err error) { t.Error(err) })
	var cut *Cut
	if !errors.As(err, &cut) || cut.Lines != "lock in force" {
		t.Error(err)
	}
}

func TestParseLocation(t *testing.T) {
	for _, c := range []struct {
		in     string
		drives bool
		want   Location
	}{
		{"file", false, Location{Path: "file"}}, {"host:file", false, Location{"", "host", "file"}}, {"u@host:/a:b", false, Location{"u", "host", "/a:b"}},
		{"host:", false, Location{"", "host", ""}}, {"./a:b", false, Location{Path: "./a:b"}}, {"/a:b", false, Location{Path: "/a:b"}}, {":x", false, Location{Path: ":x"}},
		{"a@b@host:x", false, Location{"a@b", "host", "x"}}, {"[::1]:x", false, Location{"", "::1", "x"}}, {"u@[::1]:x", false, Location{"u", "::1", "x"}},
		{"[::1", false, Location{Path: "[::1"}}, {`C:\x`, true, Location{Path: `C:\x`}}, {"C:x", false, Location{"", "C", "x"}}, {"u@:x", false, Location{Path: "u@:x"}},
	} {
		if got := parseLocation(c.in, c.drives); got != c.want {
			t.Errorf("%q: %+v", c.in, got)
		}
	}
}
