package device

import (
	"testing"
	"time"
)

// TestClockBack tells figures that went back from those that went on, around the wraps of obfuscated counters too.
func TestClockBack(t *testing.T) {
	last := Clock{Time: 1000, ResetCount: 0xfffffffe, RestartCount: 7}
	for _, r := range []struct {
		name string
		next Clock
		back bool
	}{
		{"the same", last, false},
		{"a little later", Clock{1500, 0xfffffffe, 7, 0}, false},
		{"a resume", Clock{1500, 0xfffffffe, 8, 0}, false},
		{"a resume whose clock was not kept", Clock{900, 0xfffffffe, 8, 0}, false},
		{"a reset", Clock{1500, 0xffffffff, 3, 0}, false},
		{"resets over the wrap", Clock{900, 2, 0, 0}, false},
		{"the clock back", Clock{999, 0xfffffffe, 7, 0}, true},
		{"restarts back", Clock{2000, 0xfffffffe, 6, 0}, true},
		{"resets back", Clock{2000, 0xfffffffd, 9, 0}, true},
	} {
		if got := r.next.Back(&last); got != r.back {
			t.Errorf("%s: %t", r.name, got)
		}
	}
	if (&Clock{}).Back(nil) {
		t.Error("the first figures went back")
	}
}

func TestBaseline(t *testing.T) {
	b := Baseline{Watch: []int{0, 4}}
	if b.Pin(&Boot{PCRs: map[int]string{0: "a"}}) || len(b.PCRs) != 0 {
		t.Error("pinned what was not proven")
	}
	if !b.Pin(&Boot{PCRs: map[int]string{0: "a", 4: "b", 7: "c"}}) || len(b.PCRs) != 2 {
		t.Errorf("%+v", b)
	}
	for _, r := range []struct {
		pcrs map[int]string
		want int
	}{{map[int]string{0: "a", 4: "b"}, 0}, {map[int]string{0: "a", 4: "x"}, 1}, {map[int]string{0: "a"}, 1}, {nil, 2}} {
		if got := b.Differs(&Boot{PCRs: r.pcrs}); len(got) != r.want {
			t.Errorf("%v: %v", r.pcrs, got)
		}
	}
}

func TestFindings(t *testing.T) {
	first, later := time.Unix(1, 0), time.Unix(2, 0)
	var h Health
	h.Note(Finding{Reason: BootChanged, Text: "a", Time: first})
	h.Note(Finding{Reason: TagChanged, Text: "b", Time: later})
	before := h.Findings
	h.Note(Finding{Reason: BootChanged, Text: "c", Time: later})
	if f, ok := h.Found(BootChanged); !ok || f.Text != "c" || !f.Time.Equal(first) || len(h.Findings) != 2 {
		t.Errorf("%+v", h.Findings)
	}
	if before[0].Text != "a" {
		t.Error("a copy was changed")
	}
	h.Settle(BootChanged)
	if _, ok := h.Found(BootChanged); ok || len(h.Findings) != 1 {
		t.Errorf("%+v", h.Findings)
	}
}
