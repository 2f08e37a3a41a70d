package stream

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"sync"

	"github.com/sallyport/sallyport/internal/kube/frame"
)

// taps show what passes to the tape, and read what is said about the session.
type taps struct {
	witness Witness
	exits   bool // the protocol says by a Status how a command ended (from v4 on)

	mu    sync.Mutex // orders what the tape is shown, and guards
	tape  Tape       // nil where there is none
	sizes []byte     // of the resize stream, what is not a whole object yet
	said  []byte     // of the error stream
}

// shown is told of each piece before it goes on.
func (t *taps) shown(s Stream, p []byte) error {
	t.witness.Touch()
	if len(p) == 0 {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch s {
	case resize:
		return t.resized(p)
	case Error:
		t.said = append(t.said, p[:min(len(p), maxStatus-len(t.said))]...)
	}
	if t.tape != nil {
		return t.tape.Shown(s, p)
	}
	return nil
}

// unheard tells the tape that a stream of the server's leads nowhere any more.
func (t *taps) unheard() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.tape != nil {
		t.tape.Unheard()
	}
}

// maxSize bounds an object that says a terminal's size.
const maxSize = 1 << 10

// resized reads the objects of the resize stream, as the server does: one behind the other.
func (t *taps) resized(p []byte) error {
	for t.sizes = append(t.sizes, p...); ; {
		dec := json.NewDecoder(bytes.NewReader(t.sizes))
		var size struct{ Width, Height uint16 }
		switch err := dec.Decode(&size); {
		case err == nil:
			t.sizes = append(t.sizes[:0], t.sizes[dec.InputOffset():]...)
		case (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)) && len(t.sizes) <= maxSize:
			return nil
		default:
			return frame.Malformed("a terminal's size")
		}
		if t.tape != nil {
			t.tape.Resized(size.Width, size.Height)
		}
	}
}

// status says whether the server told how the session ended.
func (t *taps) status() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.said) > 0
}

// close ends the tape, and gives the status of the command where it is known.
func (t *taps) close() *int {
	t.mu.Lock()
	defer t.mu.Unlock()
	code, ok := 0, false
	if t.exits {
		code, ok = exitCode(t.said)
	}
	if t.tape != nil {
		if ok {
			t.tape.Exited(code)
		}
		_ = t.tape.Close() // who records says so where it fails
		t.tape = nil
	}
	if !ok {
		return nil
	}
	return &code
}

// exitCode reads the status of a command out of what the error stream said: a meta/v1 Status, whose cause ExitCode has it
// where it is not 0 (k8s.io/apimachinery, remotecommand.NonZeroExitCodeReason).
func exitCode(said []byte) (int, bool) {
	var s struct {
		Status  string `json:"status"`
		Reason  string `json:"reason"`
		Details struct {
			Causes []struct {
				Reason  string `json:"reason"`
				Message string `json:"message"`
			} `json:"causes"`
		} `json:"details"`
	}
	if json.Unmarshal(said, &s) != nil {
		return 0, false
	}
	if s.Status == "Success" {
		return 0, true
	}
	if s.Reason != "NonZeroExitCode" {
		return 0, false
	}
	for _, c := range s.Details.Causes {
		if c.Reason == "ExitCode" {
			code, err := strconv.ParseInt(c.Message, 10, 32)
			return int(code), err == nil
		}
	}
	return 0, false
}

// failure is what the error stream says of a session that this side ends: a Status from v4 on, text before.
func (t *taps) failure(text string) []byte {
	if !t.exits {
		return []byte(text)
	}
	raw, err := json.Marshal(map[string]any{"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure", "reason": "Forbidden", "message": text})
	if err != nil {
		return []byte(text)
	}
	return raw
}
