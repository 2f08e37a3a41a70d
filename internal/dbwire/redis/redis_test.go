package redis

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]string{
		"*2\r\n$3\r\nGET\r\n$1\r\na\r\nrest": `["GET" "a"] 20`,
		"*0\r\nrest":                         "[] 4",
		"*-1\r\n":                            "[] 5",
		"*1\r\n$0\r\n\r\n":                   `[""] 10`,
		"set \"a b\" 'c\\'d' \"\\x41\\n\"\n": `["set" "a b" "c'd" "A\n"] 26`,
		"\r\n":                               "[] 2",
		"ping\r\n":                           `["ping"] 6`,
		"*2\r\n$3\r\nGET\r\n$5\r\na":         "more is to come",
		"*2\r\n$3\r\nGET\r\n$":               "more is to come",
		"":                                   "more is to come",
	} {
		c, err := Parse([]byte(in), nil, false)
		got := fmt.Sprintf("%q %d", c.Args, c.Size)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
	c, err := Parse([]byte("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nxyz"), nil, true)
	if err != nil || len(c.Args) != 3 || string(c.Args[2]) != "xyz" || c.Rest != 99 || c.After != 0 {
		t.Errorf("a cut command: %q %+v %v", c.Args, c, err)
	}
	if c, err := Parse([]byte("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10"), nil, true); err != nil || len(c.Args) != 2 || c.Rest != 0 || c.After != 1 || c.Size != 20 {
		t.Errorf("a cut command: %q %+v %v", c.Args, c, err)
	}
}

// TestA62Lengths are lengths that overflow, and commands and replies without end.
func TestA62Lengths(t *testing.T) {
	for _, in := range []string{"*99999999999999999999\r\n", "*1048577\r\n", "*1\r\n$536870913\r\n", "*1\r\n$18446744073709551617\r\n", "*1\r\n$-1\r\n", "*1\r\n$-0\r\n",
		"*+1\r\n", "*01\r\n", "*1\n$1\na\n", "*1\r\n+a\r\n", "*1\r\n$1\r\nab\r\n", "*" + strings.Repeat("1", MaxLine+1), strings.Repeat("a", MaxLine+1), "'a" + "\n", "\"a\"b\n"} {
		if c, err := Parse([]byte(in), nil, false); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v %v", in, c, err)
		}
	}
	for _, in := range []string{"*99999999999999999999\r\n", "$536870913\r\n", "x\r\n", "\r\n", "$x\r\n", strings.Repeat("*1\r\n", maxDepth+2), "+" + strings.Repeat("a", MaxLine+1), "+a\n"} {
		var r Reply
		if _, _, err := r.Next([]byte(in)); !errors.Is(err, ErrMalformed) {
			t.Errorf("%.40q: %v", in, err)
		}
	}
}

func TestReply(t *testing.T) {
	for in, want := range map[string]string{
		"+OK\r\n":       "+ OK 0",
		"-ERR no\r\n":   "- ERR no 0",
		":5\r\n":        ": 5 0",
		"$-1\r\n":       "$  0",
		"$3\r\nabc\r\n": "$ abc 0",
		"*-1\r\n":       "*  0",
		"*0\r\n":        "*  0",
		"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:7\r\n": "* subscribe 7",
		">2\r\n+x\r\n*2\r\n:1\r\n$1\r\nq\r\n":        "> q 1",
		"%1\r\n$1\r\na\r\n*1\r\n_\r\n":               "% a 0",
		"|1\r\n+k\r\n+v\r\n*1\r\n$1\r\nb\r\n":        "* b 0",
		"*1\r\n|1\r\n+k\r\n+v\r\n:9\r\n":             "*  9",
		"=5\r\ntxt:a\r\n":                            "= txt:a 0",
		"#t\r\n":                                     "# t 0",
		"~1\r\n(123\r\n":                             "~  0",
	} {
		for _, step := range []int{1, 2, 3, len(in)} { // in pieces as they may come
			var r Reply
			var buf []byte
			done := false
			for i := 0; i < len(in); i += step {
				buf = append(buf, in[i:min(i+step, len(in))]...)
				if done {
					t.Fatalf("%q in steps of %d: done early", in, step)
				}
				n, d, err := r.Next(buf)
				if err != nil {
					t.Fatalf("%q in steps of %d: %v", in, step, err)
				}
				buf, done = buf[n:], d
			}
			if got := fmt.Sprintf("%c %s %d", r.Kind, r.Text, r.Count); got != want || !done || len(buf) != 0 {
				t.Errorf("%q in steps of %d: %s (%v, %d left), want %s", in, step, got, done, len(buf), want)
			}
		}
	}
}

// TestA78Mask is what the audit log shows of commands with secrets.
func TestA78Mask(t *testing.T) {
	for in, want := range map[string]string{
		"AUTH p":                                      "AUTH ***",
		"auth u p":                                    "auth u ***",
		"HELLO 3 AUTH u p SETNAME n":                  "HELLO 3 AUTH u *** SETNAME n",
		"config set requirepass p maxmemory 5":        "config set requirepass *** maxmemory 5",
		"CONFIG SET maxmemory 5 MASTERAUTH p":         "CONFIG SET maxmemory 5 MASTERAUTH ***",
		"ACL SETUSER u on >p <q #h !h ~k* +@all":      "ACL SETUSER u on >*** <*** #*** !*** ~k* +@all",
		"MIGRATE h 1 k 0 5 COPY AUTH p KEYS a":        "MIGRATE h 1 k 0 5 COPY AUTH *** KEYS a",
		"MIGRATE h 1 k 0 5 AUTH2 u p":                 "MIGRATE h 1 k 0 5 AUTH2 u ***",
		"SENTINEL SET m auth-pass p":                  "SENTINEL SET m auth-pass ***",
		"EVAL redis.call('ACL','SETUSER','u','>p') 0": "EVAL *** ***",
		"EVAL return(1) 0":                            "EVAL return(1) 0",
		"SET requirepass x":                           "SET requirepass x",
		"GET a":                                       "GET a",
	} {
		var args [][]byte
		for _, f := range strings.Fields(in) {
			args = append(args, []byte(f))
		}
		got, secret := AppendText(nil, args)
		if string(got) != want || secret != strings.Contains(want, "***") {
			t.Errorf("%s: %s %v, want %s", in, got, secret, want)
		}
	}
	long, _ := AppendText(nil, [][]byte{[]byte("SET"), []byte("a b\x00\xff"), bytes.Repeat([]byte("x"), 300), nil})
	if want := `SET "a b\x00\xff" ` + strings.Repeat("x", 256) + `… (44 bytes more) ""`; string(long) != want {
		t.Errorf("%s", long)
	}
	many, _ := AppendText(nil, slicesOf(1000, "word"))
	if len(many) > MaxCommand+64 || !strings.HasSuffix(string(many), "arguments more)") {
		t.Errorf("%d bytes: %s", len(many), many)
	}
}

func slicesOf(n int, s string) (out [][]byte) {
	for range n {
		out = append(out, []byte(s))
	}
	return out
}

// FuzzCommand holds that what is parsed is what is sent on: a command written again parses as itself.
func FuzzCommand(f *testing.F) {
	f.Add([]byte("*2\r\n$3\r\nGET\r\n$1\r\na\r\n"), true)
	f.Add([]byte("set \"a b\" 'c\\'d'\r\n"), false)
	f.Add([]byte("*3\r\n$3\r\nSET\r\n$1\r\na\r\n$100\r\nxyz"), true)
	f.Add([]byte("*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n"), true)
	f.Fuzz(func(t *testing.T, b []byte, cut bool) {
		c, err := Parse(b, nil, cut)
		if err != nil {
			return
		}
		if c.Size <= 0 || c.Size > len(b) || c.Rest < 0 || c.After < 0 {
			t.Fatalf("%+v of %d bytes", c, len(b))
		}
		text, _ := AppendText(nil, c.Args)
		if len(text) > MaxCommand+4*MaxArg+64 {
			t.Fatalf("%d bytes of text", len(text))
		}
		if again, err := Parse(Append(nil, c.Args...), nil, false); len(c.Args) > 0 && (err != nil || fmt.Sprintf("%q", again.Args) != fmt.Sprintf("%q", c.Args)) {
			t.Fatalf("%q became %q (%v)", c.Args, again.Args, err)
		}
		if _, err := Parse(b[:c.Size], nil, false); c.Rest == 0 && c.After == 0 && err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzReply holds that a reply ends at the same byte however it comes in.
func FuzzReply(f *testing.F) {
	f.Add([]byte("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:7\r\n"), uint8(3))
	f.Add([]byte("|1\r\n+k\r\n+v\r\n%1\r\n$1\r\na\r\n*1\r\n_\r\n"), uint8(1))
	f.Add([]byte("$-1\r\n"), uint8(2))
	f.Fuzz(func(t *testing.T, b []byte, step uint8) {
		var whole, pieces Reply
		n, done, err := whole.Next(b)
		if n > len(b) || len(whole.Text) > maxText {
			t.Fatalf("%d of %d, %d of text", n, len(b), len(whole.Text))
		}
		if !done || err != nil || step == 0 {
			return
		}
		taken, have := 0, 0
		for {
			have = min(have+int(step), len(b))
			k, done, err := pieces.Next(b[taken:have])
			taken += k
			if err != nil {
				t.Fatal(err)
			}
			if done {
				break
			}
			if have == len(b) {
				t.Fatal("not done in pieces")
			}
		}
		if taken != n || pieces.Kind != whole.Kind || !bytes.Equal(pieces.Text, whole.Text) {
			t.Fatalf("%d %q, %d %q", n, whole.Text, taken, pieces.Text)
		}
	})
}
