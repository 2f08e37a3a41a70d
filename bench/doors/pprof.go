package doors

import (
	"net/http"
	_ "net/http/pprof" // BENCH_PPROF names an address to profile at
	"os"
)

func init() { // for who looks
	if at := os.Getenv("BENCH_PPROF"); at != "" && os.Getenv(Env) != "" {
		go func() { _ = http.ListenAndServe(at, nil) }()
	}
}
