// Package console is what programs print to people and ask of them.
package console

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/manifest"
	"github.com/sallyport/sallyport/internal/recording/screen"
)

// Streams are a program's input and output. Interactive says that In is a terminal.
type Streams struct {
	In  io.Reader
	Out io.Writer
	Err io.Writer
	Env func(string) string
}

// Standard are the process's own.
func Standard() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Env: os.Getenv}
}

// Usage is an error of how a command was typed: exit status 2.
type Usage struct{ Err error }

// Error is the text.
func (u *Usage) Error() string { return u.Err.Error() }

// Unwrap gives what is wrapped.
func (u *Usage) Unwrap() error { return u.Err }

// Usagef makes a Usage.
func Usagef(format string, args ...any) error { return &Usage{fmt.Errorf(format, args...)} }

// Status is an error that is an exit status and nothing else: it was said already, or there is nothing to say.
type Status int

// Error is of error.
func (s Status) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// ExitCode is the status that a program ends with: 0 done, 1 refused or failed, 2 bad usage.
func ExitCode(err error) int {
	var s Status
	var u *Usage
	switch {
	case err == nil:
		return 0
	case errors.As(err, &s):
		return int(s)
	case errors.As(err, &u):
		return 2
	}
	return 1
}

// PrintError prints an error as people see it: one line `ERROR: …`, then indented the cause and the remedy. Control
// characters in it are made harmless. A Status prints nothing.
func PrintError(w io.Writer, err error) {
	var s Status
	if err == nil || errors.As(err, &s) {
		return
	}
	text := err.Error() // of several lines where the error was worded elsewhere
	var f *fault.Error
	if errors.As(err, &f) {
		text = f.Lines()
		if f.Kind == fault.Internal && f.Err != nil {
			text = f.Text + "\n  " + f.Err.Error()
		}
	} else if errors.Is(err, context.Canceled) {
		text = "interrupted"
	}
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = Safe(lines[i])
	}
	fmt.Fprintln(w, "ERROR: "+strings.Join(lines, "\n"))
}

// Safe makes what came from elsewhere fit for a terminal: control characters and invalid bytes become `\x1b` and the
// like, so that no escape reaches the terminal.
func Safe(s string) string {
	clean := func(r rune) bool { return r != utf8.RuneError && (unicode.IsPrint(r) || r == '\t') }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if clean(r) {
			b.WriteRune(r)
		} else {
			for _, c := range []byte(s[i : i+n]) {
				fmt.Fprintf(&b, "\\x%02x", c)
			}
		}
		i += n
	}
	return b.String()
}

// UTF8 reports whether the locale can show more than ASCII (POSIX: LC_ALL, then LC_CTYPE, then LANG).
func (s Streams) UTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := s.Env(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return false
}

// Tunnel is the arrow that stands for an agent's tunnel.
func (s Streams) Tunnel() string {
	if s.UTF8() {
		return "⟵ Tunnel"
	}
	return "<- Tunnel"
}

// Table prints columns: the header, a line of dashes, the rows. The last column is not padded.
func Table(w io.Writer, header []string, rows [][]string) {
	width := make([]int, len(header))
	for i, h := range header {
		width[i] = utf8.RuneCountInString(h)
	}
	for _, row := range rows {
		for i := range row {
			row[i] = Safe(row[i])
			width[i] = max(width[i], utf8.RuneCountInString(row[i]))
		}
	}
	line := func(cells []string) {
		var b strings.Builder
		for i, c := range cells {
			b.WriteString(c)
			if i < len(cells)-1 {
				b.WriteString(strings.Repeat(" ", width[i]-utf8.RuneCountInString(c)+1))
			}
		}
		fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
	}
	line(header)
	dashes := make([]string, len(header))
	for i := range dashes {
		dashes[i] = strings.Repeat("-", width[i])
	}
	line(dashes)
	for _, row := range rows {
		line(row)
	}
}

// Format is what --format says: text, json or yaml.
type Format string

// Print prints v as the format says; text is what it prints for people. A nil slice should be passed as an empty one.
func (f Format) Print(w io.Writer, v any, text func(io.Writer) error) error {
	switch f {
	case "", "text":
		return text(w)
	case "json":
		raw, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		_, err = w.Write(append(screen.JSON(raw), '\n'))
		return err
	case "yaml":
		raw, err := json.Marshal(v)
		if err != nil {
			return err
		}
		return manifest.WriteYAML(w, raw)
	}
	return Usagef("--format: %q is none of text, json, yaml", string(f))
}

// terminal is the file of In where it is a terminal.
func (s Streams) terminal() (*os.File, bool) {
	f, ok := s.In.(*os.File)
	return f, ok && term.IsTerminal(int(f.Fd()))
}

// Interactive reports whether a person sits at In.
func (s Streams) Interactive() bool {
	_, ok := s.terminal()
	return ok
}

// maxAnswer bounds an answer, in bytes.
const maxAnswer = 64 << 10

// Ask prints a question to Err and reads a line. From something that is no terminal it reads the next line.
func (s Streams) Ask(question string) (string, error) {
	fmt.Fprint(s.Err, question)
	f, ok := s.terminal()
	if !ok {
		line, err := readLine(s.In)
		fmt.Fprintln(s.Err)
		return line, err
	}
	return s.untilInterrupt(f, func() (string, error) { return readLine(f) })
}

// AskSecret is Ask without an echo.
func (s Streams) AskSecret(question string) (string, error) {
	f, ok := s.terminal()
	if !ok {
		return s.Ask(question)
	}
	fmt.Fprint(s.Err, question)
	answer, err := s.untilInterrupt(f, func() (string, error) {
		raw, err := term.ReadPassword(int(f.Fd()))
		return string(raw), err
	})
	if !errors.Is(err, context.Canceled) {
		fmt.Fprintln(s.Err)
	}
	return answer, err
}

// untilInterrupt reads an answer from a terminal, and gives up at the first Ctrl-C: a read cannot be cancelled, so it
// is left behind, and the terminal as it was before.
func (s Streams) untilInterrupt(f *os.File, read func() (string, error)) (string, error) {
	before, err := term.GetState(int(f.Fd()))
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	interrupt := make(chan os.Signal, 1)
	signal.Notify(interrupt, os.Interrupt)
	defer signal.Stop(interrupt)
	type answer struct {
		line string
		err  error
	}
	given := make(chan answer, 1)
	go func() {
		line, err := read()
		given <- answer{line, err}
	}()
	select {
	case a := <-given:
		return a.line, a.err
	case <-interrupt:
		fmt.Fprintln(s.Err)
		return "", errors.Join(context.Canceled, term.Restore(int(f.Fd()), before))
	}
}

// Interrupted is err, or where ctx was ended by a person, that alone: what broke after it is no news.
func Interrupted(ctx context.Context, err error) error {
	var s Status
	if err != nil && ctx.Err() != nil && !errors.As(err, &s) {
		return context.Canceled
	}
	return err
}

// readLine reads a line byte by byte, so that what follows it stays for whoever reads next.
func readLine(r io.Reader) (string, error) {
	if b, ok := r.(*bufio.Reader); ok {
		line, err := b.ReadString('\n')
		if err != nil && line == "" {
			return "", noAnswer(err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var line []byte
	var one [1]byte
	for len(line) < maxAnswer {
		n, err := r.Read(one[:])
		if n == 1 {
			if one[0] == '\n' {
				return strings.TrimRight(string(line), "\r"), nil
			}
			line = append(line, one[0])
			continue
		}
		if err != nil {
			if len(line) > 0 {
				return strings.TrimRight(string(line), "\r"), nil
			}
			return "", noAnswer(err)
		}
	}
	return "", fault.New(fault.Invalid, "the answer is too long")
}

func noAnswer(err error) error {
	return fault.New(fault.Invalid, "a question was left without an answer").WithReason("no_answer").
		WithCause("standard input is at its end").WithFix("run the command in a terminal, or give the answer on standard input").Wrapping(err)
}

// Confirm asks a yes-or-no question; nothing but yes is yes.
func (s Streams) Confirm(question string) (bool, error) {
	a, err := s.Ask(question + " [y/N] ")
	a = strings.ToLower(strings.TrimSpace(a))
	return a == "y" || a == "yes", err
}

// Version is the version line of all three programs.
func Version() string {
	v := strings.TrimPrefix(runtime.Version(), "go")
	if parts := strings.SplitN(v, ".", 3); len(parts) == 3 {
		v = parts[0] + "." + parts[1]
	}
	return fmt.Sprintf("Sallyport v%s go%s", cluster.Version, v)
}
