package spool

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/event"
	"github.com/sallyport/sallyport/internal/fault"
)

const nodeID = "bbbbbbbb-0000-4000-8000-00000000000b"

func testConfig(dir string) Config {
	return Config{Dir: dir, Writer: nodeID, Cluster: "example.com", Now: time.Now, Group: 10 * time.Millisecond}
}

func openTest(t testing.TB, cfg Config) *Spool {
	t.Helper()
	s, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func command(text string) event.Event {
	return event.Event{Kind: event.Exec, User: "myuser", Success: true, Action: &event.Action{Command: text}}
}

func write(t testing.TB, s *Spool, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if err := s.Write(t.Context(), command(text)); err != nil {
			t.Fatal(err)
		}
	}
}

// commands checks the chain of what is pending and returns what it tells.
func commands(t *testing.T, s *Spool) string {
	t.Helper()
	entries, err := s.Pending(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	var texts []string
	for i, e := range entries {
		if i > 0 {
			if err := e.Follows(entries[i-1].Head()); err != nil {
				t.Fatal(err)
			}
		}
		ev, err := event.Parse(e.Event)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, ev.Command)
	}
	return strings.Join(texts, " ")
}

func TestWriteAckReopen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	cfg := testConfig(dir)
	cfg.Segment = 1 // a file for each entry
	s := openTest(t, cfg)
	write(t, s, "a", "b", "c")
	if _, err := Open(cfg); !fault.Because(err, "audit_spool_in_use") {
		t.Errorf("a second process: %v", err)
	}
	if err := s.Ack(2); err != nil {
		t.Fatal(err)
	}
	if got := commands(t, s); got != "c" {
		t.Errorf("pending %q", got)
	}
	if err := s.Ack(4); !fault.Because(err, "audit_spool_lost") {
		t.Errorf("more than was written: %v", err)
	}
	_ = s.Close()
	if err := s.Write(t.Context(), command("x")); !fault.Because(err, "audit_spool_closed") {
		t.Errorf("after Close: %v", err)
	}
	s = openTest(t, cfg)
	write(t, s, "d")
	if got := commands(t, s); got != "c d" {
		t.Errorf("pending %q", got)
	}
	if err := s.Ack(4); err != nil {
		t.Fatal(err)
	}
	if head, acked, waits := s.Status(); head != 4 || acked != 4 || waits != 0 {
		t.Errorf("%d %d %d", head, acked, waits)
	}
	_ = s.Close()
	s = openTest(t, cfg)
	write(t, s, "e") // goes on behind what auth has
	if e, err := s.Pending(10); err != nil || e[len(e)-1].Seq != 5 {
		t.Errorf("%+v, %v", e, err)
	}
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		if info, _ := f.Info(); info.Mode().Perm() != 0o600 {
			t.Errorf("%s is %v", f.Name(), info.Mode())
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("directory is %v", info.Mode())
	}
}

// onlyWaiting checks that the only file of a spool without acknowledgements holds its entries and nothing behind.
func onlyWaiting(t *testing.T, s *Spool, file string) {
	t.Helper()
	info, err := os.Stat(file)
	if _, _, waits := s.Status(); err != nil || info.Size() != waits {
		t.Errorf("file of %d bytes, entries of %d, %v", info.Size(), waits, err)
	}
}

func TestTornTailIsCut(t *testing.T) {
	for name, tail := range map[string]string{
		"half a line": `{"writer":"bbb`, "a whole bad line": "{\"writer\":\n", "zeros": strings.Repeat("\x00", 4096),
		"zeros, then what came behind them": strings.Repeat("\x00", 512) + "x\"}\n{}\n", "nothing": "",
	} {
		dir := t.TempDir()
		s := openTest(t, testConfig(dir))
		write(t, s, "a", "b")
		_ = s.Close()
		file := filepath.Join(dir, "0000000000000001.jsonl")
		f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = f.WriteString(tail)
		_ = f.Close()
		s = openTest(t, testConfig(dir))
		onlyWaiting(t, s, file)
		write(t, s, "c")
		if got := commands(t, s); got != "a b c" {
			t.Errorf("%s: pending %q", name, got)
		}
		_ = s.Close()
		openTest(t, testConfig(dir))
	}
}

func TestA77_SpoolDamageIsNotPassedOver(t *testing.T) {
	for name, damage := range map[string]func(b []byte) []byte{
		"changed": func(b []byte) []byte { return bytes.Replace(b, []byte(`"two"`), []byte(`"2wo"`), 1) },
		"removed": func(b []byte) []byte {
			l := bytes.SplitAfter(b, []byte("\n"))
			return append(bytes.Clone(l[0]), l[2]...)
		},
		"swapped": func(b []byte) []byte {
			l := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join([][]byte{l[0], l[2], l[1]}, nil)
		},
		"beginning cut": func(b []byte) []byte { return b[bytes.IndexByte(b, '\n')+1:] },
	} {
		dir := t.TempDir()
		s := openTest(t, testConfig(dir))
		write(t, s, "one", "two", "three")
		_ = s.Close()
		file := filepath.Join(dir, "0000000000000001.jsonl")
		b, _ := os.ReadFile(file)
		if err := os.WriteFile(file, damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(testConfig(dir)); !fault.Because(err, "audit_spool_damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestA77_FullSpoolRefuses(t *testing.T) {
	cfg := testConfig(t.TempDir())
	cfg.Max, cfg.Segment = 4000, 500
	s := openTest(t, cfg)
	n := 0
	var err error
	for ; err == nil && n < 100; n++ {
		err = s.Write(t.Context(), command("x"))
	}
	if !fault.Because(err, "audit_full") || !fault.Is(err, fault.Exhausted) || n < 3 {
		t.Fatalf("after %d: %v", n, err)
	}
	if err := s.Ack(2); err != nil {
		t.Fatal(err)
	}
	write(t, s, "again")
}

func TestAppended(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := testConfig(dir)
		cfg.Group, cfg.Segment = maxGroup, 3000
		s := openTest(t, cfg)
		defer s.Close()
		for i := range 20 {
			if err := s.Append(t.Context(), command(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
		}
		files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
		var in int
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			in += bytes.Count(b, []byte("\n"))
		}
		if in != 20 || len(files) < 2 {
			t.Fatalf("%d entries in %d files when Append returned", in, len(files))
		}
		if head, _, _ := s.Status(); head >= 20 {
			t.Fatalf("auth gets %d entries that no fsync has seen", head)
		}
		time.Sleep(maxGroup - time.Millisecond)
		synctest.Wait()
		if head, _, _ := s.Status(); head >= 20 {
			t.Fatal("synced before others could join")
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if head, _, _ := s.Status(); head != 20 {
			t.Fatalf("after 50 ms %d entries are durable", head)
		}
		if err := s.Append(t.Context(), command("20")); err != nil {
			t.Fatal(err)
		}
		write(t, s, "21") // an admission's fsync is theirs too
		if head, _, _ := s.Status(); head != 22 {
			t.Fatalf("%d entries", head)
		}
		want := make([]string, 22)
		for i := range want {
			want[i] = fmt.Sprint(i)
		}
		if got := commands(t, s); got != strings.Join(want, " ") {
			t.Errorf("pending %q", got)
		}
	})
}

// TestA77_FailedSyncBreaks: after it neither admissions nor statements are taken, and auth gets nothing that the disk may
// not have.
func TestA77_FailedSyncBreaks(t *testing.T) {
	s := openTest(t, testConfig(t.TempDir()))
	write(t, s, "a")
	if err := s.Append(t.Context(), command("b")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	err := s.syncedLocked(s.head.Seq, syscall.EIO)
	s.mu.Unlock()
	if !fault.Because(err, "audit_unwritable") {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), command("c")); !fault.Because(err, "audit_unwritable") {
		t.Errorf("a statement: %v", err)
	}
	if err := s.Write(t.Context(), command("c")); !fault.Because(err, "audit_unwritable") {
		t.Errorf("an admission: %v", err)
	}
	if got := commands(t, s); got != "a" {
		t.Errorf("pending %q", got)
	}
}

// TestRun has an auth server that is away, takes a part, and comes back; time is the bubble's.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := openTest(t, testConfig(dir))
		defer s.Close()
		write(t, s, "a", "b", "c")
		ctx, cancel := context.WithCancel(t.Context())
		var tries []time.Duration
		start := time.Now()
		got, done := uint64(0), make(chan error)
		go func() {
			done <- s.Run(ctx, func(_ context.Context, entries []event.Entry) (uint64, error) {
				tries = append(tries, time.Since(start))
				switch {
				case len(tries) < 10:
					return 0, errors.New("auth is away")
				case len(tries) == 10:
					got = entries[0].Seq
					return got, errors.New("and away again")
				}
				got = entries[len(entries)-1].Seq
				return got, nil
			})
		}()
		time.Sleep(5 * time.Minute) // the bubble's clock
		synctest.Wait()
		if len(tries) != 11 || got != 3 || tries[1] != 100*time.Millisecond || tries[2] != 300*time.Millisecond || tries[9]-tries[8] != 15*time.Second {
			t.Errorf("sent at %v, up to %d", tries, got)
		}
		write(t, s, "d")
		synctest.Wait()
		if _, acked, _ := s.Status(); acked != 4 {
			t.Errorf("acknowledged %d", acked)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

const crashDir = "SALLYPORT_TEST_CRASH_DIR"

// TestMain is also the process that TestKill kills.
func TestMain(m *testing.M) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	cfg := testConfig(dir)
	cfg.Segment = 4096
	s, err := Open(cfg)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := range 4 {
		write := s.Write
		if i%2 == 1 {
			write = s.Append
		}
		go func() {
			for {
				if err := write(context.Background(), command("x")); err == nil {
					fmt.Println("written")
				}
			}
		}()
	}
	select {}
}

func TestKill(t *testing.T) {
	dir, told := t.TempDir(), 0
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
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			if lines.Text() == "written" {
				told++
			}
			if n == 150 {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait()
		s := openTest(t, testConfig(dir))
		if head, _, _ := s.Status(); head < uint64(told) {
			t.Fatalf("%d events were written, %d are there", told, head)
		}
		_ = commands(t, s)
		_ = s.Close()
	}
	if told < 500 {
		t.Fatalf("only %d events were written", told)
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	s := openTest(f, testConfig(dir))
	write(f, s, "a", "b", "c")
	_ = s.Close()
	good, _ := os.ReadFile(filepath.Join(dir, "0000000000000001.jsonl"))
	f.Add(good)
	f.Add(good[:len(good)-10])
	f.Add([]byte("\n\n"))
	f.Add(append(bytes.Clone(good), 0, 0, '\n'))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "0000000000000001.jsonl"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(testConfig(dir))
		if err != nil {
			return
		}
		defer s.Close()
		if _, err := s.Pending(1 << 20); err != nil {
			t.Fatalf("opened, and then: %v", err)
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	cfg := testConfig(b.TempDir())
	cfg.Max = 1 << 40
	s := openTest(b, cfg)
	code := 0
	ev := event.Event{Kind: event.DBSessionQuery, User: "myuser", Success: true, Session: &event.Session{SessionID: nodeID, ServerID: nodeID, Protocol: "postgres", Addr: "192.0.2.1", ServerName: "orders"},
		Action: &event.Action{DBUser: "reader", DBName: "orders", Query: "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;", ExitCode: &code}}
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Append(b.Context(), ev); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	for _, callers := range []int{1, 50} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			cfg := testConfig(b.TempDir())
			cfg.Max = 1 << 40
			s := openTest(b, cfg)
			var all sync.WaitGroup
			for w := range callers {
				all.Go(func() {
					for i := w; i < b.N; i += callers {
						if err := s.Write(b.Context(), command("ls -l")); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
