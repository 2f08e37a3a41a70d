package mysql

import (
	"errors"
	"fmt"

	"github.com/sallyport/sallyport/internal/database/mysql/server"
	"github.com/sallyport/sallyport/internal/dbwire/mysql"
	"github.com/sallyport/sallyport/internal/fault"
)

// Bounds of what a reply may hold besides its rows.
const (
	maxColumns = 1 << 16
	maxEnd     = 1 << 20 // bytes of an OK, EOF or ERR packet
)

// head looks at the reply's next packet: its payload's length and first byte. What the client has coming goes out before
// the server is waited for.
func (c *conn) head() (n int, first byte, err error) {
	h, err := c.ahead(mysql.HeaderLen + 1)
	if err != nil {
		return 0, 0, err
	}
	n, _ = mysql.Header(h)
	if n == 0 {
		return 0, 0, &server.LostError{Err: fmt.Errorf("%w: an empty reply", mysql.ErrMalformed)}
	}
	return n, h[mysql.HeaderLen], nil
}

// pass passes the next packet on, and what it goes on in. One that fits the buffer goes on in one piece, so that what ends
// the connection ends it between packets.
func (c *conn) pass() error {
	for {
		h, err := c.ahead(mysql.HeaderLen)
		if err != nil {
			return err
		}
		size, seq := mysql.Header(h)
		seq -= c.skew
		h[3], c.client.Seq = seq, seq+1
		if whole := mysql.HeaderLen + size; whole <= c.server.R.Size() {
			if _, err := c.ahead(whole); err != nil {
				return err
			}
		}
		if err := c.copy(mysql.HeaderLen + size); err != nil {
			return err
		}
		if c.torn = size == mysql.MaxChunk; !c.torn {
			return nil
		}
	}
}

// ahead looks at what comes next from the server; before it waits, what the client has coming goes out.
func (c *conn) ahead(n int) ([]byte, error) {
	if c.server.R.Buffered() < n {
		if err := c.client.W.Flush(); err != nil {
			return nil, errGone
		}
	}
	b, err := c.server.R.Peek(n)
	if err != nil {
		return nil, &server.LostError{Err: err}
	}
	return b, nil
}

func (c *conn) copy(n int) error {
	r := c.server.R
	for n > 0 {
		b, err := r.Peek(min(n, max(r.Buffered(), 1)))
		if err != nil {
			return &server.LostError{Err: err}
		}
		if _, err := c.client.W.Write(b); err != nil {
			return errGone
		}
		r.Discard(len(b))
		n -= len(b)
		c.torn = n > 0
	}
	return nil
}

// payload reads the next packet, and gives the number that it has for the client.
func (c *conn) payload() ([]byte, byte, error) {
	b, seq, err := mysql.Read(c.server.R, maxEnd)
	if err != nil {
		return nil, 0, &server.LostError{Err: err}
	}
	return b, seq - c.skew, nil
}

func (c *conn) emit(payload []byte, seq byte) error {
	c.client.Seq = seq
	if err := c.client.Send(payload); err != nil {
		return errGone
	}
	return nil
}

// result passes on the reply to a statement, with all of its results.
func (c *conn) result(st *statement) error {
	for {
		n, first, err := c.head()
		if err != nil {
			return err
		}
		var more bool
		switch {
		case first == mysql.HeadErr:
			err = c.failed(st)
		case first == mysql.HeadOK, c.endsRows(n, first):
			more, err = c.finished(st)
		case first == mysql.HeadInfile:
			more, err = true, c.refuseFile(st)
		default:
			more, err = c.rows(st)
		}
		if err != nil || !more {
			return err
		}
	}
}

// endsRows reports whether a packet ends rows.
func (c *conn) endsRows(n int, first byte) bool {
	if c.caps&mysql.DeprecateEOF != 0 {
		return first == mysql.HeadEOF && n < mysql.MaxChunk
	}
	return first == mysql.HeadEOF && n < 9
}

// failed passes an error on.
func (c *conn) failed(st *statement) error {
	b, seq, err := c.payload()
	if err != nil {
		return err
	}
	var own *mysql.Error
	if err := mysql.ParseError(b); !errors.As(err, &own) {
		return &server.LostError{Err: err}
	}
	if err := c.record(st, own.Error()); err != nil {
		return err
	}
	return c.emit(b, seq)
}

// finished passes on an OK packet, or what ends rows, and reports whether another result follows.
func (c *conn) finished(st *statement) (bool, error) {
	b, seq, err := c.payload()
	if err != nil {
		return false, err
	}
	end, err := mysql.ParseOK(b, c.server.Tracked)
	if b[0] == mysql.HeadEOF && c.caps&mysql.DeprecateEOF == 0 {
		end, err = mysql.ParseEOF(b)
	} else if err == nil {
		b = c.plain(b, end)
	}
	if err != nil {
		return false, &server.LostError{Err: err}
	}
	if err := c.record(st, ""); err != nil {
		return false, err
	}
	more := end.Status&mysql.StatusMore != 0
	if st != nil && st.use != "" && !more && !c.server.Tracked {
		c.db = st.use
	}
	if err := c.moved(end); err != nil {
		return false, err
	}
	return more, c.emit(b, seq)
}

// moved takes note of a change of the default database that the server tells of. The gate has let it in where the
// statement's text showed it; where it did not, it is asked now, and its refusal ends the connection.
func (c *conn) moved(end mysql.End) error {
	if !end.Moved || end.Schema == c.db {
		return nil
	}
	if end.Schema != "" {
		if err := c.session.Also(c.session.Context(), c.user, end.Schema); err != nil {
			return marked(err, reasonDB)
		}
	}
	c.db = end.Schema
	return nil
}

// refuseFile answers the server's request for a file of the client's, of which the client does not hear: with nothing, as
// a client does that has no such file. What the server says to that is the statement's outcome.
func (c *conn) refuseFile(st *statement) error {
	_, seq, err := c.payload()
	if err != nil {
		return err
	}
	if st != nil {
		st.note = "LOCAL INFILE is refused: the server was sent no file"
	}
	w := c.server.W
	w.Write(mysql.Append(nil, nil, seq+c.skew+1))
	c.skew += 2
	if err := w.Flush(); err != nil {
		return &server.LostError{Err: err}
	}
	return nil
}

// rows passes on one result with rows, and reports whether another result follows.
func (c *conn) rows(st *statement) (bool, error) {
	b, seq, err := c.payload()
	if err != nil {
		return false, err
	}
	n, err := mysql.Columns(b)
	if err != nil || n == 0 || n > maxColumns {
		return false, &server.LostError{Err: fmt.Errorf("%w: %d columns", mysql.ErrMalformed, n)}
	}
	if err := c.record(st, ""); err != nil {
		return false, err
	}
	if err := c.emit(b, seq); err != nil {
		return false, err
	}
	end, err := c.definitions(int(n))
	if err != nil || end.Status&mysql.StatusCursor != 0 {
		return end.Status&mysql.StatusMore != 0, err
	}
	return c.rowsOnly(st)
}

// rowsOnly passes on rows and what ends them.
func (c *conn) rowsOnly(st *statement) (bool, error) {
	for {
		n, first, err := c.head()
		switch {
		case err != nil:
			return false, err
		case first == mysql.HeadErr:
			return false, c.failed(st)
		case c.endsRows(n, first):
			return c.finished(st)
		}
		if err := c.pass(); err != nil {
			return false, err
		}
	}
}

// definitions passes on columns' definitions, and the EOF packet behind them where there is one.
func (c *conn) definitions(n int) (mysql.End, error) {
	for range n {
		if err := c.pass(); err != nil {
			return mysql.End{}, err
		}
	}
	if c.caps&mysql.DeprecateEOF != 0 {
		return mysql.End{}, nil
	}
	if _, _, err := c.head(); err != nil {
		return mysql.End{}, err
	}
	b, seq, err := c.payload()
	if err != nil {
		return mysql.End{}, err
	}
	end, err := mysql.ParseEOF(b)
	if err != nil {
		return mysql.End{}, &server.LostError{Err: err}
	}
	return end, c.emit(b, seq)
}

// fetched passes on the reply to COM_STMT_FETCH.
func (c *conn) fetched(st *statement) error {
	_, err := c.rowsOnly(st)
	return err
}

// fields passes on the reply to COM_FIELD_LIST: definitions, as rows are.
func (c *conn) fields(st *statement) error {
	if _, first, err := c.head(); err != nil {
		return err
	} else if first == mysql.HeadErr {
		return c.failed(st)
	}
	if err := c.record(st, ""); err != nil {
		return err
	}
	_, err := c.rowsOnly(st)
	return err
}

// events passes on what a replica is sent, until the server ends it.
func (c *conn) events(st *statement) error {
	for {
		n, first, err := c.head()
		switch {
		case err != nil:
			return err
		case first == mysql.HeadErr:
			return c.failed(st)
		}
		if err := c.record(st, ""); err != nil {
			return err
		}
		if err := c.pass(); err != nil || first == mysql.HeadEOF && n < 9 {
			return err
		}
	}
}

// preparing passes on the reply to COM_STMT_PREPARE.
func (c *conn) preparing(st *statement) error {
	_, first, err := c.head()
	if err != nil {
		return err
	}
	if first == mysql.HeadErr {
		return c.failed(st)
	}
	b, seq, err := c.payload()
	if err != nil {
		return err
	}
	p, err := mysql.ParsePrepared(b)
	if err != nil || first != mysql.HeadOK {
		return &server.LostError{Err: fmt.Errorf("%w: reply to a preparation", mysql.ErrMalformed)}
	}
	c.open = nil // it runs when it is executed
	if !c.prepared.add(p, st) {
		return fault.New(fault.Exhausted, "too many prepared statements are open on this connection").WithFix("close some")
	}
	if err := c.emit(b, seq); err != nil {
		return err
	}
	for _, n := range []uint16{p.Params, p.Columns} {
		if n == 0 {
			continue
		}
		if _, err := c.definitions(int(n)); err != nil {
			return err
		}
	}
	return nil
}
