package request

import (
	"net/url"
	"strconv"
	"strings"
)

// Options are what the query of exec or attach says (core/v1, PodExecOptions and PodAttachOptions), read as the server reads
// it: of what is said twice the first counts, but for command, whose values are its arguments.
type Options struct {
	Container                  string
	Command                    []string // of exec
	Stdin, Stdout, Stderr, TTY bool
}

// ReadOptions reads them.
func ReadOptions(query url.Values) Options {
	return Options{Container: query.Get("container"), Command: query["command"],
		Stdin: truth(query["stdin"]), Stdout: truth(query["stdout"]), Stderr: truth(query["stderr"]), TTY: truth(query["tty"])}
}

// truth is a parameter's as k8s.io/apimachinery reads it (runtime.Convert_Slice_string_To_bool): all is true but what is not
// there, 0 and false.
func truth(values []string) bool {
	return len(values) > 0 && values[0] != "0" && !strings.EqualFold(values[0], "false")
}

// Query is the query to send on: what was read and nothing else, so that nothing in it can be read in another way.
func (o Options) Query() string {
	q := url.Values{}
	if o.Container != "" {
		q.Set("container", o.Container)
	}
	if len(o.Command) > 0 {
		q["command"] = o.Command
	}
	for name, is := range map[string]bool{"stdin": o.Stdin, "stdout": o.Stdout, "stderr": o.Stderr, "tty": o.TTY} {
		q.Set(name, strconv.FormatBool(is))
	}
	return q.Encode()
}

// plain are the letters of an argument that stands for itself.
const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=,@%+"

// Line is the command as one printable line, its arguments quoted where they are not plain.
func (o Options) Line() string {
	var b strings.Builder
	for i, arg := range o.Command {
		if i > 0 {
			b.WriteByte(' ')
		}
		if arg != "" && strings.Trim(arg, plain) == "" {
			b.WriteString(arg)
		} else {
			b.WriteString(strconv.Quote(arg))
		}
	}
	return b.String()
}
