//go:build linux

package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	wire "github.com/sallyport/sallyport/internal/dbwire/postgres"
	"github.com/sallyport/sallyport/internal/event"
)

func pgError(t *testing.T, err error) *pgconn.PgError {
	t.Helper()
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		t.Fatalf("no error of the protocol: %v", err)
	}
	return pg
}

func TestStatements(t *testing.T) {
	w := newWorld(t)
	c := w.connect("reader", "orders")
	ctx := t.Context()
	var name string
	if err := c.QueryRow(ctx, "SELECT name FROM t WHERE id = $1", 7).Scan(&name); err != nil || name != "name 7" {
		t.Fatal(name, err)
	}
	if got := w.queries(); !slices.Contains(got, `SELECT name FROM t WHERE id = $1 \x00000007`) {
		t.Fatalf("%q", got)
	}
	if err := c.QueryRow(ctx, "SELECT name FROM t WHERE name = $1", "name 8").Scan(&name); err != nil || name != "name 8" {
		t.Fatal(name, err)
	}
	w.recorded("SELECT name FROM t WHERE name = $1 name 8")
	if _, err := c.Exec(ctx, "SELECT nonsense", pgx.QueryExecModeSimpleProtocol); pgError(t, err).Code != "42703" {
		t.Fatal(err)
	}
	w.recorded(`SELECT nonsense => 42703 column "nonsense" does not exist`)
	if _, err := c.Exec(ctx, "SELECT $1::int + nonsense", 1); pgError(t, err).Code != "42703" {
		t.Fatal(err)
	}
	w.recorded(`SELECT $1::int + nonsense => 42703`)
	if _, err := c.Exec(ctx, "SELECT 1 / $1::int", 0); pgError(t, err).Code != "22012" {
		t.Fatal(err)
	}
	w.recorded(`SELECT 1 / $1::int \x00000000 => 22012 division by zero`)
	if _, err := c.Exec(ctx, "SELECT 1; SELECT 2; SELECT 1/0", pgx.QueryExecModeSimpleProtocol); pgError(t, err).Code != "22012" {
		t.Fatal(err)
	}
	w.recorded("SELECT 1; SELECT 2; SELECT 1/0 => 22012")
	b := &pgx.Batch{}
	for i := range 300 {
		b.Queue("SELECT name FROM t WHERE id = $1", i+1)
	}
	results := c.SendBatch(ctx, b)
	for i := range 300 {
		if err := results.QueryRow().Scan(&name); err != nil || name != fmt.Sprint("name ", i+1) {
			t.Fatal(i, name, err)
		}
	}
	if err := results.Close(); err != nil {
		t.Fatal(err)
	}
	c.Close(ctx)
	if n := len(slices.DeleteFunc(w.queries(), func(q string) bool { return !strings.HasPrefix(q, "SELECT name FROM t WHERE id = $1 ") })); n != 301 {
		t.Errorf("%d statements of a pipeline are on record", n)
	}
	for range 200 {
		if ends := w.events(event.DBSessionEnd); len(ends) == 1 {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Error("the session's end is not on record")
}

func TestCopy(t *testing.T) {
	w := newWorld(t)
	c := w.connect("writer", "orders")
	ctx := t.Context()
	if _, err := c.Exec(ctx, "CREATE TEMP TABLE big (id int, body text)"); err != nil {
		t.Fatal(err)
	}
	var rows [][]any
	for i := range 2000 {
		rows = append(rows, []any{i, strings.Repeat("x", 1000)})
	}
	if n, err := c.CopyFrom(ctx, pgx.Identifier{"big"}, []string{"id", "body"}, pgx.CopyFromRows(rows)); err != nil || n != 2000 {
		t.Fatal(n, err)
	}
	w.recorded(`copy "big"`)
	var out bytes.Buffer
	if tag, err := c.PgConn().CopyTo(ctx, &out, "COPY big TO STDOUT"); err != nil || tag.RowsAffected() != 2000 || out.Len() < 2_000_000 {
		t.Fatal(tag, err, out.Len())
	}
	if _, err := c.PgConn().CopyFrom(ctx, strings.NewReader("no number\tx\n"), "COPY big FROM STDIN"); pgError(t, err).Code != "22P02" {
		t.Fatal(err)
	}
	w.recorded("COPY big FROM STDIN => 22P02")
	if _, err := c.PgConn().CopyFrom(ctx, io.MultiReader(strings.NewReader("1\tx\n"), broken{}), "COPY big FROM STDIN"); err == nil {
		t.Fatal("a copy that failed at the client succeeded")
	}
	if _, err := c.Exec(ctx, "SELECT 1"); err != nil {
		t.Fatal(err)
	}
	// A row longer than any buffer, both ways, as a parameter and as a result.
	long := strings.Repeat("0123456789", 1<<20)
	var back string
	if err := c.QueryRow(ctx, "SELECT $1::text", long).Scan(&back); err != nil || back != long {
		t.Fatal(len(back), err)
	}
	q := w.recorded("SELECT $1::text 0123456789")
	if len(q) > 2000 || !strings.Contains(q, "bytes more)") {
		t.Fatalf("%d bytes: %s", len(q), q[len(q)-100:])
	}
	if err := c.QueryRow(ctx, "SELECT '"+long+"'", pgx.QueryExecModeSimpleProtocol).Scan(&back); err != nil || back != long {
		t.Fatal(len(back), err)
	}
	_, err := c.Exec(ctx, "SELECT '"+strings.Repeat(long, 2)+"'", pgx.QueryExecModeSimpleProtocol)
	if pg := pgError(t, err); pg.Severity != "FATAL" || !strings.Contains(pg.Hint, "COPY") {
		t.Fatal(err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestPsqlCopyExtended is libpq's way: a Sync right behind Execute, which the server passes over in COPY.
func TestPsql(t *testing.T) {
	w := newWorld(t)
	out, err := w.psql("writer", "orders", `
CREATE TEMP TABLE p (a int);
\copy p from stdin
1
2
\.
SELECT sum(a) FROM p;
\copy p to stdout
BEGIN; SAVEPOINT s; SELECT 1/0; ROLLBACK TO s; SELECT 'after'; COMMIT;
PREPARE q AS SELECT $1::int * 2; EXECUTE q(21);
DECLARE c CURSOR WITH HOLD FOR SELECT id FROM t ORDER BY id; FETCH 3 FROM c; CLOSE c;
SELECT 'multi' \; SELECT 'statement';
\d t
LISTEN x; NOTIFY x, 'hello';
SELECT 1;
`)
	if err != nil {
		t.Fatal(out, err)
	}
	for _, want := range []string{"3\n1\n2\n", "division by zero", "after", "42\n1\n2\n3\n", "multi\nstatement", "name|text", `"hello"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	w.recorded("EXECUTE q(21); -- PREPARE q AS SELECT $1::int * 2;")
	w.recorded("SELECT 'multi' ; SELECT 'statement';")
	out, err = w.psql("nobody", "orders", "SELECT 1")
	if err == nil || !strings.Contains(out, `FATAL:  access denied to db "pg"`) || !strings.Contains(out, `grants database user "nobody" in "orders"`) {
		t.Errorf("a refusal reads %s", out)
	}
}

func TestListen(t *testing.T) {
	w := newWorld(t)
	listener, speaker := w.connect("reader", "orders"), w.connect("writer", "orders")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := listener.Exec(ctx, "LISTEN news"); err != nil {
		t.Fatal(err)
	}
	if _, err := speaker.Exec(ctx, "NOTIFY news, 'now'"); err != nil {
		t.Fatal(err)
	}
	n, err := listener.WaitForNotification(ctx)
	if err != nil || n.Payload != "now" {
		t.Fatal(n, err)
	}
}

// TestScram is a server that asks for a password, which the agent has.
func TestScram(t *testing.T) {
	w := newWorld(t)
	w.servers.passwords = map[string]string{"reader": "reader-pass"}
	c := w.connect("reader", "scram")
	var who string
	if err := c.QueryRow(t.Context(), "SELECT current_user").Scan(&who); err != nil || who != "reader" {
		t.Fatal(who, err)
	}
	w.servers.passwords["reader"] = "wrong"
	if _, err := w.try("reader", "scram"); pgError(t, err).Code != "28P01" {
		t.Fatal(err)
	}
}

func TestKilledServer(t *testing.T) {
	w := newWorld(t)
	pg := w.pg
	c := w.connect("reader", "orders")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "SELECT pg_sleep(60)")
		done <- err
	}()
	for range 500 {
		if n, err := pg.Admin("postgres", "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active' AND usename = 'reader'"); err != nil {
			t.Fatal(err)
		} else if n == "1" {
			break
		}
	}
	began := time.Now()
	pg.Kill()
	defer func() {
		if err := pg.Restart(); err != nil {
			t.Fatal(err)
		}
	}()
	pgErr := pgError(t, <-done)
	if pgErr.Code != "08006" && pgErr.Code != "57P02" || time.Since(began) > 5*time.Second {
		t.Fatalf("%v after %s", pgErr, time.Since(began))
	}
	w.recorded("SELECT pg_sleep(60) => ")
}

// TestTerminate: who says goodbye is not told that the server went away, however fast it goes.
func TestTerminate(t *testing.T) {
	w := newWorld(t)
	var all sync.WaitGroup
	for range 300 {
		r, _ := w.begin("reader", "orders")
		all.Go(func() {
			if _, err := r.Write(wire.AppendMessage(nil, 'X')); err != nil {
				t.Error(err)
			}
			if rest, _ := io.ReadAll(r); len(rest) > 0 {
				t.Errorf("%q", rest)
			}
		})
		if runtime.NumGoroutine() > 200 {
			all.Wait()
		}
	}
	all.Wait()
}
