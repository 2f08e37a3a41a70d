package sqlite

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/storetest"
)

func openTest(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(t.Context(), Config{Dir: dir, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T, now func() time.Time) store.Store {
		s, err := Open(t.Context(), Config{Dir: t.TempDir(), Now: now, SweepEvery: 20 * time.Millisecond, History: 1000})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	})
}

func TestReopen(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir)
	r, err := s.Txn(t.Context(), []store.Op{store.Put("a", []byte("x"))})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Now: time.Now}); !fault.Because(err, "state_in_use") {
		t.Errorf("a second process: %v", err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	s = openTest(t, dir)
	if got, err := s.Get(t.Context(), "a"); err != nil || got.Revision != r {
		t.Errorf("after a restart: %+v, %v", got, err)
	}
	r2, err := s.Txn(t.Context(), []store.Op{store.Put("b", nil)})
	if err != nil || r2 != r+1 {
		t.Errorf("revision %d after %d, %v", r2, r, err)
	}
	for _, err := range s.Watch(t.Context(), "", r-1) {
		if !errors.Is(err, store.ErrCompacted) {
			t.Errorf("watch from before the restart: %v", err)
		}
		break
	}
}

func TestNewerStateIsRefused(t *testing.T) {
	dir := t.TempDir()
	_ = openTest(t, dir).Close()
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, fileName)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Exec(`PRAGMA user_version = 2`); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	_, err = Open(t.Context(), Config{Dir: dir, Now: time.Now})
	if !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("got %v", err)
	}
}

func TestDamagedStateIsNamed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("no database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir, Now: time.Now}); !fault.Because(err, "state_damaged") {
		t.Errorf("got %v", err)
	}
}

const crashDir = "SALLYPORT_TEST_CRASH_DIR"

// TestMain is also the process that TestKill kills: it writes pairs and says how far it got.
func TestMain(m *testing.M) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Open(context.Background(), Config{Dir: dir, Now: time.Now})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range 4 {
		go func() {
			for n := uint64(1); ; n++ {
				b := binary.BigEndian.AppendUint64(nil, n)
				if _, err := s.Txn(context.Background(), []store.Op{store.Put(fmt.Sprintf("a/%d", i), b), store.Put(fmt.Sprintf("b/%d", i), b)}); err == nil {
					fmt.Printf("%d %d\n", i, n)
				}
			}
		}()
	}
	select {}
}

// TestKill kills a writing process: what it reported is there, and no transaction is there by half.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	for range 4 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		told := make(map[int]uint64)
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			var i int
			var v uint64
			if _, err := fmt.Sscan(lines.Text(), &i, &v); err == nil { // the last line may be torn
				told[i] = v
			}
			if n == 150 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s := openTest(t, dir)
		for i := range 4 {
			a, errA := s.Get(t.Context(), fmt.Sprintf("a/%d", i))
			b, errB := s.Get(t.Context(), fmt.Sprintf("b/%d", i))
			if errA != nil || errB != nil || string(a.Value) != string(b.Value) || a.Revision != b.Revision {
				t.Fatalf("half a transaction: %v %v, %v %v", a, b, errA, errB)
			}
			if got := binary.BigEndian.Uint64(a.Value); got < told[i] {
				t.Errorf("writer %d was told %d, the state has %d", i, told[i], got)
			}
		}
		_ = s.Close()
	}
}

func BenchmarkTxn(b *testing.B) {
	for _, writers := range []int{1, 50} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			s := openTest(b, b.TempDir())
			value := make([]byte, 500)
			var all sync.WaitGroup
			for w := range writers {
				all.Go(func() {
					for i := w; i < b.N; i += writers {
						if _, err := s.Txn(b.Context(), []store.Op{store.Put(fmt.Sprintf("k/%d", i), value)}); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "txn/s")
		})
	}
}

func BenchmarkGet(b *testing.B) {
	s := openTest(b, b.TempDir())
	if _, err := s.Txn(b.Context(), []store.Op{store.Put("k", make([]byte, 500))}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := s.Get(b.Context(), "k"); err != nil {
			b.Fatal(err)
		}
	}
}
