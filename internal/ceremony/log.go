package ceremony

import (
	"crypto/sha256"

	"github.com/sallyport/sallyport/internal/device"
)

// pieceSize is how much of an event log one Log carries; each but the last carries just as much.
const pieceSize = 32 << 10

// encodeLog takes a quote's event log apart.
func encodeLog(q device.Quote) ([][]byte, error) {
	if len(q.Log) > device.MaxEventLog {
		return nil, bad("an event log of %d bytes", len(q.Log))
	}
	problem := q.NoLog
	if len(problem) > maxWord {
		problem = problem[:maxWord]
	}
	if !wordOK(problem) {
		problem = "unreadable"
	}
	var out [][]byte
	for rest := q.Log; ; {
		piece, more := rest, byte(0)
		if len(rest) > pieceSize {
			piece, more = rest[:pieceSize], 1
		}
		rest = rest[len(piece):]
		msg, err := encode([]byte{typeLog, more}, piece, []byte(problem))
		if err != nil {
			return nil, err
		}
		if out = append(out, msg); more == 0 {
			return out, nil
		}
	}
}

// AwaitLog is the server's side between a Proof that was to bring a quote and Welcome: it gathers the event log, of at
// most device.MaxEventLog bytes, or takes why there is none. The log is not in the transcript: it counts by what it replays to.
type AwaitLog struct {
	credential device.Credential
	quote      device.Quote
	bare       bool // no quote came: there is nothing to replay a log to
	done       bool
}

// Log takes a piece. more is whether another follows; the last one gives the Result. What comes behind it is refused.
func (a *AwaitLog) Log(msg []byte) (r Result, more bool, err error) {
	if a.done {
		return Result{}, false, outOfOrder("the last Log")
	}
	a.done = true // unless this piece is in order and says that another follows
	head, f, err := decode(msg, typeLog, 2, 2)
	if err != nil {
		return Result{}, false, err
	}
	more = head[1] == 1
	switch {
	case head[1] > 1:
		err = malformed("device_field", "more is %d in a Log", head[1])
	case more && len(f[0]) != pieceSize, len(f[0]) > pieceSize:
		err = malformed("device_field", "a piece of the event log has %d bytes", len(f[0]))
	case len(a.quote.Log)+len(f[0]) > device.MaxEventLog:
		err = malformed("device_message_too_large", "the event log has more than %d bytes", device.MaxEventLog)
	case a.bare && (len(f[0]) > 0 || len(f[1]) == 0):
		err = refuse("device_quote_missing", "a quote was wanted and did not come")
	case !wordOK(string(f[1])) || len(f[1]) > 0 && (more || len(f[0])+len(a.quote.Log) > 0):
		err = malformed("device_text", "the problem of a Log is out of place")
	}
	if err != nil {
		return Result{}, false, err
	}
	a.quote.Log, a.quote.NoLog, a.done = append(a.quote.Log, f[0]...), string(f[1]), !more
	if more {
		return Result{}, true, nil
	}
	return Result{Credential: a.credential, Quote: &a.quote, ok: true}, false, nil
}

// judged is the rest of a Proof, once the statement was judged: the quote, where one was wanted.
func (a *AwaitProof) judged(c device.Credential, digest [sha256.Size]byte, q *device.Quote) (Result, *AwaitLog, error) {
	switch {
	case a.quote && q == nil: // the Log has to say why
		return Result{}, &AwaitLog{credential: c, bare: true}, nil
	case !a.quote && q != nil:
		return Result{}, nil, malformed("device_field", "a quote came that nobody wanted")
	case !a.quote:
		return Result{Credential: c, ok: true}, nil, nil
	}
	if err := a.v.judge.Quote(c, digest, *q); err != nil {
		return Result{}, nil, err
	}
	return Result{}, &AwaitLog{credential: c, quote: *q}, nil
}
