package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// maxBatch bounds how many transactions share one fsync, and with it how long the first of them waits.
const maxBatch = 256

// sweepBatch is how many expired records one sweep deletes.
const sweepBatch = 1000

// request is a transaction on its way to the writer.
type request struct {
	ctx   context.Context
	ops   []store.Op
	sweep bool
	done  chan result // buffered; gets at most one
}

type result struct {
	revision uint64
	err      error
}

// writer owns the one connection that writes. Only its goroutine touches it.
type writer struct {
	db       *sql.DB
	conn     *sql.Conn
	now      func() time.Time
	revision uint64 // of the last committed transaction

	get, put, del, bump *sql.Stmt
}

func openWriter(ctx context.Context, file string, now func() time.Time) (*writer, uint64, error) {
	db, err := sql.Open("sqlite", dsn(file, "journal_mode(WAL)", "synchronous(FULL)", "journal_size_limit(67108864)"))
	if err != nil {
		return nil, 0, fmt.Errorf("open state: %w", err)
	}
	w := &writer{db: db, now: now}
	if w.conn, err = db.Conn(ctx); err == nil {
		if err = w.migrate(ctx, file); err == nil {
			err = w.prepare(ctx)
		}
	}
	if err != nil {
		return nil, 0, errors.Join(describe("open state", err), w.close())
	}
	return w, w.revision, nil
}

// migrate checks the file's version before anything is written to it.
func (w *writer) migrate(ctx context.Context, file string) error {
	var version int
	if err := w.conn.QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return err
	}
	if version > schemaVersion {
		return fault.New(fault.Unsupported, "the state in %s has version %d, and this program knows versions up to %d",
			file, version, schemaVersion).WithReason("state_newer").
			WithFix("start the sallyport that wrote it, or a newer one")
	}
	if version == 0 {
		if err := w.create(ctx); err != nil {
			return err
		}
	}
	return w.conn.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'revision'`).Scan(&w.revision)
}

func (w *writer) create(ctx context.Context) error {
	tx, err := w.conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	for _, q := range append(schema, `INSERT INTO meta VALUES ('revision', 0)`,
		fmt.Sprintf(`PRAGMA user_version = %d`, schemaVersion)) {
		if _, err := tx.ExecContext(ctx, q); err != nil {
			return err
		}
	}
	return tx.Commit()
}

func (w *writer) prepare(ctx context.Context) error {
	for _, p := range []struct {
		into  **sql.Stmt
		query string
	}{
		{&w.get, `SELECT revision FROM records WHERE key = ? AND (expires = 0 OR expires > ?)`},
		{&w.put, `INSERT INTO records (key, value, revision, expires) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE
			SET value = excluded.value, revision = excluded.revision, expires = excluded.expires`},
		{&w.del, `DELETE FROM records WHERE key = ?`},
		{&w.bump, `UPDATE meta SET value = ? WHERE name = 'revision'`},
	} {
		stmt, err := w.conn.PrepareContext(ctx, p.query)
		if err != nil {
			return err
		}
		*p.into = stmt
	}
	return nil
}

func (w *writer) close() error {
	var errs []error
	if w.conn != nil {
		errs = append(errs, w.conn.Close())
	}
	return errors.Join(append(errs, w.db.Close())...)
}

// run commits what comes until closing; what is queued by then is refused by the senders themselves.
func (w *writer) run(queue <-chan *request, closing <-chan struct{}, h *hub) {
	defer func() { _ = w.close() }() // every commit has been synced
	for {
		select {
		case <-closing:
			return
		case first := <-queue:
			w.commit(gather(first, queue), h)
		}
	}
}

func gather(first *request, queue <-chan *request) []*request {
	batch := []*request{first}
	for len(batch) < maxBatch {
		select {
		case r := <-queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}

// commit applies a batch in one SQLite transaction. A refused request has written nothing, because its conditions
// are judged before its first write; an error of SQLite's own fails the whole batch.
func (w *writer) commit(batch []*request, h *hub) {
	results := make([]result, len(batch))
	before := w.revision
	changes, err := w.apply(batch, results)
	if err != nil {
		w.revision = before
		_, _ = w.conn.ExecContext(context.Background(), `ROLLBACK`) // SQLite may have done so itself
	} else {
		h.publish(changes, w.revision)
	}
	for i, r := range batch {
		if err != nil && results[i].err == nil {
			results[i] = result{err: err}
		}
		r.done <- results[i]
	}
}

func (w *writer) apply(batch []*request, results []result) ([]store.Change, error) {
	ctx := context.Background()
	if _, err := w.conn.ExecContext(ctx, `BEGIN IMMEDIATE`); err != nil {
		return nil, err
	}
	var changes []store.Change
	for i, r := range batch {
		if results[i].err = context.Cause(r.ctx); results[i].err != nil {
			continue
		}
		events, refused, err := w.applyOne(ctx, r)
		if err != nil {
			return nil, err
		}
		if results[i].err = refused; refused != nil {
			continue
		}
		if len(events) > 0 {
			changes = append(changes, store.Change{Revision: w.revision, Events: events})
		}
		results[i].revision = w.revision
	}
	if len(changes) == 0 { // nothing to make durable
		_, err := w.conn.ExecContext(ctx, `ROLLBACK`)
		return nil, err
	}
	if _, err := w.bump.ExecContext(ctx, w.revision); err != nil {
		return nil, err
	}
	_, err := w.conn.ExecContext(ctx, `COMMIT`)
	return changes, err
}

// applyOne does one request and returns what changed, or why it was refused.
func (w *writer) applyOne(ctx context.Context, r *request) (events []store.Event, refused, err error) {
	ops := r.ops
	if r.sweep {
		ops, err = w.expired(ctx)
	} else {
		refused, err = w.judge(ctx, ops)
	}
	if err != nil || refused != nil {
		return nil, refused, err
	}
	revision := w.revision + 1
	for _, o := range ops {
		if !o.Writes() {
			continue
		}
		e, changed, err := w.write(ctx, o, revision)
		if err != nil {
			return nil, nil, err
		}
		if changed {
			events = append(events, e)
		}
	}
	if len(events) > 0 {
		w.revision = revision
	}
	return events, nil, nil
}

// judge compares every condition with the state before the request.
func (w *writer) judge(ctx context.Context, ops []store.Op) (refused, err error) {
	now := w.now().UnixMicro()
	for _, o := range ops {
		if o.Kind != store.OpCreate && o.Kind != store.OpCheckRevision {
			continue
		}
		var have uint64
		err := w.get.QueryRowContext(ctx, o.Key, now).Scan(&have)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return nil, err
		}
		if have != o.Revision { // Create has revision 0: no such record
			return &store.ConflictError{Key: o.Key, Revision: have}, nil
		}
	}
	return nil, nil
}

func (w *writer) write(ctx context.Context, o store.Op, revision uint64) (store.Event, bool, error) {
	if o.Kind == store.OpDelete {
		res, err := w.del.ExecContext(ctx, o.Key)
		if err != nil {
			return store.Event{}, false, err
		}
		n, err := res.RowsAffected()
		return store.Event{Record: store.Record{Key: o.Key, Revision: revision}, Deleted: true}, n > 0, err
	}
	var expires int64
	r := store.Record{Key: o.Key, Value: o.Value, Revision: revision}
	if !o.Expires.IsZero() {
		expires = max(o.Expires.UnixMicro(), 1) // 0 would be never
		r.Expires = time.UnixMicro(expires).UTC()
	}
	_, err := w.put.ExecContext(ctx, o.Key, o.Value, revision, expires)
	return store.Event{Record: r}, true, err
}

// expired lists the records to sweep as deletions.
func (w *writer) expired(ctx context.Context) ([]store.Op, error) {
	rows, err := w.conn.QueryContext(ctx, `SELECT key FROM records WHERE expires > 0 AND expires <= ?
		ORDER BY expires LIMIT ?`, w.now().UnixMicro(), sweepBatch)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ops []store.Op
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		ops = append(ops, store.Delete(key))
	}
	return ops, rows.Err()
}
