// Package player shows recordings: on a terminal as they went, and as text or JSON for programs.
package player

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/screen"
)

// Frames are a recording's, one after the other; io.EOF behind the last.
type Frames interface {
	Next() (recording.Frame, error)
	Close() error
}

// Ending is what is known of a recording once it was shown.
type Ending struct {
	Start recording.Start
	End   *recording.End // nil where it was cut short or is still going
	At    time.Duration  // of the last frame
	Quit  bool           // the person had enough
}

// Key is what a person wants while a recording is shown.
type Key uint8

// The keys.
const (
	Pause Key = iota + 1
	Forward
	Back
	Faster
	Slower
	Quit
)

const step = 10 * time.Second

// Player shows one recording on a terminal.
type Player struct {
	Open    func(context.Context) (Frames, error) // from the beginning, until its context ends; asked again to go back
	Out     io.Writer
	Keys    <-chan Key    // nil where nobody steers
	Speed   float64       // 1 is as it went
	MaxIdle time.Duration // pauses that were longer are shown so long; 0: as they were

	clock   clock
	painter painter
}

// clock says where in the recording the showing is.
type clock struct {
	at     time.Duration // at since
	since  time.Time
	speed  float64
	paused bool
}

func (c *clock) now() time.Duration {
	if c.paused {
		return c.at
	}
	return c.at + time.Duration(float64(time.Since(c.since))*c.speed)
}

func (c *clock) set(at time.Duration) { c.at, c.since = max(0, at), time.Now() }

// until is how long it takes to get there.
func (c *clock) until(at time.Duration) time.Duration {
	return time.Duration(float64(at-c.now()) / c.speed)
}

// Play shows the recording to its end, or until the person has had enough, and leaves the terminal as it was.
func (p *Player) Play(ctx context.Context) (Ending, error) {
	p.clock.speed = p.Speed
	if p.clock.speed <= 0 {
		p.clock.speed = 1
	}
	p.clock.set(0)
	defer func() { _, _ = io.WriteString(p.Out, p.painter.restore()) }()
	for {
		e, again, err := p.run(ctx)
		if err != nil || !again {
			return e, err
		}
		if _, err := io.WriteString(p.Out, p.painter.restore()+"\x1b[H\x1b[2J"); err != nil {
			return e, err
		}
	}
}

// run shows the recording from its beginning, what is behind the clock at once; again is that the person went back.
func (p *Player) run(ctx context.Context) (e Ending, again bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	r := &reader{open: p.Open, got: make(chan got, 1)}
	defer func() { cancel(); r.close() }()
	p.painter = painter{crlf: true}
	for {
		f, went, err := p.next(ctx, r)
		if went != stay {
			e.Quit = went == quit
			return e, went == back, nil
		}
		if errors.Is(err, io.EOF) {
			return e, false, nil
		}
		if err != nil {
			return e, false, err
		}
		if err := e.take(f); err != nil {
			return e, false, err
		}
		p.painter.terminal = e.Start.Terminal != nil
		went, err = p.wait(ctx, f.At)
		if err != nil || went != stay {
			e.Quit = went == quit
			return e, went == back, err
		}
		if _, err := p.Out.Write(p.painter.paint(f)); err != nil {
			return e, false, err
		}
	}
}

// got is a frame that was read, or why not.
type got struct {
	recording.Frame
	err error
}

// reader reads frames beside the person's keys: who sends them may be slow, or silent.
type reader struct {
	open    func(context.Context) (Frames, error)
	frames  Frames // nil until they are open; while reading the goroutine's
	got     chan got
	reading bool
}

// close waits for what is being read, which the end of the context ends.
func (r *reader) close() {
	if r.reading {
		<-r.got
	}
	if r.frames != nil {
		_ = r.frames.Close()
	}
}

func (r *reader) read(ctx context.Context) {
	var g got
	if r.frames == nil {
		r.frames, g.err = r.open(ctx)
	}
	if g.err == nil {
		g.Frame, g.err = r.frames.Next()
	}
	r.got <- g
}

// next gives the next frame, and does meanwhile what the person wants.
func (p *Player) next(ctx context.Context, r *reader) (recording.Frame, move, error) {
	r.reading = true
	go r.read(ctx)
	for {
		select {
		case g := <-r.got:
			r.reading = false
			return g.Frame, stay, g.err
		case <-ctx.Done():
			return recording.Frame{}, stay, ctx.Err()
		case k, ok := <-p.Keys:
			if !ok {
				p.Keys = nil
			}
			if went := p.press(k); went != stay {
				return recording.Frame{}, went, nil
			}
		}
	}
}

// take notes what a frame says of the whole.
func (e *Ending) take(f recording.Frame) (err error) {
	e.At = f.At
	switch f.Kind {
	case recording.Began:
		e.Start, err = f.Start()
	case recording.Ended:
		var end recording.End
		end, err = f.End()
		e.End = &end
	}
	return err
}

type move uint8

const (
	stay move = iota
	back
	quit
)

// wait waits until the clock reaches a frame's time, and does meanwhile what the person wants.
func (p *Player) wait(ctx context.Context, at time.Duration) (move, error) {
	if idle := at - p.clock.now(); p.MaxIdle > 0 && idle > p.MaxIdle {
		p.clock.set(at - p.MaxIdle)
	}
	for {
		left := p.clock.until(at)
		if left <= 0 && len(p.Keys) == 0 {
			return stay, ctx.Err()
		}
		var due <-chan time.Time
		if !p.clock.paused {
			due = time.After(left)
		}
		select {
		case <-ctx.Done():
			return quit, ctx.Err()
		case <-due:
		case k, ok := <-p.Keys:
			if !ok {
				p.Keys = nil
			}
			switch p.press(k) {
			case back:
				return back, nil
			case quit:
				return quit, nil
			}
		}
	}
}

// press does what a key says; the terminal's own pace stays between an eighth and sixteen times.
func (p *Player) press(k Key) move {
	c := &p.clock
	now := c.now()
	switch k {
	case Pause:
		c.set(now)
		c.paused = !c.paused
	case Forward:
		c.set(now + step)
	case Back:
		c.set(now - step)
		return back
	case Faster:
		c.set(now)
		c.speed = min(16, c.speed*2)
	case Slower:
		c.set(now)
		c.speed = max(0.125, c.speed/2)
	case Quit:
		return quit
	}
	return stay
}

// ReadKeys gives the keys of a terminal that is in raw mode, until it ends or ctx does.
func ReadKeys(ctx context.Context, r io.Reader) <-chan Key {
	out := make(chan Key, 1)
	go func() {
		defer close(out)
		buf := make([]byte, 64)
		for {
			n, err := r.Read(buf)
			for _, k := range keys(buf[:n]) {
				select {
				case out <- k:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// keys reads what was typed: arrows come as ESC [ C or ESC O C.
func keys(b []byte) (out []Key) {
	for i := 0; i < len(b); i++ {
		if b[i] == 0x1b && i+2 < len(b) && (b[i+1] == '[' || b[i+1] == 'O') {
			switch b[i+2] {
			case 'C':
				out = append(out, Forward)
			case 'D':
				out = append(out, Back)
			}
			i += 2
			continue
		}
		switch b[i] {
		case ' ', 'p':
			out = append(out, Pause)
		case 'l', '.':
			out = append(out, Forward)
		case 'h', ',':
			out = append(out, Back)
		case '+', '=':
			out = append(out, Faster)
		case '-':
			out = append(out, Slower)
		case 'q', 'Q', 0x03, 0x04:
			out = append(out, Quit)
		}
	}
	return out
}

// painter turns frames into bytes for a terminal, or for a file of text.
type painter struct {
	terminal bool // what was recorded had a terminal
	crlf     bool // it is shown on one, in raw mode
	out      screen.Filter
	errs     screen.Filter
	in       screen.Filter
	begun    bool // a line of input
	buf      []byte
}

// restore puts the terminal back.
func (p *painter) restore() string { return p.out.Restore() + p.errs.Restore() }

// paint is what a frame shows. Input, which no terminal showed, is marked, line by line.
func (p *painter) paint(f recording.Frame) []byte {
	p.buf = p.buf[:0]
	switch f.Kind {
	case recording.Output:
		p.buf = p.out.Append(p.buf, f.Data)
	case recording.Errors:
		p.buf = p.errs.Append(p.buf, f.Data)
	case recording.Input:
		p.input(f.Data)
	case recording.Lost:
		stream, n := f.Missing()
		p.buf = fmt.Appendf(p.buf, "\n[%d bytes of %s are not kept]\n", n, streamName(stream))
	}
	if p.crlf && !p.terminal {
		return crlf(p.buf)
	}
	return p.buf
}

func (p *painter) input(data []byte) {
	p.in.Text = true
	for _, c := range p.in.Append(nil, data) {
		if !p.begun {
			p.buf, p.begun = append(p.buf, "< "...), true
		}
		p.buf = append(p.buf, c)
		p.begun = c != '\n'
	}
}

func crlf(b []byte) []byte {
	out := make([]byte, 0, len(b)+8)
	for _, c := range b {
		if c == '\n' {
			out = append(out, '\r')
		}
		out = append(out, c)
	}
	return out
}

func streamName(k recording.Kind) string {
	switch k {
	case recording.Input:
		return "input"
	case recording.Errors:
		return "error output"
	}
	return "output"
}
