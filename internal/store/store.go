// Package store holds records with revisions, changes them in transactions, and tells who watches.
//
//	key       a path of printable ASCII without space, "role/access", at most 512 bytes
//	value     bytes, at most 1 MiB; a transaction carries at most 1.25 MiB of keys and values
//	revision  one counter for the whole store; each transaction that writes takes the next
//	expiry    a record whose time has come is returned by nothing and matches revision 0; a sweep deletes it later,
//	          and watchers see that as a deletion
//
// Backends live below this package and pass the suite in storetest. A backend takes its clock from its caller.
package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Limits that every backend holds; they are what etcd takes by default.
const (
	MaxOps   = 100
	MaxKey   = 512
	MaxValue = 1 << 20
	MaxTxn   = MaxValue + MaxValue/4
	MaxPage  = 1000 // records that one List returns; also what Limit 0 means
)

// What a store's methods fail with, beside the context's errors and a backend's faults; compare with errors.Is.
var (
	ErrNotFound  = errors.New("record not found")
	ErrConflict  = errors.New("record changed") // always a *ConflictError, which names the key
	ErrCompacted = errors.New("changes since that revision are no longer known")
	ErrTooLarge  = errors.New("too large for the store")
	ErrClosed    = errors.New("store is closed")
)

// Store is one backend. Its methods may be called by many goroutines at once.
type Store interface {
	// Get returns one record, or ErrNotFound.
	Get(ctx context.Context, key string) (Record, error)
	// List returns a page of records in the order of their keys' bytes.
	List(ctx context.Context, r Range) (Page, error)
	// Txn does all ops or none and returns the revision that it made; without a write, the current one. All
	// conditions are judged on the state before the transaction; no key may be written twice. It has been made durable
	// when Txn returns. An error of ctx leaves open whether it was done. The store keeps no reference to ops.
	Txn(ctx context.Context, ops []Op) (uint64, error)
	// Watch yields, in order, one Change for each transaction after revision `after` that wrote below prefix, and
	// waits for more, until ctx ends or the loop is left. The last pair carries the error: ctx's, ErrClosed, or
	// ErrCompacted, upon which the caller lists again and watches from the page's revision.
	Watch(ctx context.Context, prefix string, after uint64) iter.Seq2[Change, error]
	// Close waits for what runs, ends watches with ErrClosed and gives everything back.
	Close() error
}

// Record is a key with what is stored under it. Readers must not change Value.
type Record struct {
	Key      string
	Value    []byte
	Revision uint64    // of the transaction that wrote it last
	Expires  time.Time // zero: never; kept to the microsecond
}

// Range selects records: keys that begin with Prefix and come behind After (a whole key; in the order of listing),
// at most Limit of them.
type Range struct {
	Prefix     string
	After      string
	Limit      int
	Descending bool
}

// Page is what List found. Revision is the store's when it looked: who reads several pages and then watches from the
// first page's revision misses nothing.
type Page struct {
	Records  []Record
	Revision uint64
	More     bool
}

// Change is what one transaction did below a watched prefix.
type Change struct {
	Revision uint64
	Events   []Event
}

// Event is one record written or deleted; a deleted one has no value.
type Event struct {
	Record
	Deleted bool
}

// OpKind says what an Op does. The zero kind is refused.
type OpKind uint8

// The kinds of operation.
const (
	OpPut OpKind = iota + 1
	OpCreate
	OpDelete
	OpCheckRevision
)

// Op is one operation of a transaction; make it with Put, Create, Delete or CheckRevision.
type Op struct {
	Kind     OpKind
	Key      string
	Value    []byte
	Revision uint64
	Expires  time.Time
}

// Put writes a record whether or not there is one.
func Put(key string, value []byte) Op { return Op{Kind: OpPut, Key: key, Value: value} }

// Create writes a record and demands that there was none.
func Create(key string, value []byte) Op { return Op{Kind: OpCreate, Key: key, Value: value} }

// Delete removes a record; one that is not there is left alone.
func Delete(key string) Op { return Op{Kind: OpDelete, Key: key} }

// CheckRevision demands that the record has this revision; 0, that there is none.
func CheckRevision(key string, revision uint64) Op {
	return Op{Kind: OpCheckRevision, Key: key, Revision: revision}
}

// Until returns the operation with an expiry for what it writes.
func (o Op) Until(t time.Time) Op {
	o.Expires = t
	return o
}

// Writes reports whether the operation changes its record.
func (o Op) Writes() bool { return o.Kind != OpCheckRevision }

// ConflictError is the ErrConflict of a transaction: Key is the first whose condition failed, Revision what it has
// now (0: no such record).
type ConflictError struct {
	Key      string
	Revision uint64
}

// Error names the key.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("record changed: %s is at revision %d", e.Key, e.Revision)
}

// Is makes it an ErrConflict.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// CheckOps refuses a transaction that no backend takes: each calls it first.
func CheckOps(ops []Op) error {
	if len(ops) == 0 || len(ops) > MaxOps {
		return fmt.Errorf("transaction of %d operations: %w", len(ops), ErrTooLarge)
	}
	total, written := 0, make(map[string]bool, len(ops))
	for _, o := range ops {
		if err := o.check(); err != nil {
			return err
		}
		total += len(o.Key) + len(o.Value)
		if !o.Writes() {
			continue
		}
		if written[o.Key] {
			return fmt.Errorf("key %q written twice in a transaction", o.Key)
		}
		written[o.Key] = true
	}
	if total > MaxTxn {
		return fmt.Errorf("transaction of %d bytes: %w", total, ErrTooLarge)
	}
	return nil
}

func (o Op) check() error {
	if o.Kind < OpPut || o.Kind > OpCheckRevision {
		return fmt.Errorf("unknown operation %d on key %q", o.Kind, o.Key)
	}
	if len(o.Key) > MaxKey {
		return fmt.Errorf("key of %d bytes: %w", len(o.Key), ErrTooLarge)
	}
	if len(o.Value) > MaxValue {
		return fmt.Errorf("value of %d bytes under %q: %w", len(o.Value), o.Key, ErrTooLarge)
	}
	return checkKey(o.Key)
}

func checkKey(key string) error {
	outside := func(r rune) bool { return r <= ' ' || r > '~' }
	if key == "" || key[0] == '/' || key[len(key)-1] == '/' || bytes.ContainsFunc([]byte(key), outside) {
		return fmt.Errorf("%q is no key", key)
	}
	return nil
}
