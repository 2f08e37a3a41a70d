package console

import (
	"strings"
	"testing"
	"unicode/utf8"

	"rsc.io/qr"
)

// TestQRText draws a code of version 1 (21 squares a side) with its quiet zone of four.
func TestQRText(t *testing.T) {
	code, err := qr.Encode("HELLO", qr.L)
	if err != nil || code.Size != 21 {
		t.Fatalf("size %d, %v", code.Size, err)
	}
	for _, c := range []struct {
		utf8          bool
		lines, across int
	}{{true, 15, 29}, {false, 29, 58}} {
		lines := strings.Split(strings.TrimSuffix(QR(code, c.utf8), "\n"), "\n")
		if len(lines) != c.lines {
			t.Errorf("%d lines, want %d", len(lines), c.lines)
		}
		for _, l := range lines {
			if n := utf8.RuneCountInString(l); n != c.across {
				t.Errorf("a line of %d, want %d", n, c.across)
			}
			if !c.utf8 && strings.Trim(l, "# ") != "" {
				t.Errorf("not ASCII: %q", l)
			}
		}
	}
}
