package event

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
)

const entryLabel = "sallyport-audit-v1"

// Hash is an entry's SHA-256; as text 64 lower-case hex digits.
type Hash [sha256.Size]byte

// String is the hex form.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText gives the hex form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText takes 64 lower-case hex digits.
func (h *Hash) UnmarshalText(b []byte) error {
	var got Hash
	if len(b) != 2*len(got) {
		return fmt.Errorf("hash of %d characters", len(b))
	}
	if _, err := hex.Decode(got[:], b); err != nil {
		return fmt.Errorf("decode hash: %w", err)
	}
	if bytes.ContainsAny(b, "ABCDEF") {
		return errors.New("hash is not in lower case")
	}
	*h = got
	return nil
}

// Entry is an event in its writer's chain. Seq begins at 1, where Prev is zero. Event holds the event's canonical
// JSON as the writer made it.
type Entry struct {
	Writer string          `json:"writer"` // host UUID
	Seq    uint64          `json:"seq"`
	Prev   Hash            `json:"prev"`
	Event  json.RawMessage `json:"entry"`
	Hash   Hash            `json:"hash"`
}

// Head is the end of a writer's chain. The zero Seq is a chain without entries.
type Head struct {
	Writer string `json:"writer"`
	Seq    uint64 `json:"seq"`
	Hash   Hash   `json:"hash"`
}

// Next makes the entry that follows h; ev is an event's canonical JSON, from Event.Marshal.
func (h Head) Next(ev json.RawMessage) Entry {
	e := Entry{Writer: h.Writer, Seq: h.Seq + 1, Prev: h.Hash, Event: ev}
	e.Hash = e.sum()
	return e
}

// AppendJSON appends the entry as encoding/json writes it, its event untouched.
func (e Entry) AppendJSON(b []byte) []byte {
	b = append(append(b, `{"writer":"`...), e.Writer...) // letters, digits and hyphens (ValidWriter)
	b = strconv.AppendUint(append(b, `","seq":`...), e.Seq, 10)
	b = hex.AppendEncode(append(b, `,"prev":"`...), e.Prev[:])
	b = append(append(b, `","entry":`...), e.Event...)
	b = hex.AppendEncode(append(b, `,"hash":"`...), e.Hash[:])
	return append(b, `"}`...)
}

// ReadEntry reads what AppendJSON wrote, the entry's own hash checked, which covers the rest: what was canonical when it was
// chained still is. It is for those who wrote it themselves; others' is for ParseEntry. The
// event shares the line's memory.
func ReadEntry(line []byte) (Entry, error) {
	e, ok := decode(line)
	if !ok {
		return ParseEntry(line)
	}
	return e, e.Check()
}

// DecodeEntry reads an entry and checks nothing of it, not even that its event is JSON: Follows and Parse do. The event may
// share the line's memory.
func DecodeEntry(line []byte) (Entry, error) {
	if e, ok := decode(line); ok {
		return e, nil
	}
	var e Entry
	if err := json.Unmarshal(line, &e); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	return e, nil
}

// decode reads what AppendJSON writes, and nothing that is written otherwise.
func decode(line []byte) (e Entry, ok bool) {
	rest, writer := after(line, `{"writer":"`), -1
	if rest != nil {
		writer = bytes.IndexByte(rest, '"')
	}
	if writer < 0 {
		return e, false
	}
	e.Writer = string(rest[:writer])
	rest = after(rest[writer:], `","seq":`)
	for len(rest) > 0 && rest[0] >= '0' && rest[0] <= '9' {
		e.Seq, rest = e.Seq*10+uint64(rest[0]-'0'), rest[1:]
	}
	const digits, tail = 2 * len(e.Prev), len(`,"hash":""}`) + 2*len(e.Hash)
	rest = after(rest, `,"prev":"`)
	if len(rest) < digits+tail || e.Prev.UnmarshalText(rest[:digits]) != nil {
		return e, false
	}
	rest = after(rest[digits:], `","entry":`)
	if len(rest) < tail {
		return e, false
	}
	e.Event = rest[: len(rest)-tail : len(rest)-tail]
	hash := after(rest[len(rest)-tail:], `,"hash":"`)
	if hash == nil || string(hash[digits:]) != `"}` || e.Hash.UnmarshalText(hash[:digits]) != nil {
		return e, false
	}
	return e, true
}

// after is what follows a text, nil where that is not there.
func after(b []byte, text string) []byte {
	if len(b) < len(text) || string(b[:len(text)]) != text {
		return nil
	}
	return b[len(text):]
}

// Head is the chain's head after e.
func (e Entry) Head() Head { return Head{Writer: e.Writer, Seq: e.Seq, Hash: e.Hash} }

// Follows says why e is not the entry after h: another writer, a number out of order, another predecessor, or a hash
// that is not e's own.
func (e Entry) Follows(h Head) error {
	switch {
	case e.Writer != h.Writer:
		return fmt.Errorf("entry of writer %q in the chain of %q", e.Writer, h.Writer)
	case e.Seq != h.Seq+1:
		return fmt.Errorf("entry %d after entry %d", e.Seq, h.Seq)
	case e.Prev != h.Hash:
		return fmt.Errorf("entry %d does not follow entry %d as it is here", e.Seq, h.Seq)
	}
	return e.Check()
}

// Check recomputes the entry's own hash.
func (e Entry) Check() error {
	if e.sum() != e.Hash {
		return fmt.Errorf("entry %d was changed: its hash does not match", e.Seq)
	}
	return nil
}

// sum is SHA-256 over label, writer, seq, prev and event, each behind its length in 4 bytes.
func (e Entry) sum() Hash {
	var room [1024]byte
	b := room[:0]
	b = appendField(b, []byte(entryLabel))
	b = appendField(b, []byte(e.Writer))
	b = appendField(b, binary.BigEndian.AppendUint64(make([]byte, 0, 8), e.Seq))
	b = appendField(b, e.Prev[:])
	b = appendField(b, e.Event)
	return sha256.Sum256(b)
}

func appendField(b, field []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(field)))
	return append(b, field...)
}
