package postgres

import (
	"fmt"
	"maps"
	"strings"

	"github.com/sallyport/sallyport/internal/dbwire/postgres/sql"
)

// Bounds of a ledger: how many messages may wait for their answers, and how many bytes of text may be held for these, and
// for prepared statements and portals.
const (
	MaxPending = 4096
	MaxWaiting = 1 << 20
	MaxHeld    = 4 << 20
)

// Outcome is what became of a statement.
type Outcome struct {
	Query      string
	Parameters []string // as text; what is no text as \x and its hex; NULL; *** for a secret
	Failed     bool
	Message    string
}

// Ledger holds what a client has sent until the server has answered it, and the statements and portals that the server
// has by name, in the server's own order: a name means what it meant to the server, whatever the client claimed since.
// Its zero value is ready. It is not safe for use by many goroutines at once.
type Ledger struct {
	pending    []item
	head       int // of pending
	waiting    int // bytes of text of what is pending
	held       int // and of statements and portals
	statements map[string]prepared
	portals    map[string]bound
	skipping   bool // an error was answered; what follows is skipped by the server up to Sync
	slack      int  // Syncs that the server may have passed over, in a COPY that failed
	owed       bool // what failed was a step of a statement, whose Execute is then nothing further
	last       Outcome
}

type prepared struct {
	sql     string
	secrets []int
	secret  bool
	names   []sql.Named // what running it does with names
	doubt   bool        // the name may have become another's since
}

type bound struct {
	Outcome
	prepared prepared
	doubt    bool
}

// Refusal is what a door says in place of running a statement.
type Refusal struct {
	Message []byte // an ErrorResponse
	Why     string // for the record
}

// Full reports whether so much waits for the server that no more is to be sent to it.
func (l *Ledger) Full() bool {
	return len(l.pending)-l.head >= MaxPending || l.waiting >= MaxWaiting
}

// Crowded reports whether the texts held are so many that a further statement must not be prepared.
func (l *Ledger) Crowded() bool { return l.held >= MaxHeld }

// Idle reports whether nothing waits for the server.
func (l *Ledger) Idle() bool { return l.head == len(l.pending) }

// Sent enters a message from the client, before it goes to the server: its body, or of a Bind or FunctionCall that is
// longer what there is of it. refuse is asked about texts; where it refuses, the message that goes to the server is one
// that fails (Failing).
func (l *Ledger) Sent(kind byte, body []byte, refuse func(kind byte, t *sql.Text) *Refusal) (refused bool, err error) {
	it := item{kind: kind}
	if err := it.read(body); err != nil {
		return false, err
	}
	if kind == 'Q' || kind == 'P' || kind == 'F' {
		if r := refuse(kind, &it.text); r != nil {
			it.refusal, refused = r, true
		}
	}
	it.size = len(it.text.SQL) + len(it.name) + len(it.source) + 64*len(it.text.Names)
	for _, v := range it.values {
		it.size += len(v) + 16
	}
	if l.head > 64 && l.head*2 > len(l.pending) {
		n := copy(l.pending, l.pending[l.head:])
		clear(l.pending[n:])
		l.pending, l.head = l.pending[:n], 0
	}
	l.pending = append(l.pending, it)
	l.waiting += it.size
	return refused, nil
}

// Failing is a message of the same kind that the server answers with an error, to be sent in place of one that is
// refused: what the error does to the transaction it then does.
func Failing(b []byte, kind byte, body []byte) []byte {
	const broken = "refused by sallyport\x00"
	if kind == 'Q' {
		return AppendMessage(b, 'Q', broken)
	}
	name, _, _ := cString(body)
	return AppendMessage(b, 'P', name, "\x00", broken, "\x00\x00")
}

// front is the message that waits longest; what ends a COPY that there is none of is passed over.
func (l *Ledger) front() *item {
	for l.head < len(l.pending) {
		if it := &l.pending[l.head]; it.kind != 'c' {
			return it
		}
		l.pop()
	}
	return nil
}

func (l *Ledger) pop() {
	l.waiting -= l.pending[l.head].size
	l.pending[l.head] = item{}
	l.head++
	if l.head == len(l.pending) {
		l.pending, l.head, l.slack = l.pending[:0], 0, 0
		if cap(l.pending) > 64 {
			l.pending = nil
		}
	}
}

// Answer takes a message from the server, before it goes to the client: its body, or of a long one what there is of it. It
// returns what the client gets in its place, nil for itself. An error means that the two sides no longer agree on what
// is answered, and nothing more may go through.
func (l *Ledger) Answer(kind byte, body []byte, record func(Outcome)) (instead []byte, err error) {
	it := l.front()
	if kind == 'E' {
		return l.failed(it, body, record), nil
	}
	if l.slack > 0 && it != nil && it.kind == 'S' && kind != 'Z' && kind != 'N' && kind != 'S' && kind != 'A' {
		l.slack--
		l.pop()
		it = l.front()
	} else if it != nil && it.kind != 'S' {
		l.slack = 0
	}
	fits := it != nil
	switch kind {
	case 'N':
		if it != nil {
			it.begun = true // a notice can say what a result says
		}
		return nil, nil
	case 'A', 'S', 'K', 'R', 'v':
		return nil, nil
	case '1', '2', '3', 'n', 't':
		fits = fits && l.stepped(it, kind, record)
	case 'T', 'D', 'H', 'G', 'W', 'd', 'c', 'V':
		fits = fits && l.began(it, kind)
	case 'C', 'I', 's':
		fits = fits && l.ended(it, kind, body, record)
	case 'Z':
		return nil, l.ready(body, record)
	default:
		fits = false
	}
	if !fits {
		return nil, fmt.Errorf("answer %q to no message", kind)
	}
	return nil, nil
}

// stepped takes ParseComplete, BindComplete, CloseComplete, NoData and ParameterDescription.
func (l *Ledger) stepped(it *item, kind byte, record func(Outcome)) bool {
	if want := map[byte]byte{'1': 'P', '2': 'B', '3': 'C', 'n': 'D', 't': 'D'}[kind]; it.kind != want || it.refusal != nil {
		return false
	}
	switch kind {
	case '1':
		l.prepare(it.name, it.prepared())
		if !sql.Trackable(it.name) { // what runs it cannot tell
			record(Outcome{Query: sql.Shorten(fmt.Sprintf("(prepared as statement %q) %s", it.name, it.text.SQL))})
		}
	case '2':
		if l.Crowded() {
			return false
		}
		if l.bind(it); !sql.Trackable(it.name) {
			b := l.resolve(it)
			record(Outcome{Query: sql.Shorten(fmt.Sprintf("(bound as portal %q) %s", it.name, b.Query)), Parameters: b.Parameters})
		}
	case '3':
		if it.of == 'S' {
			l.prepare(it.name, prepared{})
		} else {
			l.close(it.name)
		}
	case 't':
		return true // the rows' description follows
	}
	l.pop()
	return true
}

// began takes what belongs to a result.
func (l *Ledger) began(it *item, kind byte) bool {
	switch {
	case it.kind == 'D' && kind == 'T':
		l.pop()
		return true
	case it.kind != 'Q' && it.kind != 'E' && it.kind != 'F':
		return false
	}
	it.begun = true
	it.copying = it.copying || kind == 'G'
	return true
}

// ended takes the end of a statement: of an Execute all of it, of a Query one that may have others behind it.
func (l *Ledger) ended(it *item, kind byte, body []byte, record func(Outcome)) bool {
	if it.kind != 'E' && it.kind != 'Q' {
		return false
	}
	if it.copying { // Syncs sent before the end of the data were passed over by the server
		it.copying = false
		at := l.head + 1
		for at < len(l.pending) && l.pending[at].kind == 'S' {
			at++
		}
		if at == len(l.pending) || l.pending[at].kind != 'c' {
			return false
		}
		kept := *it
		for l.head < at {
			l.pop()
		}
		l.pending[l.head] = kept
		l.waiting += kept.size
		it = &l.pending[l.head]
	}
	it.begun = true
	if it.kind == 'E' {
		l.report(it, Outcome{}, record)
	}
	if kind == 'C' {
		tag, _, _ := cString(body)
		l.did(it, tag)
	}
	if it.kind == 'E' {
		if kind == 'C' {
			l.settle(it, false)
		}
		l.pop()
	}
	return true
}

// ready takes ReadyForQuery.
func (l *Ledger) ready(body []byte, record func(Outcome)) error {
	l.Skip(record)
	l.skipping, l.owed = false, false
	it := l.front()
	if it == nil || it.kind != 'Q' && it.kind != 'S' && it.kind != 'F' || it.refusal != nil && !it.recorded {
		return fmt.Errorf("ready for no query")
	}
	if it.kind != 'S' {
		l.slack = 0
		l.report(it, Outcome{}, record)
		l.settle(it, false)
	}
	l.pop()
	if len(l.portals) > 0 && len(body) > 0 && body[0] == 'I' {
		for _, b := range l.portals {
			l.held -= b.size()
		}
		clear(l.portals)
	}
	return nil
}

// Skip takes what the server passes over, after an error up to Sync, and reports whether that is what it does. What these
// messages would have named they did not.
func (l *Ledger) Skip(record func(Outcome)) bool {
	if !l.skipping {
		return false
	}
	skipped := false
	var would *Ledger
	for it := l.front(); it != nil && it.kind != 'S'; it = l.front() {
		if would == nil {
			would = &Ledger{statements: maps.Clone(l.statements), portals: maps.Clone(l.portals)}
		}
		switch {
		case it.kind == 'P':
			would.prepare(it.name, it.prepared())
		case it.kind == 'B':
			would.bind(it)
		case it.kind == 'E' && l.owed:
			l.owed = false
		case it.kind == 'E' || it.kind == 'Q' || it.kind == 'F':
			would.report(it, Outcome{Failed: true, Message: "not run: an earlier message failed"}, record)
		}
		l.pop()
		skipped = true
	}
	return skipped
}

// failed takes an ErrorResponse.
func (l *Ledger) failed(it *item, body []byte, record func(Outcome)) (instead []byte) {
	if it == nil {
		return nil // the server ends the connection
	}
	e := ParseError(body)
	o := Outcome{Failed: true, Message: strings.TrimSpace(e.Code + " " + e.Message)}
	if it.refusal != nil {
		o.Message, instead = it.refusal.Why, it.refusal.Message
	}
	if it.copying {
		for i := l.head + 1; i < len(l.pending) && l.pending[i].kind == 'S'; i++ {
			l.slack++
		}
	}
	switch it.kind {
	case 'Q', 'F':
		l.report(it, o, record)
		l.settle(it, true)
		return instead
	case 'P':
		if it.name == "" { // where the server could read the message the old one is gone
			l.unsure("")
		}
	case 'S': // what the end of the transaction does
		o.Query, o.Parameters = l.last.Query, l.last.Parameters
		record(o)
		return nil
	}
	l.owed = it.kind != 'E'
	l.report(it, o, record)
	l.settle(it, true)
	l.pop()
	l.skipping = true
	return instead
}

// report records what became of a message's statement; a success once, before anything of it is returned.
func (l *Ledger) report(it *item, o Outcome, record func(Outcome)) {
	l.see(it)
	if it.recorded && !o.Failed {
		return
	}
	secret := it.text.Masked
	switch it.kind {
	case 'E':
		b := l.portal(it.name)
		o.Query, o.Parameters, secret = b.Query, b.Parameters, b.prepared.secret
	case 'B':
		b := l.resolve(it)
		o.Query, o.Parameters, secret = b.Query, b.Parameters, b.prepared.secret
	case 'D', 'C':
		if it.of == 'S' {
			p := l.statement(it.name)
			o.Query, secret = p.sql, p.secret
		} else {
			b := l.portal(it.name)
			o.Query, secret = b.Query, b.prepared.secret
		}
	default:
		o.Query, o.Parameters = it.text.SQL, it.values
	}
	if secret && o.Failed && it.refusal == nil && len(o.Message) > 5 {
		o.Message = o.Message[:5] + " (the server's message is not kept: the statement holds a secret)"
	}
	it.recorded = true
	if it.naming.shown != "" {
		o.Query = sql.Shorten(o.Query + it.naming.shown)
		secret = secret || it.naming.secret
	}
	l.last = o
	record(o)
}

// Begun records the statement of which something came and nothing is on record yet. It is called before what came goes to
// the client.
func (l *Ledger) Begun(record func(Outcome)) {
	if it := l.front(); it != nil && it.begun && !it.recorded {
		l.report(it, Outcome{}, record)
	}
}

// Abandon records, at the end of a connection, every statement that was sent and is not on record as ended: why says what
// happened.
func (l *Ledger) Abandon(why string, record func(Outcome)) {
	for it := l.front(); it != nil; it = l.front() {
		o := Outcome{Failed: true, Message: why}
		switch it.kind {
		case 'P', 'D', 'C', 'S':
		case 'B':
			l.bind(it)
		default:
			l.report(it, o, record)
		}
		if it.kind == 'P' {
			l.prepare(it.name, it.prepared())
		}
		l.pop()
	}
}
