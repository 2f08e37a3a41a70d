package postgres

import (
	"fmt"

	"github.com/sallyport/sallyport/internal/dbwire/postgres/sql"
)

// Named statements and portals. SQL's own PREPARE, DEALLOCATE, DECLARE and CLOSE and the protocol's Parse, Bind and Close
// share their names; none of it is undone with a transaction. What was done the server says by the tags of its
// CommandComplete, which are taken one for one with what the text names, so that of a text that fails in its midst what
// came before counts. The text of a statement is shown while it is sure that the server means that one by the name.

// overhead is what a name costs beside its text.
const overhead = 256

// naming is what a Query or Execute does with names.
type naming struct {
	seen   bool
	list   []sql.Named // what is not done yet
	shown  string      // the texts of what it executes by name
	secret bool        // one of these holds a secret
}

func (p prepared) size() int {
	if p.sql == "" {
		return 0
	}
	return len(p.sql) + overhead
}

func (b bound) size() int {
	n := len(b.Query) + overhead
	for _, v := range b.Parameters {
		n += len(v) + 16
	}
	return n
}

// prepared is the statement that a Parse makes.
func (it *item) prepared() prepared {
	return prepared{sql: it.text.SQL, secrets: it.text.Secrets, secret: it.text.Masked, names: it.text.Names}
}

// prepare puts a statement in place of another; an empty one is none.
func (l *Ledger) prepare(name string, p prepared) {
	if !sql.Trackable(name) {
		return
	}
	if old, has := l.statements[name]; has {
		l.held -= old.size()
		delete(l.statements, name)
	}
	if p.sql == "" {
		return
	}
	if l.statements == nil {
		l.statements = map[string]prepared{}
	}
	l.statements[name] = p
	l.held += p.size()
}

// statement is what is known of a name.
func (l *Ledger) statement(name string) prepared {
	p, ok := l.statements[name]
	switch {
	case !ok:
		p.sql = fmt.Sprintf("(statement %q, text not known)", name)
	case p.doubt:
		p.sql = sql.Shorten(fmt.Sprintf("(statement %q, text not known; prepared as: %s)", name, p.sql))
		p.doubt = false
	}
	return p
}

func (l *Ledger) portal(name string) bound {
	b, ok := l.portals[name]
	switch {
	case !ok:
		b.Query = fmt.Sprintf("(portal %q, text not known)", name)
	case b.doubt:
		b.Query = sql.Shorten(fmt.Sprintf("(portal %q, text not known; bound as: %s)", name, b.Query))
	}
	return b
}

func (l *Ledger) bind(it *item) { l.open(it.name, l.resolve(it)) }

func (l *Ledger) open(name string, b bound) {
	if !sql.Trackable(name) {
		return
	}
	l.close(name)
	if l.portals == nil {
		l.portals = map[string]bound{}
	}
	l.portals[name] = b
	l.held += b.size()
}

func (l *Ledger) close(name string) {
	if old, has := l.portals[name]; has {
		l.held -= old.size()
		delete(l.portals, name)
	}
}

// resolve is the statement that a Bind names, with its parameters.
func (l *Ledger) resolve(it *item) bound {
	p := l.statement(it.source)
	if sure, has := l.statements[it.source]; !has || sure.doubt { // any may be a secret
		for i := range it.values {
			it.values[i] = sql.Hidden
		}
	}
	for _, n := range p.secrets {
		if n >= 1 && n <= len(it.values) {
			it.values[n-1] = sql.Hidden
		}
	}
	return bound{Outcome: Outcome{Query: p.sql, Parameters: it.values}, prepared: p}
}

// see looks at what a Query or an Execute names before anything of it is done, and what it executes by name.
func (l *Ledger) see(it *item) {
	if it.naming.seen || it.kind != 'Q' && it.kind != 'E' {
		return
	}
	n := naming{seen: true, list: it.text.Names}
	if it.kind == 'E' {
		n.list = l.portals[it.name].prepared.names
	} else { // the server puts these down at each Query that it can read
		l.unsure("")
	}
	if it.refusal != nil {
		n.list = nil
	}
	var made map[string]prepared // by the text itself
	for _, d := range n.list {
		switch d.Do {
		case sql.Prepares:
			if made == nil {
				made = map[string]prepared{}
			}
			made[d.Name] = prepared{} // its text is this one
		case sql.Executes:
			if _, own := made[d.Name]; own || len(n.shown) > sql.MaxText {
				continue
			}
			p := l.statement(d.Name)
			n.shown += " -- " + p.sql
			n.secret = n.secret || p.secret
		}
	}
	it.naming = n
}

// did takes the tag of a statement that has succeeded.
func (l *Ledger) did(it *item, tag string) {
	l.see(it)
	do := sql.ByTag(tag)
	if do == 0 {
		return
	}
	n := &it.naming
	for len(n.list) > 0 && n.list[0].Do == sql.Executes {
		n.list = n.list[1:]
	}
	switch {
	case len(n.list) > 0 && n.list[0].Do == do:
		d := n.list[0]
		n.list = n.list[1:]
		l.apply(it, d)
	case do == sql.Codes: // of a kind that does nothing here
	default: // it was read otherwise than the server reads it
		l.doubt()
	}
}

func (l *Ledger) apply(it *item, d sql.Named) {
	known := d.Name != ""
	switch d.Do {
	case sql.Prepares:
		p := prepared{sql: it.text.SQL, secrets: it.text.Secrets, secret: it.text.Masked}
		if it.kind == 'E' {
			p = l.portals[it.name].prepared
			p.names = nil
		}
		if l.Crowded() {
			p = prepared{}
		}
		if known {
			l.prepare(d.Name, p)
		}
	case sql.Deallocates:
		if known {
			l.prepare(d.Name, prepared{})
			return
		}
		l.doubt()
	case sql.DeallocateAll, sql.DiscardAll:
		for name := range l.statements {
			if name != "" {
				l.prepare(name, prepared{})
			}
		}
	case sql.Declares:
		if known && !l.Crowded() {
			l.open(d.Name, bound{Outcome: Outcome{Query: it.text.SQL}, prepared: prepared{secret: it.text.Masked}})
		} else {
			l.close(d.Name)
		}
	case sql.Closes, sql.CloseAll:
		for name := range l.portals {
			if !known && name != "" || name == d.Name {
				l.close(name)
			}
		}
	default:
		l.doubt()
	}
}

// settle looks, at the end of a message, at what its text names and no tag has told of.
func (l *Ledger) settle(it *item, failed bool) {
	for _, d := range it.naming.list {
		switch {
		case d.Do == sql.Executes:
		case !failed || d.Do == sql.Codes || d.Do == sql.Unclear || d.Do == sql.DeallocateAll || d.Do == sql.DiscardAll || d.Do == sql.Deallocates && d.Name == "":
			l.doubt()
		case d.Do == sql.Deallocates: // the failure may have come after it
			if p, has := l.statements[d.Name]; has {
				p.doubt = true
				l.statements[d.Name] = p
			}
		}
	}
	it.naming.list = nil
}

// unsure is that a statement and a portal of a name may be gone.
func (l *Ledger) unsure(name string) {
	if p, has := l.statements[name]; has {
		p.doubt = true
		l.statements[name] = p
	}
	if b, has := l.portals[name]; has {
		b.doubt = true
		l.portals[name] = b
	}
}

// doubt is that any name may have become another's.
func (l *Ledger) doubt() {
	for name, p := range l.statements {
		if p.doubt = true; name != "" { // which SQL cannot name
			l.statements[name] = p
		}
	}
	for name, b := range l.portals {
		if b.doubt = true; name != "" {
			l.portals[name] = b
		}
	}
}
