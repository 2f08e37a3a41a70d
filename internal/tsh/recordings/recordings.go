// Package recordings is tsh's commands for session recordings.
package recordings

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/sallyport/sallyport/internal/client/recordings"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/player"
	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/session"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

type commands struct{ *tool.Tool }

// Commands are `tsh recordings` and `tsh play`.
func Commands(t *tool.Tool) []*cobra.Command {
	a := commands{t}
	return []*cobra.Command{console.Group("recordings", "Session recordings", "tsh recordings ls --user=alice --from=24h", a.lsCommand()), a.playCommand()}
}

type lsFlags struct {
	user, from, to string
	limit          int
	format         console.Format
}

func (a commands) lsCommand() *cobra.Command {
	var f lsFlags
	c := &cobra.Command{Use: "ls", Short: "List the recordings that you may see, the newest first", Args: tool.Exactly(0),
		Example: "  tsh recordings ls\n  tsh recordings ls --user=alice --from=24h --format=json",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.ls(cmd.Context(), f) }}
	c.Flags().StringVar(&f.user, "user", "", "those of one user")
	c.Flags().StringVar(&f.from, "from", "", "those that began since then: 2006-01-02, 2006-01-02T15:04:05Z, or 24h for a day ago")
	c.Flags().StringVar(&f.to, "to", "", "those that began before")
	c.Flags().IntVar(&f.limit, "limit", 100, "how many at most; 0 for all")
	c.Flags().StringVar((*string)(&f.format), "format", "text", "text, json or yaml")
	return c
}

func (a commands) ls(ctx context.Context, f lsFlags) error {
	q := recording.Query{User: f.user}
	var err error
	if q.From, q.To, err = console.Span(f.from, f.to, a.Now()); err != nil {
		return err
	}
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	c := s.Call()
	defer c.Close()
	list, more, err := page(ctx, recordings.New(c), q, f.limit)
	if err != nil {
		return err
	}
	err = f.format.Print(a.Out, list, func(w io.Writer) error {
		if len(list) == 0 {
			_, err := fmt.Fprintln(w, "No recordings")
			return err
		}
		table(w, list)
		return nil
	})
	if more && err == nil {
		fmt.Fprintf(a.Err, "There are more; to see them: --limit=0, or --to=%s\n", list[len(list)-1].Time.UTC().Format(time.RFC3339))
	}
	return err
}

// page is what of a list is to be shown, and whether there is more.
func page(ctx context.Context, r *recordings.Recordings, q recording.Query, limit int) (list []recording.Entry, more bool, err error) {
	list = []recording.Entry{}
	for next := ""; ; {
		var some []recording.Entry
		if some, next, err = r.List(ctx, q, next); err != nil {
			return nil, false, err
		}
		list = append(list, some...)
		if limit > 0 && len(list) > limit {
			return list[:limit], true, nil
		}
		if next == "" {
			return list, false, nil
		}
	}
}

func table(w io.Writer, list []recording.Entry) {
	var rows [][]string
	for _, e := range list {
		rows = append(rows, []string{brief(e.Name), e.Time.Local().Format("2006-01-02 15:04:05 MST"), e.User, where(e), length(e), what(e)})
	}
	console.Table(w, []string{"Session", "Began", "User", "Where", "Length", "What"}, rows)
}

func where(e recording.Entry) string {
	out := e.Server
	if e.Login != "" {
		out = e.Login + "@" + out
	}
	if e.Resource != "" {
		out += " " + e.Resource
	}
	return out
}

// length is for how long somebody was there, as far as is known.
func length(e recording.Entry) string {
	took := max(0, e.Changed.Sub(e.Time)).Round(time.Second).String()
	switch e.State {
	case recording.Going:
		return took + ", going on"
	case recording.Short:
		return took + ", cut short"
	}
	return took
}

func what(e recording.Entry) string {
	switch {
	case e.CopyOnly:
		return "copy: " + short(e.Command)
	case e.Command == "" && e.Protocol == "kubernetes":
		return "attach"
	case e.Command == "":
		return "shell"
	}
	return short(e.Command)
}

// short keeps a line of a listing short; JSON has all of a command.
func short(command string) string {
	const most = 60
	if r := []rune(command); len(r) > most {
		return string(r[:most-3]) + "..."
	}
	return command
}

type playFlags struct {
	format  string
	speed   float64
	maxIdle time.Duration
}

func (a commands) playCommand() *cobra.Command {
	var f playFlags
	c := &cobra.Command{Use: "play SESSION", Short: "Show the recording of a session", Args: tool.Exactly(1),
		Long: "Show the recording of a session, as it went.\n\nSpace pauses, the right and left arrow move by ten seconds, + and - change the pace, q ends.\n" +
			"What is not a terminal gets the text that was shown. Escape sequences that would do more than draw are left out.",
		Example: "  tsh play 5f0c9a52-1c7e-4a55-9d1e-0f6f0b6f7a01\n  tsh play 5f0c9a52 --speed=4 --skip-idle=2s\n  tsh play 5f0c9a52 --format=text | grep -n passwd",
		RunE:    func(cmd *cobra.Command, args []string) error { return a.play(cmd.Context(), args[0], f) }}
	c.Flags().Float64Var(&f.speed, "speed", 1, "how many times as fast as it went")
	c.Flags().DurationVar(&f.maxIdle, "skip-idle", 0, "show longer pauses so long, such as 2s; 0: as they were")
	c.Flags().StringVar(&f.format, "format", "", "terminal, text or json; unless told terminal on a terminal, else text")
	return c
}

// shortest is how much of a session's id names it.
const shortest = 8

// brief is a name as listings show it: the beginning of the session's id, and the number of a further recording.
func brief(name string) string {
	id := recording.SessionOf(name)
	return id[:min(shortest, len(id))] + name[len(id):]
}

// find is the name of the recording that a person means by a name, or by the beginning of one, or as listings show it.
func find(ctx context.Context, r *recordings.Recordings, name string) (string, error) {
	name = strings.ToLower(name)
	if recording.ValidName(name) {
		return name, nil
	}
	if len(name) < shortest {
		return "", fault.New(fault.Invalid, "%q is too little of a session's id: %d characters at least", name, shortest).WithReason("short_id").WithFix("tsh recordings ls")
	}
	list, _, err := page(ctx, r, recording.Query{Session: name}, 10)
	if err != nil {
		return "", err
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name)
	}
	if base, number, ok := cutLast(name, "-"); ok && len(names) == 0 && len(base) >= shortest {
		if list, _, err = page(ctx, r, recording.Query{Session: base}, 0); err != nil {
			return "", err
		}
		for _, e := range list {
			if e.Name[len(recording.SessionOf(e.Name)):] == "-"+number {
				names = append(names, e.Name)
			}
		}
	}
	switch len(names) {
	case 1:
		return names[0], nil
	case 0:
		return "", fault.New(fault.NotFound, "recording %q not found", name).WithReason("not_found").WithFix("tsh recordings ls")
	}
	return "", fault.New(fault.Conflict, "several recordings begin with %q", name).WithReason("ambiguous").WithCause("%s", strings.Join(names, ", "))
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (a commands) play(ctx context.Context, name string, f playFlags) error {
	out, _ := a.Out.(*os.File)
	onTerminal := out != nil && term.IsTerminal(int(out.Fd()))
	if f.format == "" {
		f.format = map[bool]string{true: "terminal", false: "text"}[onTerminal]
	}
	if !(f.speed > 0) || math.IsInf(f.speed, 0) || f.maxIdle < 0 { // a speed may be no number
		return console.Usagef("--speed and --skip-idle are more than nothing")
	}
	s, err := a.Load(ctx)
	if err != nil {
		return err
	}
	c := s.Call()
	defer c.Close()
	r := recordings.New(c)
	if name, err = find(ctx, r, name); err != nil {
		return err
	}
	open := func(ctx context.Context) (player.Frames, error) { return r.Open(ctx, name) }
	var e player.Ending
	switch f.format {
	case "terminal":
		e, err = a.show(ctx, open, f)
	case "text", "json":
		print := map[string]func(io.Writer, player.Frames) (player.Ending, error){"text": player.Text, "json": player.JSON}[f.format]
		frames, oerr := open(ctx)
		if oerr != nil {
			return oerr
		}
		defer frames.Close()
		e, err = print(a.Out, frames)
	default:
		return console.Usagef("--format: %q is none of terminal, text, json", f.format)
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(a.Err, console.Safe(summary(name, e)))
	return nil
}

// show plays on the person's terminal, which then is in raw mode for the keys.
func (a commands) show(ctx context.Context, open func(context.Context) (player.Frames, error), f playFlags) (player.Ending, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &player.Player{Open: open, Out: a.Out, Speed: f.speed, MaxIdle: f.maxIdle}
	if in, ok := a.In.(*os.File); ok && a.Interactive() {
		undo, err := session.MakeRaw(in, a.Out)
		if err != nil {
			return player.Ending{}, fault.New(fault.Unavailable, "the terminal cannot be set up").WithReason("terminal").Wrapping(err).WithFix("--format=text")
		}
		defer undo()
		p.Keys = player.ReadKeys(ctx, in)
	}
	return p.Play(ctx)
}

// summary says in a line how the session ended.
func summary(name string, e player.Ending) string {
	head := fmt.Sprintf("[session %s of %s, %s", recording.SessionOf(name), e.Start.User, e.At.Round(time.Second))
	switch {
	case e.Quit:
		return head + " so far]"
	case e.End == nil:
		return head + ": the recording ends here; its session goes on, or its agent ended before it could say how]"
	case e.Start.CopyOnly:
		return fmt.Sprintf("%s: a file copy, %d bytes in and %d out]", head, e.End.Bytes[recording.Input], e.End.Bytes[recording.Output])
	case e.End.Reason != "":
		return head + ", ended: " + cmp.Or(e.End.Message, e.End.Reason) + "]"
	case e.End.ExitCode != nil:
		return fmt.Sprintf("%s, exit status %d]", head, *e.End.ExitCode)
	}
	return head + "]"
}
