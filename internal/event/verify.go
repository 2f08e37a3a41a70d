package event

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	maxProblems = 100
	clockStep   = time.Minute // how far a writer's times may run backwards without a note
	maxLine     = 64 << 20    // a list of heads is one line
)

// Stored is an entry as auth keeps and exports it, with what auth stamped on it; the stamps are not part of the hash.
type Stored struct {
	Entry
	Sender  []Role    `json:"sender,omitempty"` // roles on the certificate it came with; none for auth's own
	Arrival time.Time `json:"arrival"`
	// Line is the entry whose line in the index of times tells of this one too; 0 where it has its own.
	Line uint64 `json:"line,omitempty"`
}

// AppendJSON appends what encoding/json writes, its event untouched.
func (s Stored) AppendJSON(b []byte) []byte {
	b = s.Entry.AppendJSON(b)
	b = b[:len(b)-1]
	for i, r := range s.Sender {
		b = append(b, [2]string{`,"sender":[`, `,`}[min(i, 1)]...)
		b = append(append(append(b, '"'), r...), '"') // roles are words
	}
	if len(s.Sender) > 0 {
		b = append(b, ']')
	}
	b = s.Arrival.AppendFormat(append(b, `,"arrival":"`...), time.RFC3339Nano)
	b = append(b, '"')
	if s.Line > 0 {
		b = strconv.AppendUint(append(b, `,"line":`...), s.Line, 10)
	}
	return append(b, '}')
}

// Problem says what is wrong where. Seq 0 concerns the writer's whole chain, an empty Writer the whole log.
type Problem struct {
	Writer string `json:"writer,omitempty"`
	Seq    uint64 `json:"seq,omitempty"`
	Text   string `json:"text"`
}

// Report is what a verification found. The log is intact when Problems is empty; Notes are no damage (a clock that
// went back). At most 100 of each are kept.
type Report struct {
	Entries  uint64    `json:"entries"`
	Heads    []Head    `json:"heads"`
	Problems []Problem `json:"problems"`
	Notes    []Problem `json:"notes,omitempty"`
}

// Intact reports whether no problem was found.
func (r Report) Intact() bool { return len(r.Problems) == 0 }

// Add notes a problem.
func (r *Report) Add(writer string, seq uint64, format string, args ...any) {
	r.Problems = appendBounded(r.Problems, Problem{Writer: writer, Seq: seq, Text: fmt.Sprintf(format, args...)})
}

func appendBounded(list []Problem, p Problem) []Problem {
	if len(list) >= maxProblems {
		return list
	}
	return append(list, p)
}

// Verifier checks entries, each writer's in order, against each other and against lists of heads.
type Verifier struct {
	report Report
	chains map[string]*chain
}

type chain struct {
	head Head
	last time.Time
	want []Head // heads that lists promise, by sequence number
}

// NewVerifier takes the lists of heads that the log has to agree with; their signatures are the caller's to verify.
func NewVerifier(lists ...SignedHeads) *Verifier {
	v := &Verifier{chains: make(map[string]*chain)}
	for _, l := range lists {
		for _, h := range l.Heads {
			c := v.chain(h.Writer)
			c.want = append(c.want, h)
		}
	}
	for _, c := range v.chains {
		slices.SortFunc(c.want, func(a, b Head) int { return cmp.Compare(a.Seq, b.Seq) })
	}
	return v
}

func (v *Verifier) chain(writer string) *chain {
	c := v.chains[writer]
	if c == nil {
		c = &chain{head: Head{Writer: writer}}
		v.chains[writer] = c
	}
	return c
}

// Add takes a writer's next entry. After a problem it goes on from the entry at hand, so that one damage is reported
// once.
func (v *Verifier) Add(e Entry) {
	v.report.Entries++
	c := v.chain(e.Writer)
	if err := e.Follows(c.head); err != nil {
		v.report.Add(e.Writer, e.Seq, "%v", err)
	}
	var ev Event
	if err := json.Unmarshal(e.Event, &ev); err != nil {
		v.report.Add(e.Writer, e.Seq, "entry %d holds no event", e.Seq)
	} else if back := c.last.Sub(ev.Time); back > clockStep {
		v.report.Notes = appendBounded(v.report.Notes, Problem{Writer: e.Writer, Seq: e.Seq,
			Text: fmt.Sprintf("the writer's clock went back by %s", back.Round(time.Second))})
	}
	c.last = ev.Time
	c.head = e.Head()
	for len(c.want) > 0 && c.want[0].Seq <= e.Seq {
		if w := c.want[0]; w.Seq == e.Seq && w.Hash != e.Hash {
			v.report.Add(e.Writer, e.Seq, "entry %d is not the one in a signed list of heads", e.Seq)
		}
		c.want = c.want[1:]
	}
}

// Report closes the verification: a chain that ends before a promised head was cut.
func (v *Verifier) Report() Report {
	r := v.report
	r.Heads = nil
	for _, w := range slices.Sorted(maps.Keys(v.chains)) {
		c := v.chains[w]
		if n := len(c.want); n > 0 {
			r.Add(w, c.head.Seq, "the log was cut: it ends at entry %d, a signed list of heads has entry %d", c.head.Seq,
				c.want[n-1].Seq)
		}
		if c.head.Seq > 0 {
			r.Heads = append(r.Heads, c.head)
		}
	}
	return r
}

// line is one line of an export: an entry, or the list of heads that was the latest when it was made.
type line struct {
	Stored
	SignedHeads *SignedHeads `json:"signed_heads,omitempty"`
}

// HeadsLine is the JSON line of an export that carries a list of heads, without a newline.
func HeadsLine(h SignedHeads) ([]byte, error) {
	return json.Marshal(struct {
		SignedHeads SignedHeads `json:"signed_heads"`
	}{h})
}

// VerifyJSONL checks an export against the list of heads on its first line and those from elsewhere, all signed with
// key. The error is for what cannot be read or is signed by another key; damage is in the report.
func VerifyJSONL(r io.Reader, key ed25519.PublicKey, elsewhere ...SignedHeads) (Report, error) {
	for _, h := range elsewhere {
		if err := h.Verify(key); err != nil {
			return Report{}, err
		}
	}
	v := NewVerifier(elsewhere...)
	in := bufio.NewScanner(r)
	in.Buffer(make([]byte, 64<<10), maxLine)
	for n := 1; in.Scan(); n++ {
		var l line
		if err := strict(in.Bytes(), &l); err != nil {
			return Report{}, fmt.Errorf("line %d: %w", n, err)
		}
		if l.SignedHeads == nil {
			v.Add(l.Entry)
			continue
		}
		if v.report.Entries > 0 {
			return Report{}, fmt.Errorf("line %d: a list of heads behind entries", n)
		}
		if err := l.SignedHeads.Verify(key); err != nil {
			return Report{}, fmt.Errorf("line %d: %w", n, err)
		}
		v = NewVerifier(append(slices.Clip(elsewhere), *l.SignedHeads)...)
	}
	if err := in.Err(); err != nil {
		return Report{}, fmt.Errorf("read export: %w", err)
	}
	return v.Report(), nil
}

// ParseHeads reads the JSON form of a signed list, as `tctl audit verify --head` gets it; the caller verifies the
// signature.
func ParseHeads(b []byte) (SignedHeads, error) {
	var s SignedHeads
	if err := strict(b, &s); err != nil {
		return SignedHeads{}, fmt.Errorf("decode list of heads: %w", err)
	}
	return s, s.check()
}

// ParseEntry reads one entry's JSON line and checks that it is whole: canonical event bytes and the entry's own hash.
func ParseEntry(b []byte) (Entry, error) {
	var e Entry
	if err := strict(b, &e); err != nil {
		return Entry{}, fmt.Errorf("decode entry: %w", err)
	}
	if err := Canonical(e.Event); err != nil {
		return Entry{}, err
	}
	return e, e.Check()
}

func strict(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}

// ValidWriter refuses what is no writer's name: letters, digits and hyphens, at most 64.
func ValidWriter(w string) error {
	const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-"
	if w == "" || len(w) > 64 || strings.Trim(w, allowed) != "" {
		return fmt.Errorf("%q is no writer's host id", w)
	}
	return nil
}
