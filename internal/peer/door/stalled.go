package door

import (
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sallyport/sallyport/internal/database"
	"github.com/sallyport/sallyport/internal/target"
)

// Stalled shows that an engine holds a client who says something that is answered, was not let in and takes no answers, for most
// at the longest.
func Stalled(t *testing.T, e database.Engine, says []byte, most time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		client, far := net.Pipe()
		defer client.Close()
		began := time.Now()
		over := make(chan time.Duration, 1)
		go func() {
			e.Serve(t.Context(), far, &database.Visit{Database: &target.DatabaseServer{Name: "db"}})
			over <- time.Since(began)
		}()
		if _, err := client.Write(says); err != nil {
			t.Fatal(err)
		}
		select {
		case d := <-over:
			if d > most {
				t.Errorf("it was held for %s", d)
			}
		case <-time.After(time.Hour):
			t.Error("it is held for ever")
			client.Close()
			<-over
		}
	})
}
