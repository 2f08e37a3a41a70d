// Package transfer copies files between this machine and one that serves SFTP, as scp does.
package transfer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/pkg/sftp"
)

// Job is one copy: sources into a destination. All sources are here and the destination there (Upload), or the other
// way. Names there are relative to the login's home, and sources there may hold wildcards.
type Job struct {
	Sources     []string
	Destination string
	Upload      bool
	Recursive   bool
	Preserve    bool
}

// maxDepth bounds the folders in folders that are copied: links may lead in circles.
const maxDepth = 100

// transfer is a running Job.
type transfer struct {
	Job
	ctx    context.Context
	sftp   *sftp.Client
	report func(error)
	first  error
}

// Run copies. It goes on after a file that fails, tells report of each, and returns the first failure. What the node
// names never lands outside the destination, and never with setuid or setgid. Of a connection that is lost the error
// is sftp.ErrSSHFxConnectionLost, and report is not told.
func Run(ctx context.Context, client *sftp.Client, job Job, report func(error)) error {
	t := &transfer{Job: job, ctx: ctx, sftp: client, report: report}
	if job.Upload {
		t.upload()
	} else {
		t.download()
	}
	return t.first
}

// fail notes a failure and goes on.
func (t *transfer) fail(name string, err error) {
	err = fmt.Errorf("%s: %w", name, err)
	if t.first == nil {
		t.first = err
	}
	if t.ctx.Err() == nil && !errors.Is(err, sftp.ErrSSHFxConnectionLost) {
		t.report(err)
	}
}

// over reports whether there is no sense in going on.
func (t *transfer) over() bool {
	return t.ctx.Err() != nil || errors.Is(t.first, sftp.ErrSSHFxConnectionLost)
}

var (
	errFolder    = errors.New("is a directory (copy it with -r)")
	errNoRegular = errors.New("not a regular file")
	errTooDeep   = errors.New("directories in directories without end")
	errNoFolder  = errors.New("is not a directory")
)

// there is a name at the node: empty and ~ are the login's home.
func there(name string) string {
	switch {
	case name == "" || name == "~":
		return "."
	case strings.HasPrefix(name, "~/"):
		return path.Clean(strings.TrimLeft(name[2:], "/") + "/.")
	}
	return name
}

func (t *transfer) upload() {
	to := there(t.Destination)
	st, err := t.sftp.Stat(to)
	folder := err == nil && st.IsDir()
	if !folder && (len(t.Sources) > 1 || strings.HasSuffix(to, "/")) {
		t.fail(t.Destination, errNoFolder)
		return
	}
	for _, from := range t.Sources {
		if t.over() {
			return
		}
		name := to
		if folder {
			base := filepath.Base(from)
			if abs, err := filepath.Abs(from); err == nil {
				base = filepath.Base(abs) // of . and ..
			}
			name = path.Join(to, base)
		}
		t.send(from, name, 0)
	}
}

// send copies one thing to the node, following links as scp does.
func (t *transfer) send(from, to string, depth int) {
	st, err := os.Stat(from)
	switch {
	case err != nil:
	case st.IsDir() && !t.Recursive:
		err = errFolder
	case st.IsDir():
		err = t.sendFolder(from, to, st, depth)
	case !st.Mode().IsRegular():
		err = errNoRegular
	default:
		err = t.sendFile(from, to)
	}
	if err != nil {
		t.fail(from, err)
	}
}

func (t *transfer) sendFolder(from, to string, st os.FileInfo, depth int) error {
	if depth >= maxDepth {
		return errTooDeep
	}
	if have, err := t.sftp.Stat(to); err != nil {
		if err := t.sftp.Mkdir(to); err != nil {
			return err
		}
	} else if !have.IsDir() {
		return errNoFolder
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if t.over() {
			return nil
		}
		t.send(filepath.Join(from, e.Name()), path.Join(to, e.Name()), depth+1)
	}
	if !t.Preserve {
		return nil
	}
	return errors.Join(t.sftp.Chmod(to, st.Mode().Perm()), t.sftp.Chtimes(to, st.ModTime(), st.ModTime()))
}

func (t *transfer) sendFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return err
	}
	_, missing := t.sftp.Stat(to)
	out, err := t.sftp.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	defer out.Close()
	perm := st.Mode().Perm()
	if missing != nil && !t.Preserve {
		// The node's mask has had its say on a new file; ours adds who may execute and takes away who may not read.
		if made, err := out.Stat(); err == nil {
			given := made.Mode().Perm()
			perm &= given | (given&0o444)>>2
		}
	}
	if missing != nil || t.Preserve {
		if err := out.Chmod(perm); err != nil {
			return err
		}
	}
	if _, err := out.ReadFrom(in); err != nil {
		return err
	}
	if err := out.Close(); err != nil || !t.Preserve {
		return err
	}
	return t.sftp.Chtimes(to, st.ModTime(), st.ModTime())
}
