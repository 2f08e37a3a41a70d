package transfer

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// place is where a copy lands: a folder that nothing of it leaves, or the one file that was typed.
type place struct {
	root *os.Root // nil for the one file
	file string
}

func (p place) create(name string, perm os.FileMode) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	if p.root == nil {
		return os.OpenFile(p.file, flags, perm)
	}
	return p.root.OpenFile(name, flags, perm)
}

func (t *transfer) download() {
	var sources []string
	for _, s := range t.Sources {
		found := []string{there(s)}
		if strings.ContainsAny(s, "*?[") {
			var err error
			if found, err = t.sftp.Glob(there(s)); err == nil && len(found) == 0 {
				err = os.ErrNotExist
			}
			if err != nil {
				t.fail(s, err)
				continue
			}
		}
		sources = append(sources, found...)
	}
	st, err := os.Stat(t.Destination)
	folder := err == nil && st.IsDir()
	if !folder && (len(sources) > 1 || strings.HasSuffix(t.Destination, string(filepath.Separator))) {
		t.fail(t.Destination, errNoFolder)
		return
	}
	for _, from := range sources {
		if t.over() {
			return
		}
		if err := t.fetch(from, folder); err != nil {
			t.fail(from, err)
		}
	}
}

// fetch copies one source from the node into the destination.
func (t *transfer) fetch(from string, folder bool) error {
	st, err := t.sftp.Stat(from)
	if err != nil {
		return err
	}
	if st.IsDir() && !t.Recursive {
		return errFolder
	}
	if !folder && !st.IsDir() {
		return t.fetchFile(from, place{file: t.Destination}, "", st)
	}
	into, name := t.Destination, ""
	if folder {
		if name, err = t.baseOf(from); err != nil {
			return err
		}
	} else if err := os.Mkdir(into, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(into)
	if err != nil {
		return err
	}
	defer root.Close()
	if name == "" {
		return t.fetchFolder(from, root, ".", 0)
	}
	return t.fetchInto(from, root, name, st, 0)
}

// baseOf is the last part of a source's name; of . and .. the node says what they are, which is looked at as all that
// it says.
func (t *transfer) baseOf(from string) (string, error) {
	name := path.Base(from)
	if name == "." || name == ".." {
		full, err := t.sftp.RealPath(from)
		if err != nil {
			return "", err
		}
		name = path.Base(full)
	}
	return name, checkName(name)
}

func (t *transfer) fetchInto(from string, root *os.Root, name string, st os.FileInfo, depth int) error {
	switch {
	case st.IsDir() && !t.Recursive:
		return errFolder
	case st.IsDir():
		if err := root.Mkdir(name, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return t.fetchFolder(from, root, name, depth)
	case !st.Mode().IsRegular():
		return errNoRegular
	}
	return t.fetchFile(from, place{root: root}, name, st)
}

func (t *transfer) fetchFolder(from string, root *os.Root, name string, depth int) error {
	if depth >= maxDepth {
		return errTooDeep
	}
	entries, err := t.sftp.ReadDirContext(t.ctx, from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if t.over() {
			return nil
		}
		err := checkName(e.Name())
		st := e
		if err == nil && e.Mode()&os.ModeSymlink != 0 {
			st, err = t.sftp.Stat(path.Join(from, e.Name()))
		}
		if err == nil {
			err = t.fetchInto(path.Join(from, e.Name()), root, filepath.Join(name, e.Name()), st, depth+1)
		}
		if err != nil {
			t.fail(fmt.Sprintf("%s/%q", from, e.Name()), err)
		}
	}
	if !t.Preserve {
		return nil
	}
	st, err := t.sftp.Stat(from)
	if err != nil {
		return err
	}
	return errors.Join(root.Chmod(name, st.Mode().Perm()|0o700), root.Chtimes(name, st.ModTime(), st.ModTime()))
}

func (t *transfer) fetchFile(from string, to place, name string, st os.FileInfo) error {
	if !st.Mode().IsRegular() {
		return errNoRegular
	}
	in, err := t.sftp.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := to.create(name, st.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	defer out.Close()
	if _, err := in.WriteTo(out); err != nil {
		return err
	}
	if t.Preserve {
		if err := out.Chmod(st.Mode().Perm()); err != nil && runtime.GOOS != "windows" {
			return err
		}
	}
	if err := out.Close(); err != nil || !t.Preserve {
		return err
	}
	if to.root == nil {
		return os.Chtimes(to.file, st.ModTime(), st.ModTime())
	}
	return to.root.Chtimes(name, st.ModTime(), st.ModTime())
}

var errName = errors.New("the node sent a name that is no name of one file")

// checkName takes a name of one file and nothing that leads elsewhere, on this system.
func checkName(name string) error { return checkNameOn(name, runtime.GOOS == "windows") }

func checkNameOn(name string, windows bool) error {
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return errName
	}
	if windows && strings.ContainsAny(name, `\:`) || !filepath.IsLocal(name) {
		return errName
	}
	return nil
}
