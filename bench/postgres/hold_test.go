package postgres

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if os.Getenv(Env) != "" {
		fmt.Fprintln(os.Stderr, Serve())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestHold is for who profiles: BENCH_HOLD=CLIENTS:SECONDS.
func TestHold(t *testing.T) {
	var clients, seconds int
	if n, _ := fmt.Sscanf(os.Getenv("BENCH_HOLD"), "%d:%d", &clients, &seconds); n != 2 {
		t.Skip("BENCH_HOLD is not set")
	}
	b, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	Seconds = seconds
	for _, w := range b.ways {
		before := cpuTime(w.pid)
		v, err := b.pgbench(w, clients, "-S")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%-10s %8.0f tps  %6.1f µs of its own a statement\n", w.name, v, float64((cpuTime(w.pid)-before).Microseconds())/(v*float64(Seconds)))
		if w.name == "agent" {
			time.Sleep(100 * time.Millisecond)
		}
	}
}

// TestLatency is the row of that name alone.
func TestLatency(t *testing.T) {
	if os.Getenv("BENCH_LATENCY") == "" {
		t.Skip("BENCH_LATENCY is not set")
	}
	b, err := open()
	if err != nil {
		t.Fatal(err)
	}
	defer b.close()
	for range 3 {
		rows, err := b.latency(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println(rows)
	}
}
