// Package sqlite is the embedded store: one SQLite file, one process.
//
// A single goroutine writes. It commits the transactions that wait together as one SQLite transaction, so that they
// share one fsync (WAL, synchronous=FULL); each is still judged and applied by itself. Reads go past it through a pool
// of connections. Changes for watchers are kept in memory: after a restart every older revision is compacted.
package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// schemaVersion is the layout of the state file that this program writes; it refuses a higher one.
const schemaVersion = 1

const (
	fileName = "state.db"
	lockName = "state.lock"
	readers  = 4
)

var schema = []string{
	`CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID`,
	`CREATE TABLE IF NOT EXISTS records (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,
		expires INTEGER NOT NULL) STRICT`, // expires: microseconds since 1970, 0 never
	`CREATE INDEX IF NOT EXISTS expiring ON records (expires) WHERE expires > 0`,
}

// Config is what a store is opened with; Dir and Now are needed.
type Config struct {
	Dir        string           // made 0700 where missing; the files in it are 0600
	Now        func() time.Time // what records expire by
	SweepEvery time.Duration    // how often expired records are deleted; 0: every second
	History    int              // how many records' changes are kept for watchers; 0: 65536
}

// Store is a store.Store in a file.
type Store struct {
	read   *sql.DB
	now    func() time.Time
	hub    *hub
	queue  chan *request
	unlock func()

	closing chan struct{} // closed by Close; ends writer and sweeper
	stopped chan struct{} // closed when the writer has ended
	once    sync.Once
	running sync.WaitGroup
}

var _ store.Store = (*Store)(nil)

// Open opens the state in a directory, or begins one. A directory that another process uses, a file that a newer
// program wrote and a file that is no state are faults that say so.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Dir == "" || cfg.Now == nil {
		return nil, errors.New("store without a directory or a clock")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	unlock, err := lock(filepath.Join(cfg.Dir, lockName))
	if err != nil {
		return nil, err
	}
	s, err := open(ctx, cfg)
	if err != nil {
		unlock()
		return nil, err
	}
	s.unlock = unlock
	return s, nil
}

func open(ctx context.Context, cfg Config) (*Store, error) {
	file := filepath.Join(cfg.Dir, fileName)
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE, 0o600) // SQLite gives its other files the same mode
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	if err := f.Close(); err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	w, revision, err := openWriter(ctx, file, cfg.Now)
	if err != nil {
		return nil, err
	}
	read, err := sql.Open("sqlite", dsn(file, "query_only(1)"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open state for reading: %w", err), w.close())
	}
	read.SetMaxOpenConns(readers)
	read.SetMaxIdleConns(readers)
	s := &Store{read: read, now: cfg.Now, hub: newHub(revision, cfg.History), queue: make(chan *request, 1024),
		closing: make(chan struct{}), stopped: make(chan struct{})}
	s.running.Go(func() {
		defer close(s.stopped)
		w.run(s.queue, s.closing, s.hub)
	})
	every := cfg.SweepEvery
	if every <= 0 {
		every = time.Second
	}
	s.running.Go(func() { s.sweepEvery(every) })
	return s, nil
}

func dsn(file string, pragmas ...string) string {
	q := url.Values{"_pragma": append([]string{"busy_timeout(10000)"}, pragmas...)}
	return "file:" + (&url.URL{Path: file}).EscapedPath() + "?" + q.Encode()
}

// Get returns one record.
func (s *Store) Get(ctx context.Context, key string) (store.Record, error) {
	row := s.read.QueryRowContext(ctx, `SELECT key, value, revision, expires FROM records
		WHERE key = ? AND (expires = 0 OR expires > ?)`, key, s.now().UnixMicro())
	r, err := scanRecord(row)
	if errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("%s: %w", key, store.ErrNotFound)
	}
	return r, s.fail("read record", err)
}

func scanRecord(row interface{ Scan(...any) error }) (store.Record, error) {
	var r store.Record
	var expires int64
	if err := row.Scan(&r.Key, &r.Value, &r.Revision, &expires); err != nil {
		return store.Record{}, err
	}
	if expires != 0 {
		r.Expires = time.UnixMicro(expires).UTC()
	}
	return r, nil
}

// List returns a page; its records and its revision are of one moment.
func (s *Store) List(ctx context.Context, r store.Range) (store.Page, error) {
	if r.Limit <= 0 || r.Limit > store.MaxPage {
		r.Limit = store.MaxPage
	}
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return store.Page{}, s.fail("list records", err)
	}
	defer func() { _ = tx.Rollback() }() // it has only read
	var p store.Page
	if err := tx.QueryRowContext(ctx, `SELECT value FROM meta WHERE name = 'revision'`).Scan(&p.Revision); err != nil {
		return store.Page{}, s.fail("list records", err)
	}
	query, args := listQuery(r, s.now())
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return store.Page{}, s.fail("list records", err)
	}
	defer rows.Close()
	for rows.Next() {
		rec, err := scanRecord(rows)
		if err != nil {
			return store.Page{}, s.fail("list records", err)
		}
		if len(p.Records) == r.Limit {
			p.More = true
			break
		}
		p.Records = append(p.Records, rec)
	}
	return p, s.fail("list records", rows.Err())
}

// listQuery bounds the key on both sides, which lets SQLite walk its index. Keys hold no byte above '~'.
func listQuery(r store.Range, now time.Time) (string, []any) {
	low, high, lowCmp, highCmp, order := r.Prefix, r.Prefix+"\x7f", ">=", "<", "ASC"
	if r.Descending {
		order = "DESC"
		if r.After != "" && r.After < high {
			high = r.After
		}
	} else if r.After >= low && r.After != "" {
		low, lowCmp = r.After, ">"
	}
	return `SELECT key, value, revision, expires FROM records WHERE key ` + lowCmp + ` ? AND key ` + highCmp +
		` ? AND (expires = 0 OR expires > ?) ORDER BY key ` + order + ` LIMIT ` + strconv.Itoa(r.Limit+1), []any{low, high, now.UnixMicro()}
}

// Txn hands the operations to the writer.
func (s *Store) Txn(ctx context.Context, ops []store.Op) (uint64, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	return s.do(ctx, &request{ctx: ctx, ops: copyOps(ops), done: make(chan result, 1)})
}

// copyOps lets watchers keep what was written whatever the caller does with its bytes.
func copyOps(ops []store.Op) []store.Op {
	c := make([]store.Op, len(ops))
	for i, o := range ops {
		o.Value = append(make([]byte, 0, len(o.Value)), o.Value...)
		c[i] = o
	}
	return c
}

func (s *Store) do(ctx context.Context, r *request) (uint64, error) {
	select {
	case <-s.closing:
		return 0, store.ErrClosed
	default:
	}
	select {
	case s.queue <- r:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-s.closing:
		return 0, store.ErrClosed
	}
	select {
	case res := <-r.done:
		return res.revision, s.fail("write state", res.err)
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-s.stopped:
		select { // the writer may have answered before it ended
		case res := <-r.done:
			return res.revision, s.fail("write state", res.err)
		default:
			return 0, store.ErrClosed
		}
	}
}

// sweepEvery deletes expired records; what fails is tried again at the next tick.
func (s *Store) sweepEvery(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-tick.C:
			_, _ = s.do(context.Background(), &request{ctx: context.Background(), sweep: true, done: make(chan result, 1)})
		}
	}
}

// Close ends watches, lets the writer finish what it has begun and closes the file.
func (s *Store) Close() error {
	var err error
	s.once.Do(func() {
		close(s.closing)
		s.running.Wait()
		s.hub.close()
		err = s.read.Close()
		s.unlock()
	})
	return err
}

// fail turns what SQLite says into what callers can act on; nil and the store's own errors pass.
func (s *Store) fail(what string, err error) error {
	var conflict *store.ConflictError
	if err == nil || errors.As(err, &conflict) {
		return err
	}
	select {
	case <-s.closing:
		return store.ErrClosed
	default:
	}
	return describe(what, err)
}

func describe(what string, err error) error {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		switch lite.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return fault.New(fault.Exhausted, "the disk that holds the cluster's state is full").
				WithReason("disk_full").WithFix("free space in the data directory").Wrapping(err)
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return fault.New(fault.Internal, "the cluster's state file is damaged").
				WithReason("state_damaged").WithFix("tctl restore FILE").Wrapping(err)
		case sqlite3.SQLITE_IOERR:
			return fault.New(fault.Unavailable, "the cluster's state cannot be read or written").
				WithReason("state_io").Wrapping(err)
		}
	}
	return fmt.Errorf("%s: %w", what, err)
}
