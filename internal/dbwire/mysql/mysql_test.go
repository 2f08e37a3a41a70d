package mysql

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// greetingOf10_11 is what Debian's MariaDB 10.11 sends, but for its nonce.
const greetingOf10_11 = "0a352e352e352d31302e31312e31382d4d6172696144422d302b64656231327531001f000000" + "6162636465666768" + "00" +
	"feff" + "2d" + "0200" + "ffbf" + "15" + "000000000000" + "1d000000" + "696a6b6c6d6e6f7071727374" + "00" + "6d7973716c5f6e61746976655f70617373776f726400"

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestGreeting(t *testing.T) {
	b := unhex(t, greetingOf10_11)
	g, err := ParseGreeting(b)
	if err != nil {
		t.Fatal(err)
	}
	if g.Version != "5.5.5-10.11.18-MariaDB-0+deb12u1" || g.Thread != 31 || string(g.Nonce) != "abcdefghijklmnopqrst" ||
		g.Capabilities&(TLS|StmtBulk|SessionTrack|DeprecateEOF) != TLS|StmtBulk|SessionTrack|DeprecateEOF || g.Plugin != "mysql_native_password" {
		t.Fatalf("%+v", g)
	}
	if out := g.Append(nil); !bytes.Equal(out, b) {
		t.Fatalf("\n%x\n%x", out, b)
	}
	if _, err := ParseGreeting(append([]byte{0xff, 0x69, 0x04}, "Host is blocked"...)); err == nil || err.Error() != "Host is blocked (1129)" {
		t.Fatal(err)
	}
}

func TestLogin(t *testing.T) {
	for name, l := range map[string]Login{
		"all":      {Capabilities: Protocol41 | SecureConnection | PluginAuth | AuthLenenc | ConnectWithDB | ConnectAttrs | StmtBulk, MaxPacket: 1 << 24, Charset: 45, User: "alice", Auth: []byte("x"), Database: "orders", Plugin: "p", Attributes: []byte{1, 'a', 1, 'b'}},
		"least":    {Capabilities: Protocol41 | LongPassword, User: "", Auth: []byte{}},
		"long":     {Capabilities: Protocol41 | AuthLenenc | LongPassword, User: "u", Auth: bytes.Repeat([]byte("a"), 300)},
		"one byte": {Capabilities: Protocol41 | SecureConnection | LongPassword, User: "u", Auth: bytes.Repeat([]byte("a"), 200)},
	} {
		got, err := ParseLogin(l.Append(nil))
		if l.Capabilities&(SecureConnection|AuthLenenc) == 0 {
			got.Auth = []byte{}
		}
		if err != nil || !reflect.DeepEqual(got, l) {
			t.Errorf("%s: %v\n%+v\n%+v", name, err, got, l)
		}
	}
	if _, err := ParseLogin(make([]byte, 40)); !errors.Is(err, ErrMalformed) {
		t.Error("a client of before 4.1:", err)
	}
}

// TestA62Lengths are lengths that overflow, and packets without end.
func TestA62Lengths(t *testing.T) {
	huge := "\xfe\xff\xff\xff\xff\xff\xff\xff\xff"
	for name, f := range map[string]func() error{
		"a packet over the limit": func() error { _, _, err := Read(strings.NewReader("\xff\xff\x00\x00"), 1024); return err },
		"a packet that goes on in others": func() error {
			_, _, err := Read(strings.NewReader("\xff\xff\xff\x00"), 1<<30)
			return err
		},
		"a packet that ends early": func() error { _, _, err := Read(strings.NewReader("\x09\x00\x00\x00abc"), 1024); return err },
		"a login whose password is longer than itself": func() error {
			l := Login{Capabilities: Protocol41 | AuthLenenc | LongPassword, User: "u"}
			_, err := ParseLogin(append(l.Append(nil)[:34], huge...))
			return err
		},
		"attributes of 2^64 bytes": func() error {
			l := Login{Capabilities: Protocol41 | AuthLenenc | ConnectAttrs | LongPassword, User: "u"}
			b := l.Append(nil)
			_, err := ParseLogin(append(b[:len(b)-1], huge...))
			return err
		},
		"a state change of 2^64 bytes": func() error { _, err := ParseOK([]byte("\x00\x00\x00\x00\x40\x00\x00\x00"+huge), true); return err },
		"a schema of 2^64 bytes": func() error {
			_, err := ParseOK([]byte("\x00\x00\x00\x00\x40\x00\x00\x00\x0b\x01\x09"+huge), true)
			return err
		},
		"a user without end":        func() error { _, err := ParseChangeUser([]byte("alice"), Known); return err },
		"columns that are no count": func() error { _, err := Columns([]byte{0xfe, 1}); return err },
		"an empty reply":            func() error { _, err := ParsePrepared(nil); return err },
	} {
		if err := f(); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	texts, _, cut := Execute([]byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfd\x00"+huge), 1, nil, nil, Limits{10, 10})
	if len(texts) != 0 || !cut {
		t.Errorf("a parameter of 2^64 bytes: %q", texts)
	}
}

func TestOK(t *testing.T) {
	end, err := ParseOK([]byte("\x00\x02\x03\x0a\x40\x01\x00\x04info\x0d\x01\x05\x04shop\x00\x04\x03abc"), true)
	if err != nil || end.Schema != "shop" || !end.Moved || end.Status&StatusMore == 0 {
		t.Fatalf("%+v %v", end, err)
	}
	if got := end.AppendPlain(nil); string(got) != "\x00\x02\x03\x0a\x00\x01\x00info" {
		t.Fatalf("%q", got)
	}
	plain, err := ParseOK([]byte("\x00\x00\x00\x02\x00\x00\x00anything"), false)
	if err != nil || plain.Moved || plain.Status != 2 {
		t.Fatalf("%+v %v", plain, err)
	}
}

func TestUses(t *testing.T) {
	for text, want := range map[string]string{
		"use shop":                              "shop",
		"USE `a``b`; select 1":                  "a`b",
		"select 1; use /* x */ two; use three":  "two three",
		"/*!40000 use hidden */":                "hidden",
		"/*M!100100 use hidden*/":               "hidden",
		"-- use no\nuse yes":                    "yes",
		"# use no\nselect 'use no; use no'":     "",
		"select * from t use index (i)":         "",
		"insert into t values ('a\\'; use no')": "",
		"select \"x\"\"; use no\"":              "",
		"use":                                   "",
		"/* never ends use x":                   "",
		"use;use a":                             "a",
	} {
		if got := strings.Join(Uses(text), " "); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

// TestA78Mask is what the audit log shows of statements with secrets.
func TestA78Mask(t *testing.T) {
	for text, want := range map[string]string{
		"create user bob identified by 'hunter2'":                                                   "create user bob identified by '***'",
		"ALTER USER bob@'%' IDENTIFIED WITH mysql_native_password AS '*AB' REQUIRE SSL COMMENT 'x'": "ALTER USER bob@'%' IDENTIFIED WITH mysql_native_password AS '***' REQUIRE SSL COMMENT 'x'",
		"create user a identified by 'one', 'b'@'h' identified by \"two\"":                          "create user a identified by '***', 'b'@'h' identified by '***'",
		"create user a identified via ed25519 using password('x') or unix_socket":                   "create user a identified via ed25519 using password('***') or unix_socket",
		"alter user a identified by 'new' replace 'old'":                                            "alter user a identified by '***' replace '***'",
		"grant all on *.* to bob identified by password '*HASH'; select 'seen'":                     "grant all on *.* to bob identified by password '***'; select 'seen'",
		"set password for 'bob'@'%' = 'x'":                                                          "set password for 'bob'@'%' = '***'",
		"SET PASSWORD=PASSWORD(\"x\")":                                                              "SET PASSWORD=PASSWORD('***')",
		"set /* x */ password = 0x6162":                                                             "set /* x */ password = '***'",
		"select password(x'6162'), 'seen'":                                                          "select password('***'), 'seen'",
		"change master to master_host='h', master_user='u', master_password='p'":                    "change master to master_host='h', master_user='u', master_password='***'",
		"CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = 'p'":                                        "CHANGE REPLICATION SOURCE TO SOURCE_PASSWORD = '***'",
		"create server s foreign data wrapper mysql options (user 'u', password 'p')":               "create server s foreign data wrapper mysql options (user 'u', password '***')",
		"create table f (id int) engine=federated connection='mysql://u:p@h/d/t'":                   "create table f (id int) engine=federated connection='***'",
		"/*!50000 create user bob identified by 'x' */":                                             "/*!50000 create user bob identified by '***' */",
		"create user bob identified /* ' */ by -- '\n 'x'":                                          "create user bob identified /* ' */ by -- '\n '***'",
		"execute immediate 'create user bob identified by ''x'''":                                   "execute immediate '***'",
		"prepare s from 'create user bob identified by \\'x\\''":                                    "prepare s from '***'…",
		"set @q = \"alter user bob identified by 'x'\"":                                             "set @q = '***'",
		"create user bob identified by 'it\\'s' require ssl":                                        "create user bob identified by '***'…",
		"create user bob identified by 'cut off":                                                    "create user bob identified by '***'…",
		"select * from users where name = 'bob'":                                                    "select * from users where name = 'bob'",
		"select password from users where name = 'bob'":                                             "select password from users where name = 'bob'",
		"select 'identified by', 'x'":                                                               "select 'identified by', 'x'",
		"replace into t values ('x')":                                                               "replace into t values ('x')",
		"select password(?)":                                                                        "select password(?)",
		"prepare s from 'select ?'":                                                                 "prepare s from 'select ?'",
	} {
		got, had := Mask(text)
		if got != want || had != (got != text || strings.Contains(text, "(?)")) {
			t.Errorf("%s:\n  %s\n  %s", text, got, want)
		}
	}
}

func TestParameters(t *testing.T) {
	args := "\x01\x00\x00\x00" + "\x00" + "\x01\x00\x00\x00" + "\x02\x00" + "\x01" +
		"\x01\x00" + "\x08\x00" + "\x08\x80" + "\x04\x00" + "\x05\x00" + "\x0c\x00" + "\x0b\x00" + "\xfd\x00" + "\xfc\x00" +
		"\xff" + "\xff\xff\xff\xff\xff\xff\xff\xff" + "\x00\x00\xc0\x3f" + "\x00\x00\x00\x00\x00\x00\x04\x40" +
		"\x0b\xea\x07\x01\x02\x03\x04\x05\x06\x00\x00\x00" + "\x08\x01\x01\x00\x00\x00\x02\x03\x04" + "\x05hello" + "\x02\xff\xfe"
	want := []string{"-1", Null, "18446744073709551615", "1.5", "2.5", "2026-01-02 03:04:05.000006", "-26:03:04", "hello", "0xfffe"}
	got, types, cut := Execute([]byte(args), 9, nil, nil, Limits{100, 100})
	if !reflect.DeepEqual(got, want) || cut || len(types) != 9 {
		t.Fatalf("%q\n%q %v", got, want, cut)
	}
	again := args[:11] + "\x00" + args[12+18:] // the types are not sent twice
	if got, _, _ := Execute([]byte(again), 9, types, nil, Limits{100, 3}); strings.Join(got[7:], " ") != "hel… 0xfffe" {
		t.Fatalf("%q", got)
	}
	if got, _, cut := Execute([]byte(again), 9, types, map[uint16]string{0: "ahead"}, Limits{1, 3}); !cut || len(got) != 1 || got[0] != "ahead" {
		t.Fatalf("%q %v", got, cut)
	}
	bulk := "\x01\x00\x00\x00" + "\x80\x00" + "\x03\x00" + "\xfd\x00" + "\x00\x07\x00\x00\x00" + "\x00\x01a" + "\x01" + "\x02" + "\x03" + "\x00\x01b"
	if got, _, cut := BulkExecute([]byte(bulk), 2, nil, Limits{100, 100}); strings.Join(got, " ") != "7 a NULL DEFAULT IGNORE b" || cut {
		t.Fatalf("%q", got)
	}
}

// FuzzMySQL holds that nothing that a client or server sends makes a parser panic or take what is not there.
func FuzzMySQL(f *testing.F) {
	f.Add(unhex(f, greetingOf10_11))
	f.Add(Login{Capabilities: Known, User: "alice", Database: "d", Plugin: "p", Attributes: []byte{1, 'a', 1, 'b'}}.Append(nil))
	f.Add([]byte("\x00\x02\x03\x0a\x40\x01\x00\x04info\x0d\x01\x05\x04shop\x00\x04\x03abc"))
	f.Add([]byte("\xff\x15\x04#28000Access denied"))
	f.Add([]byte("\xfemysql_native_password\x00abcdefghijklmnopqrst\x00"))
	f.Add([]byte("alice\x00\x02ab\x00\x2d\x00plugin\x00\x04\x01a\x01b"))
	f.Add([]byte("\x01\x00\x00\x00\x00\x01\x00\x00\x00\x00\x01\xfd\x00\x05hello"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if g, err := ParseGreeting(b); err == nil && len(g.Nonce) >= NonceLen {
			if _, err := ParseGreeting(g.Append(nil)); err != nil {
				t.Fatal(err)
			}
		}
		if l, err := ParseLogin(b); err == nil && len(l.Auth) < 256 {
			again, err := ParseLogin(l.Append(nil))
			if err != nil && l.Capabilities&(AuthLenenc|SecureConnection) != 0 || err == nil && (again.User != l.User || again.Database != l.Database && !strings.Contains(l.Database, "\x00")) && l.Capabilities&(AuthLenenc|SecureConnection) != 0 {
				t.Fatalf("%v\n%+v\n%+v", err, l, again)
			}
		}
		for _, tracked := range []bool{false, true} {
			if e, err := ParseOK(b, tracked); err == nil {
				if _, err := ParseOK(e.AppendPlain(nil), false); err != nil {
					t.Fatal(err)
				}
			}
		}
		ParseEOF(b)
		ParseError(b)
		ParseAuthSwitch(b)
		ParseChangeUser(b, Known)
		ParsePrepared(b)
		LongData(b)
		for _, n := range []int{0, 1, 3, 65535} {
			limits := Limits{Count: 8, Text: 16}
			texts, types, _ := Execute(b, n, nil, nil, limits)
			BulkExecute(b, n, types, limits)
			for _, s := range texts {
				if len(s) > 2+2*limits.Text+len("…") {
					t.Fatalf("%d bytes of text", len(s))
				}
			}
		}
	})
}

// FuzzMask holds that masking loses nothing of a text without secrets, ends, and that what it masked stays masked.
func FuzzMask(f *testing.F) {
	f.Add("create user bob identified by 'hunter2' /* x */ -- y")
	f.Add("/*!50000 set password = 'x' */; use `a``b`")
	f.Add("execute immediate 'create user bob identified by ''x'''")
	f.Fuzz(func(t *testing.T, s string) {
		masked, had := Mask(s)
		if !had && masked != s {
			t.Fatal("changed without a secret")
		}
		Uses(s)
		if strings.Contains(s, "\\") || strings.ContainsAny(s, "'\"`#-/\x00") {
			return
		}
		if out, _ := Mask("create user u identified by 'sEcReT' " + s); strings.Contains(out, "sEcReT") {
			t.Fatal(out)
		}
	})
}

// TestLookout: the name is seen wherever a text is cut, and nothing else is.
func TestLookout(t *testing.T) {
	for text, want := range map[string]bool{"SET SESSION session_TRACK_schema = 0": true, "session_track_schema": true, "set @@session_session_track_schema=1": true,
		"session_track_schem": false, "session_track_": false, "": false, "session track_schema_session_trac_schema": false, "__session_track_schema__": true} {
		if NamesTracking([]byte(text)) != want {
			t.Errorf("%q: %v", text, !want)
		}
		for size := 1; size <= len(text)+1; size++ {
			var l Lookout
			got := false
			for rest := []byte(text); len(rest) > 0; rest = rest[min(size, len(rest)):] {
				got = l.Sees(rest[:min(size, len(rest))]) || got
			}
			if got != want || len(l.tail) >= len(Tracking) {
				t.Errorf("%q by %d: %v, %d kept", text, size, got, len(l.tail))
			}
		}
	}
}
