package mysql

import (
	"context"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
)

// Bounds of what is kept of statements.
const (
	maxPrepared = 16384   // prepared statements of a connection
	maxKept     = 8 << 10 // bytes of a prepared statement's text
	maxLong     = 256     // parameters of one statement that are sent ahead
	recordTime  = 10 * time.Second
	bytesKept   = 16 << 20 // of all prepared statements of a connection
)

var limits = mysql.Limits{Count: 512, Text: 1024}

// statement is one that the client sent.
type statement struct {
	query     string
	params    []string
	use       string // the database that it switches to
	note      string // what was done with it in place of running it
	preparing bool
	recorded  bool
}

// named is a command that is no statement, told by its name.
func (c *conn) named(cmd *command, arg string) *statement {
	return &statement{query: strings.TrimSpace(cmd.code.String() + " " + arg)}
}

// text is a command's argument, up to the NUL that some put behind it.
func text(args []byte) string {
	s, _, _ := strings.Cut(string(args), "\x00")
	return s
}

// record writes what became of a statement; the reply goes on only after it. A later result that fails is recorded once
// more.
func (c *conn) record(st *statement, failure string) error {
	if st == nil || st.recorded && failure == "" {
		return nil
	}
	if st.recorded {
		failure = "a later result: " + failure
	}
	st.recorded = true
	c.open = nil
	query, secret := mysql.Mask(st.query)
	r := database.Statement{DBUser: c.user, DBName: c.db, Query: strings.ToValidUTF8(query, "�"), Parameters: st.params,
		Failed: failure != "", Message: failure}
	if st.preparing {
		r.Message = "while preparing: " + r.Message
	}
	if st.note != "" {
		r.Failed, r.Message = true, strings.TrimSuffix(st.note+"; "+failure, "; ")
	}
	if secret { // the error may cite the statement
		r.Parameters = maskAll(st.params)
		if failure != "" {
			r.Message = "it failed; the error is left out, for it may cite a secret"
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.session.Context()), recordTime)
	defer cancel()
	return c.session.Record(ctx, r)
}

func maskAll(params []string) []string {
	out := make([]string, len(params))
	for i := range out {
		out[i] = "***"
	}
	return out
}

// prepared is a prepared statement of the client's.
type prepared struct {
	text   string
	params int
	types  []mysql.Type
	long   map[uint16]string // what was sent ahead, cut
	lost   bool              // more was, so that nobody can tell which parameter is which
}

// statements are the connection's prepared ones, by the server's id.
type statements struct {
	byID map[uint32]*prepared
	last uint32
	kept int
	long int // bytes of what was sent ahead
}

func (s *statements) add(p mysql.Prepared, st *statement) bool {
	text := strings.Clone(st.query[:min(len(st.query), maxKept)])
	if len(s.byID) >= maxPrepared || s.kept+len(text) > bytesKept {
		return false
	}
	if s.byID == nil {
		s.byID = map[uint32]*prepared{}
	}
	if len(text) < len(st.query) {
		text += "…"
	}
	s.byID[p.ID] = &prepared{text: text, params: int(p.Params)}
	s.last = p.ID
	s.kept += len(text)
	return true
}

// of finds a statement; MariaDB's clients call the last one prepared by -1.
func (s *statements) of(id uint32) *prepared {
	if id == 1<<32-1 {
		id = s.last
	}
	return s.byID[id]
}

// change takes note of COM_STMT_CLOSE and COM_STMT_SEND_LONG_DATA, to which there is no reply, and of COM_STMT_RESET.
func (s *statements) change(cmd *command) {
	if cmd.code != mysql.StmtLongData { // the server forgets what was sent ahead
		id, _ := mysql.Uint32(cmd.args)
		if id == 1<<32-1 {
			id = s.last
		}
		if p := s.byID[id]; p != nil {
			s.forget(p)
			if cmd.code == mysql.StmtClose {
				s.kept -= len(p.text)
				delete(s.byID, id)
			}
		}
		return
	}
	id, param, data, err := mysql.LongData(cmd.args)
	p := s.of(id)
	if err != nil || p == nil {
		return
	}
	if len(p.long) >= maxLong || s.long > bytesKept {
		p.lost = true
		return
	}
	if p.long == nil {
		p.long = map[uint16]string{}
	}
	if was := p.long[param]; len(was) < limits.Text {
		p.long[param] = was + mysql.Text(data, true, limits.Text-len(was))
		s.long += len(p.long[param]) - len(was)
	}
}

// forget drops what was sent ahead for a statement.
func (s *statements) forget(p *prepared) {
	for _, text := range p.long {
		s.long -= len(text)
	}
	p.long, p.lost = nil, false
}

// execution resolves a prepared statement to its text and parameters.
func (c *conn) execution(cmd *command) *statement {
	id, _ := mysql.Uint32(cmd.args)
	p := c.prepared.of(id)
	if p == nil {
		return c.named(cmd, "of a statement that was not prepared")
	}
	st := &statement{query: p.text}
	var cut bool
	if cmd.code == mysql.StmtBulkExecute {
		st.params, p.types, cut = mysql.BulkExecute(cmd.args, p.params, p.types, limits)
	} else {
		st.params, p.types, cut = mysql.Execute(cmd.args, p.params, p.types, p.long, limits)
	}
	if p.lost {
		st.params, cut = nil, true
	}
	c.prepared.forget(p)
	if cut {
		st.params = append(st.params, "…")
	}
	return st
}
