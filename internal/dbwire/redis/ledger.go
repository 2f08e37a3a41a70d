package redis

import (
	"fmt"
	"strings"
)

// Bounds of a ledger: of commands that were sent and not answered, and of the text of those that wait in a transaction.
// What is past the last is known by its place alone.
const (
	MaxOpen      = 1 << 16
	MaxOpenText  = 4 << 20
	maxQueued    = 1 << 14
	maxQueueText = 1 << 20
	maxRoom      = 64      // commands for which room is kept
	MaxFailure   = 8 << 10 // bytes of commands that a Failure shows, where each is short
)

// LeftOut stands in place of an error that may cite a secret.
const LeftOut = "it failed; the error is left out, for it may cite a secret"

// Role is what is particular about a command's reply; most have nothing.
type Role uint8

// The roles: of transactions, and of subscriptions, where acknowledgements come in place of a reply.
const (
	Plain Role = iota
	multi
	exec
	discard
	subscribe
	psubscribe
	ssubscribe
	unsubscribe
	punsubscribe
	sunsubscribe
)

var roles = map[string]Role{"multi": multi, "exec": exec, "discard": discard, "subscribe": subscribe, "psubscribe": psubscribe,
	"ssubscribe": ssubscribe, "unsubscribe": unsubscribe, "punsubscribe": punsubscribe, "sunsubscribe": sunsubscribe}

// RoleOf is the role of a command.
func RoleOf(name []byte) Role { return roles[strings.ToLower(string(name))] }

// published reports whether subscribers are sent the word unasked.
func published(word string) bool {
	return word == "message" || word == "pmessage" || word == "smessage" || roles[word] >= subscribe
}

// Entry is a command that awaits its reply.
type Entry struct {
	Text   string
	DB     int
	Secret bool // the error may cite what Text does not show
	Role   Role
	Args   int    // how many it has, its name apart
	Local  []byte // no command: a reply of the door's own, in its turn
	Failed *bool  // set to whether the server's reply is an error
	Speaks byte   // of HELLO: '2' or '3', in which the server goes on once it has agreed
}

// Failure is a command, or several, one a line, that did not do what they say.
type Failure struct {
	Text, Message string
	DB            int
}

// Ledger holds what was sent until the server has answered it, and the commands that wait in a transaction until its EXEC
// is answered, in the server's own order. Its zero value is ready. It is not safe for use by many goroutines at once.
type Ledger struct {
	queue []Entry
	room  []Entry // of no length: where an empty queue begins again
	text  int     // bytes of the queue's texts
	resp3 bool    // what was published has a kind of its own
	told  bool    // of the first in the queue a failure was told
	acks  int     // that are still to come for the first in the queue; 0: none came
	subs  subscriptions
	open  transaction
}

// subscriptions are how many the server says the client has.
type subscriptions struct{ channels, patterns, shards int }

// transaction is what was queued since MULTI.
type transaction struct {
	begun  bool
	count  int // of commands
	text   []byte
	queued []queued // those whose text is held, the first ones
	seen   int      // of EXEC's reply: elements that were over
	db     int
}

type queued struct {
	end    int // of its text
	secret bool
}

// Speaks says which protocol the replies are in.
func (l *Ledger) Speaks(resp3 bool) { l.resp3 = resp3 }

// Full reports whether no more may be sent until something is answered.
func (l *Ledger) Full() bool { return len(l.queue) > MaxOpen || l.text > MaxOpenText }

// Idle reports whether everything was answered.
func (l *Ledger) Idle() bool { return len(l.queue) == 0 }

// Sent takes commands before they go to the server, or replies of the door's own.
func (l *Ledger) Sent(entries ...Entry) {
	for i := range entries {
		l.text += len(entries[i].Text) + len(entries[i].Local)
	}
	if len(l.queue) == 0 && cap(l.room) < len(entries) && len(entries) <= maxRoom {
		l.room = make([]Entry, 0, 2*len(entries))
		l.queue = l.room
	}
	l.queue = append(l.queue, entries...)
}

// Local takes the door's own reply, where it is its turn.
func (l *Ledger) Local() ([]byte, bool) {
	if len(l.queue) == 0 || l.queue[0].Local == nil {
		return nil, false
	}
	b := l.queue[0].Local
	l.pop()
	return b, true
}

func (l *Ledger) pop() {
	l.text -= len(l.queue[0].Text) + len(l.queue[0].Local)
	l.queue[0] = Entry{}
	if l.queue = l.queue[1:]; len(l.queue) == 0 {
		l.queue = l.room
	}
	l.told, l.acks = false, 0
}

// ServerError is an error of the server's that is not the reply to a command.
type ServerError string

func (e ServerError) Error() string { return string(e) }

// Answer takes what has come of a reply, before any of it goes to the client: failed is told what failed.
func (l *Ledger) Answer(r *Reply, done bool, failed func(Failure)) error {
	if len(r.Errors) > 0 {
		l.within(r, failed)
		r.Errors = r.Errors[:0]
	}
	if !done {
		if l.open.begun && len(l.queue) > 0 && l.queue[0].Role == exec && r.Kind == '*' {
			l.open.seen = r.element()
		}
		return nil
	}
	if (r.Kind == '>' || r.Kind == '*') && l.published(r) {
		return nil
	}
	if len(l.queue) == 0 {
		if r.IsError() { // a server that ends the connection says so
			return ServerError(r.Text)
		}
		return fmt.Errorf("%w: a reply to nothing", ErrMalformed)
	}
	e, told := l.queue[0], l.told
	l.pop()
	isQueued := r.Kind == '+' && string(r.Text) == "QUEUED"
	if e.Failed != nil {
		*e.Failed = r.IsError() || isQueued // not done, or not yet
	}
	if e.Speaks != 0 && !r.IsError() && !isQueued {
		l.resp3 = e.Speaks == '3'
	}
	if e.Role != Plain || l.open.begun {
		l.transact(&e, r, isQueued, failed)
	}
	if r.IsError() && e.Text != "" && !told {
		failed(Failure{e.Text, message(e.Secret, "", r.Text), e.DB})
	}
	return nil
}

func message[T string | []byte](secret bool, before string, text T) string {
	if secret {
		return LeftOut
	}
	return before + strings.ToValidUTF8(string(text), "�")
}

// published takes what subscribers are sent: acknowledgements, which are replies, and messages.
func (l *Ledger) published(r *Reply) bool {
	waits := len(l.queue) > 0 && l.queue[0].Role >= subscribe
	unasked := r.Kind == '>' || !l.resp3 && l.subs != subscriptions{}
	if !waits && !unasked {
		return false
	}
	word := string(r.Text)
	role := roles[word]
	asked := waits && l.queue[0].Role == role
	if !asked && r.Kind != '>' && (!unasked || !published(word)) {
		return false
	}
	if role < subscribe {
		return true
	}
	if asked && l.acks == 0 {
		l.acks = max(1, l.queue[0].Args)
		if l.queue[0].Args == 0 { // of all that there are
			l.acks = max(1, l.subs.of(role))
		}
	}
	l.subs.became(role, r.Count)
	if asked {
		if l.acks--; l.acks == 0 {
			l.pop()
		}
	}
	return true
}

func (s *subscriptions) of(r Role) int {
	switch r {
	case subscribe, unsubscribe:
		return s.channels
	case psubscribe, punsubscribe:
		return s.patterns
	}
	return s.shards
}

// became takes an acknowledgement's count: redis-server counts channels and patterns together, and shards' channels apart.
func (s *subscriptions) became(r Role, n int) {
	switch r {
	case subscribe, unsubscribe:
		s.channels = max(0, n-s.patterns)
	case psubscribe, punsubscribe:
		s.patterns = max(0, n-s.channels)
	default:
		s.shards = n
	}
}

// within tells of errors among a reply's elements: in EXEC's each belongs to the command in its place.
func (l *Ledger) within(r *Reply, failed func(Failure)) {
	if len(l.queue) == 0 || r.Kind == '>' {
		return
	}
	e := &l.queue[0]
	for _, in := range r.Errors {
		before := ""
		if in.Deep || e.Role != exec {
			before = "within its reply: "
		}
		if e.Role == exec {
			text, secret := l.open.command(in.Element)
			failed(Failure{text, message(secret, before, in.Text), e.DB})
		} else if !l.told && e.Text != "" {
			l.told = true
			failed(Failure{e.Text, message(e.Secret, before, in.Text), e.DB})
		}
	}
}

// transact follows a transaction by what the server says.
func (l *Ledger) transact(e *Entry, r *Reply, isQueued bool, failed func(Failure)) {
	t := &l.open
	why := ""
	switch {
	case e.Role == multi:
		if r.IsError() {
			return
		}
		l.open = transaction{begun: true, db: e.DB, text: t.text[:0], queued: t.queued[:0]}
		return
	case !t.begun:
		return
	case isQueued:
		t.hold(e)
		return
	case e.Role == exec && r.Null:
		why = "not run: a key that was watched had changed"
	case e.Role == exec && r.IsError():
		if !strings.HasPrefix(string(r.Text), "EXECABORT") && !strings.Contains(string(r.Text), "without MULTI") {
			return
		}
		why = "not run: the transaction was discarded"
	case e.Role == exec:
		t.count = 0
	case r.IsError():
		return
	case e.Role == discard:
		why = "not run: DISCARD"
	default:
		why = "the server left the transaction without saying what became of it"
	}
	t.over(0, why, failed)
}

func (t *transaction) hold(e *Entry) {
	if t.count == len(t.queued) && t.count < maxQueued && len(t.text)+len(e.Text) <= maxQueueText {
		t.text = append(t.text, e.Text...)
		t.queued = append(t.queued, queued{len(t.text), e.Secret})
	}
	t.count++
}

// command is one of the transaction's, and whether its error may cite a secret.
func (t *transaction) command(i int) (string, bool) {
	if i >= len(t.queued) {
		return fmt.Sprintf("(command %d of a transaction, whose text is not held)", i+1), true
	}
	start := 0
	if i > 0 {
		start = t.queued[i-1].end
	}
	return string(t.text[start:t.queued[i].end]), t.queued[i].secret
}

// over ends the transaction, and tells what became of its commands but the first ones.
func (t *transaction) over(from int, why string, failed func(Failure)) {
	var b strings.Builder
	say := func(line string) {
		if b.Len() > 0 && b.Len()+len(line) > MaxFailure {
			failed(Failure{b.String(), why, t.db})
			b.Reset()
		}
		if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(line)
	}
	for i := from; i < t.count && i < len(t.queued); i++ {
		text, _ := t.command(i)
		say(text)
	}
	if more := t.count - max(from, len(t.queued)); more > 0 {
		say(fmt.Sprintf("(%d commands of a transaction, whose text is not held)", more))
	}
	if b.Len() > 0 {
		failed(Failure{b.String(), why, t.db})
	}
	if *t = (transaction{text: t.text[:0], queued: t.queued[:0]}); cap(t.text) > MaxFailure {
		t.text, t.queued = nil, nil
	}
}

// Renew is that another connection to the server takes this one's place, when all was answered.
func (l *Ledger) Renew(failed func(Failure)) {
	l.open.over(0, "not run: the transaction ended with its connection to the server", failed)
	l.subs = subscriptions{}
}

// Abandon tells, at the end of the connection, what was sent and not answered, and what was queued and not run.
func (l *Ledger) Abandon(failed func(Failure)) {
	const why = "the connection ended before the server answered"
	end := Plain
	for _, e := range l.queue {
		if e.Role == exec || e.Role == discard {
			end = e.Role
			break
		}
	}
	if end == exec {
		l.open.over(l.open.seen, why, failed)
	} else {
		l.open.over(0, "not run: the connection ended before EXEC", failed)
	}
	var b strings.Builder
	db := 0
	for _, e := range l.queue {
		if e.Text == "" {
			continue
		}
		if b.Len()+len(e.Text) > MaxFailure {
			b.WriteString("…\n")
			break
		}
		db = e.DB
		b.WriteString(e.Text + "\n")
	}
	if b.Len() > 0 {
		failed(Failure{strings.TrimSuffix(b.String(), "\n"), why, db})
	}
	*l = Ledger{}
}
