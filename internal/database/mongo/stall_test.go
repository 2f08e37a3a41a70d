package mongo

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/target"
)

// TestA30Stalled: who was not let in and takes no answers holds nothing for long.
func TestA30Stalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, door := net.Pipe()
		defer client.Close()
		began := time.Now()
		over := make(chan time.Duration, 1)
		go func() {
			New().Serve(t.Context(), door, &database.Visit{Database: &target.DatabaseServer{Name: "db"}})
			over <- time.Since(began)
		}()
		if _, err := client.Write(command("admin", "hello")); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-over:
			if d > loginTime+partingTime {
				t.Errorf("it was held for %s", d)
			}
		case <-time.After(time.Hour):
			t.Error("it is held for ever")
			client.Close()
			<-over
		}
	})
}
