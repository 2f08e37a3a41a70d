package screen

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func shown(pieces ...string) string {
	var f Filter
	var out []byte
	for _, p := range pieces {
		out = f.Append(out, []byte(p))
	}
	return string(out)
}

// TestScreenDraws: what draws comes through as it is.
func TestScreenDraws(t *testing.T) {
	for _, s := range []string{"$ ls\r\n", "tab\there\b\b", "grün 日本 🎉", "\x1b[1;31mred\x1b[0m", "\x1b[38;5;200mx\x1b[48:2:1:2:3m", "\x1b[2J\x1b[H\x1b[10;20f",
		"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[?1049l", "\x1b(0lqk\x1b(B\x0e\x0f", "\x1b7\x1b8\x1bM\x1bD\x1b#8", "\x1b[3;10r\x1b[4h\x1b[2 q\x1b[5X", "\x1b[?2J\x1b[?12;25h"} {
		if got := shown(s); got != s {
			t.Errorf("%q became %q", s, got)
		}
		var pieces []string
		for i := range len(s) {
			pieces = append(pieces, s[i:i+1])
		}
		if got := shown(pieces...); got != s {
			t.Errorf("%q byte by byte became %q", s, got)
		}
	}
}

// TestA31Recording: what asks the terminal, or sets what outlives the recording, does not come through: titles, the clipboard,
// links, answers, reports, keys, the mouse, printing, files, downloads of characters, 8-bit controls.
func TestA31Recording(t *testing.T) {
	for s, want := range map[string]string{
		"\x1b[3Ja\x1b[2;3J\x1b[?3J":                  "a",
		"a\x1b]0;title\x07b":                         "ab",
		"a\x1b]52;c;cm0gLXJmIC8=\x1b\\b":             "ab",
		"a\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\b": "alinkb",
		"a\x1bP$q\"p\x1b\\b":                         "ab",
		"a\x1bP+q544e\x1b\\b":                        "ab",
		"a\x1b_Gf=24;AAAA\x1b\\b":                    "ab",
		"a\x1b^pm\x1b\\b\x1bXsos\x1b\\c":             "abc",
		"\x1b[6n\x1b[c\x1b[>c\x1b[=c\x1b[0x\x1b[?6n": "",
		"\x1b[21t\x1b[8;1;1t\x1b[>0T":                "",
		"\x1b[5i\x1b[?5i\x1b[4i":                     "",
		"\x1b[?1000h\x1b[?1006h\x1b[?2004h\x1b[?1h":  "",
		"\x1b[?25;1000h":                             "",
		"\x1b[>4;2m\x1b[?u\x1b[>1u\x1b[=1u":          "",
		"\x1b[20h\x1b[2h\x1b[12l":                    "",
		"\x1bZ\x1bc\x1b=\x1b>\x1b%G\x1b F\x1bn\x1b|": "",
		"\x05\x00\x07\x11\x13\x7f":                   "",
		"\u009b6n\u0090x":                            "\uFFFD6n\uFFFDx",
		"\x9b6n":                                     "\uFFFD6n",
		"\xff\xfe":                                   "\uFFFD\uFFFD",
		"user\u202etxt.exe\u2066":                    "user\uFFFDtxt.exe\uFFFD",
		"a\x1b[999999999bb":                          "ab",
		"a\x1b[" + strings.Repeat("1;", 200) + "mb":  "ab",
		"\x1b[\x1b[6nx":                              "x",
		"\x1b[1\x1b]0;t\x07x":                        "x",
		"\x1b[1\r;31mx":                              "\r\x1b[1;31mx",
		"\x1b[3\x18x":                                "x",
		"\x1b\x1b]0;t\x07x":                          "x",
		"\x1b(\x1b]0;t\x07x":                         "x",
		"\x1b[!p\x1b[\"q\x1b[0$z\x1b['|":             "",
		"\xc3":                                       "",
		"\xc3a":                                      "\uFFFDa",
		"\xc3\x1b]0;t\x07a":                          "\uFFFDa",
	} {
		if got := shown(s); got != want {
			t.Errorf("%q became %q, want %q", s, got, want)
		}
	}
	if got := shown("a\x1b]0;" + strings.Repeat("x", maxString) + "the rest"); !strings.HasSuffix(got, "the rest") {
		t.Error("a string without an end hides what follows")
	}
}

// TestRestore: the cursor is left where it is unless something has to be put back that moves it.
func TestRestore(t *testing.T) {
	const plain = "\x1b[?5l\x1b[?7h\x1b[4l\x1b[?25h\x1b(B\x0f\x1b[0m"
	for s, want := range map[string]string{
		"text \x1b[1mbold":                         plain,
		"\x1b[?1049hvim":                           plain + "\x1b[?1049l",
		"\x1b[?1049hvim\x1b[?1049l":                plain,
		"\x1b[?7;47hless":                          plain + "\x1b[?1049l",
		"\x1b[2;10rregion":                         plain + "\x1b7\x1b[?6l\x1b[r\x1b8",
		"\x1b[?6h":                                 plain + "\x1b7\x1b[?6l\x1b[r\x1b8",
		"\x1b[?1000;1049hnot passed on, so not on": plain,
	} {
		var f Filter
		f.Append(nil, []byte(s))
		if got := f.Restore(); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}

func TestText(t *testing.T) {
	f := Filter{Text: true}
	got := f.Append(nil, []byte("\x1b[1mbold\x1b[0m\tx\r\n\x1b]0;t\x07\x1b(0q\x1b(B\x1b7ü\a\b.\n"))
	if want := "bold\tx\nqü.\n"; string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzScreen(f *testing.F) {
	f.Add([]byte("\x1b[1;31mred\x1b]0;t\x07\x1b(B\u009b"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		var whole, parts, text Filter
		one := whole.Append(nil, b)
		cut = max(0, min(cut, len(b)))
		two := parts.Append(parts.Append(nil, b[:cut]), b[cut:])
		if !bytes.Equal(one, two) {
			t.Fatalf("%q, in two pieces %q", one, two)
		}
		if !utf8.Valid(one) {
			t.Fatalf("%q", one)
		}
		for i := 0; i < len(one); i++ {
			if c := one[i]; c < ' ' && !strings.ContainsRune("\b\t\n\v\f\r\x0e\x0f\x1b", rune(c)) || c == 0x7f {
				t.Fatalf("%q", one)
			}
			if one[i] == 0x1b && (i+1 == len(one) || !strings.ContainsRune("[()*+#78DEMH", rune(one[i+1]))) {
				t.Fatalf("%q at %d", one, i)
			}
		}
		again := Filter{}
		if got := again.Append(nil, one); !bytes.Equal(got, one) {
			t.Fatalf("%q is filtered again to %q", one, got)
		}
		text.Text = true
		if out := text.Append(nil, b); bytes.ContainsAny(out, "\x1b\r\b") {
			t.Fatalf("%q", out)
		}
	})
}
