package player

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/recording"
	"github.com/sallyport/sallyport/internal/recording/screen"
)

// Text writes what was shown as text, at once: no sequence and no control character but newlines and tabs.
func Text(w io.Writer, frames Frames) (Ending, error) {
	p := painter{out: screen.Filter{Text: true}, errs: screen.Filter{Text: true}}
	return each(frames, func(f recording.Frame) error {
		_, err := w.Write(p.paint(f))
		return err
	})
}

// frameJSON is a frame as a program reads it.
type frameJSON struct {
	At     float64         `json:"at"` // seconds
	Kind   string          `json:"kind"`
	Text   string          `json:"text,omitempty"`
	Base64 string          `json:"base64,omitempty"` // of what is no UTF-8
	Value  json.RawMessage `json:"value,omitempty"`
}

var kindNames = map[recording.Kind]string{recording.Began: "start", recording.Output: "output", recording.Errors: "error", recording.Input: "input",
	recording.Resize: "resize", recording.Lost: "lost", recording.Ended: "end"}

// JSON writes each frame as one JSON object a line, as it was recorded.
func JSON(w io.Writer, frames Frames) (Ending, error) {
	enc := json.NewEncoder(escaped{w})
	return each(frames, func(f recording.Frame) error {
		out := frameJSON{At: f.At.Seconds(), Kind: kindNames[f.Kind]}
		var err error
		switch {
		case f.Kind.Stream() && utf8.Valid(f.Data):
			out.Text = string(f.Data)
		case f.Kind.Stream():
			out.Base64 = base64.StdEncoding.EncodeToString(f.Data)
		case f.Kind == recording.Resize:
			columns, rows := f.Size()
			out.Value, err = json.Marshal(recording.Terminal{Columns: columns, Rows: rows})
		case f.Kind == recording.Lost:
			stream, n := f.Missing()
			out.Value, err = json.Marshal(map[string]any{"stream": kindNames[stream], "bytes": n})
		default:
			out.Value = f.Data
		}
		if err != nil {
			return err
		}
		return enc.Encode(out)
	})
}

// escaped writes JSON that a terminal shows as it is.
type escaped struct{ io.Writer }

// Write is of io.Writer.
func (e escaped) Write(b []byte) (int, error) {
	if _, err := e.Writer.Write(screen.JSON(b)); err != nil {
		return 0, err
	}
	return len(b), nil
}

func each(frames Frames, do func(recording.Frame) error) (e Ending, err error) {
	for {
		f, err := frames.Next()
		if errors.Is(err, io.EOF) {
			return e, nil
		}
		if err == nil {
			err = e.take(f)
		}
		if err == nil {
			err = do(f)
		}
		if err != nil {
			return e, err
		}
	}
}
