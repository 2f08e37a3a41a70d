package resource

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

func (t commands) edit() *cobra.Command {
	return tool.Command("edit KIND/NAME", "Edit a resource in $VISUAL or $EDITOR", "tctl edit role/access", 1, func(ctx context.Context, args []string) error {
		kind, name, err := manifest.ParseRef(args[0])
		if err != nil {
			return err
		}
		if name == "" {
			return console.Usagef("name what to edit: tctl edit %s/NAME", kind)
		}
		return t.editOne(ctx, kind, name)
	})
}

func (t commands) editOne(ctx context.Context, kind manifest.Kind, name string) error {
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	before, err := c.Get(ctx, kind, name)
	if err != nil {
		return err
	}
	raw, err := before.JSON()
	if err != nil {
		return err
	}
	var text bytes.Buffer
	if err := manifest.WriteYAML(&text, raw); err != nil {
		return err
	}
	path, edited, err := t.editor(ctx, kind, string(kind)+"/"+name, text.Bytes())
	if err != nil {
		return err
	}
	if bytes.Equal(bytes.TrimSpace(edited), bytes.TrimSpace(text.Bytes())) {
		fmt.Fprintf(t.Out, "%s %q was not changed\n", kind, name)
		return os.Remove(path)
	}
	after, err := sameResource(edited, before)
	if err != nil {
		return kept(err, path)
	}
	written, err := c.Write(ctx, []*manifest.Resource{after}, true)
	if err != nil {
		return kept(err, path)
	}
	t.sayWritten(written)
	return os.Remove(path)
}

// sameResource reads an edit, which must be of the resource that was read.
func sameResource(edited []byte, before *manifest.Resource) (*manifest.Resource, error) {
	list, err := manifest.Parse(bytes.NewReader(edited))
	if err != nil {
		return nil, err
	}
	after := list[0]
	if len(list) != 1 || after.Kind != before.Kind || after.Metadata.Name != before.Metadata.Name {
		return nil, fault.New(fault.Invalid, "an edit keeps to %s %q", before.Kind, before.Metadata.Name).WithReason("renamed").
			WithCause("kind and metadata.name stay, and no document is added").WithFix("tctl create FILE")
	}
	if after.Metadata.Revision == 0 {
		after.Metadata.Revision = before.Metadata.Revision
	}
	return after, nil
}

// kept says where a refused edit is.
func kept(err error, path string) error {
	f := *fault.Of(err)
	if f.Kind == fault.Internal && f.Err != nil {
		f.Text, f.Kind = f.Err.Error(), fault.Unavailable
	}
	where := "the edit is kept in " + path
	if f.Cause != "" {
		where = f.Cause + "\n  " + where
	}
	return f.WithCause("%s", where)
}

// editor opens an editor on the text and returns what became of it, and the file that holds it.
func (t commands) editor(ctx context.Context, kind manifest.Kind, ref string, text []byte) (string, []byte, error) {
	f, err := os.CreateTemp("", "tctl-"+string(kind)+"-*.yaml")
	if err != nil {
		return "", nil, err
	}
	if _, err = f.Write(text); err == nil {
		err = f.Close()
	}
	if err != nil {
		os.Remove(f.Name())
		return "", nil, err
	}
	argv := t.editorCommand()
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], f.Name())...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = t.In, t.Out, t.Err
	if err := cmd.Run(); err != nil {
		return "", nil, kept(fault.New(fault.Unavailable, "the editor %q failed: %v", argv[0], innermost(err)).WithFix("EDITOR=vi tctl edit %s", ref), f.Name())
	}
	edited, err := os.ReadFile(f.Name())
	return f.Name(), edited, err
}

// innermost is what the system said of a program that did not start; of one that failed, its exit status.
func innermost(err error) error {
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		return path.Err
	}
	return err
}

// editorCommand is $VISUAL, $EDITOR, else vi (notepad on Windows), with arguments where it has any.
func (t commands) editorCommand() []string {
	editor := tool.Or(t.Env("VISUAL"), t.Env("EDITOR"))
	if strings.TrimSpace(editor) == "" {
		if runtime.GOOS == "windows" {
			return []string{"notepad"}
		}
		return []string{"vi"}
	}
	if _, err := exec.LookPath(editor); err == nil {
		return []string{editor}
	}
	return strings.Fields(editor)
}
