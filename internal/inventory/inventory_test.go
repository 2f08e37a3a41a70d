package inventory

import (
	"encoding/base64"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/store/sqlite"
)

// FuzzToken redeems printed tokens: one opens, in one spelling, and everything else is the same refusal.
func FuzzToken(f *testing.F) {
	s, err := sqlite.Open(f.Context(), sqlite.Config{Dir: filepath.Join(f.TempDir(), "state"), Now: time.Now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	good, op, err := NewToken(uuid.NewString(), Token{Expires: time.Now().Add(time.Hour)})
	if err == nil {
		_, err = s.Txn(f.Context(), []store.Op{op})
	}
	if err != nil {
		f.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(good)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{"", good, good + "=", good[:53], good[:22], base64.StdEncoding.EncodeToString(raw), "\n" + good, good[:20] + "\r\n" + good[20:]} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, printed string) {
		_, spend, err := New(s).Token(t.Context(), printed)
		clean := strings.NewReplacer("\n", "", "\r", "").Replace(printed) // a token in a file ends its line
		if err == nil && (clean != good || len(spend) != 2) {
			t.Fatalf("%q opens", printed)
		}
		if err != nil && !fault.Because(err, "invalid_device_token") {
			t.Fatalf("%q: %v", printed, err)
		}
	})
}
