package spool

import (
	"context"
	"log/slog"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/recording"
)

func benchPlace(b *testing.B) (*Spool, *recording.Recipient) {
	id, err := recording.NewIdentity(nil)
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(Config{Dir: b.TempDir(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	over := make(chan struct{})
	go func() {
		_ = s.Run(ctx, func(_ context.Context, p recording.Piece) (int64, error) { return p.Offset + int64(len(p.Data)), nil })
		close(over)
	}()
	b.Cleanup(func() { s.Close(); stop(); <-over })
	return s, id.Recipient()
}

// BenchmarkSession is what a short command's recording costs: its beginning, a line, its end. 300 µs of CPU time are its budget.
func BenchmarkSession(b *testing.B) {
	s, to := benchPlace(b)
	line := []byte("hello\r\n")
	n := 1
	before := cpu()
	for b.Loop() {
		n++
		t, err := s.Begin(start(recording.Name(session, n%(1<<20))), to, nil)
		if err != nil {
			b.Fatal(err)
		}
		_ = t.Shown(recording.Output, line)
		t.End(recording.End{})
	}
	s.tapes.Wait()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "µs-cpu/op")
}

// cpu is what this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkBegin is how long a session waits for its recording to begin.
func BenchmarkBegin(b *testing.B) {
	s, to := benchPlace(b)
	n := 1
	for b.Loop() {
		n++
		t, err := s.Begin(start(recording.Name(session, n%(1<<20))), to, nil)
		if err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		t.End(recording.End{})
		s.tapes.Wait()
		b.StartTimer()
	}
}

// BenchmarkShown is what a piece of output costs the session that shows it.
func BenchmarkShown(b *testing.B) {
	s, to := benchPlace(b)
	t, err := s.Begin(start(session), to, nil)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 32<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		_ = t.Shown(recording.Output, p)
	}
	t.End(recording.End{})
}
