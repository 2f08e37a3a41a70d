package proof

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/internal/swtpm"
)

// TestMeasure keeps the measurement in order: the steps of both ceremonies, and the cost.
func TestMeasure(t *testing.T) {
	swtpm.Start(t, swtpm.Options{}) // skips, or fails, where there is no emulator
	list, err := Measure(t.TempDir(), t)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range list {
		names = append(names, f.What)
	}
	text := strings.Join(names, "\n")
	for _, want := range []string{"TPM2_ActivateCredential", "login proof, swtpm: server judges", "login with a quote", "a second of one core"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}
