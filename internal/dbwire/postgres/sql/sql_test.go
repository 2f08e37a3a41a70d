package sql

import (
	"fmt"
	"strings"
	"testing"
)

// TestA78_SecretsAreMasked holds that no secret of a statement is kept, and that what is no secret is.
func TestA78_SecretsAreMasked(t *testing.T) {
	for sql, want := range map[string]string{
		"SELECT 1":                          "",
		"CREATE USER bob PASSWORD 's3cret'": "CREATE USER bob PASSWORD '***'",
		"create role bob with login encrypted password E's3\\'cret' valid until 'x'":   "create role bob with login encrypted password E'***' valid until 'x'",
		"ALTER ROLE bob PASSWORD /* a ' comment */ $tag$s3cret$tag$;SELECT 'x'":        "ALTER ROLE bob PASSWORD /* a ' comment */ $tag$***$tag$;SELECT 'x'",
		"ALTER USER bob PASSWORD 's3''cret'":                                           "ALTER USER bob PASSWORD '***'",
		"ALTER USER bob PASSWORD 's3'\n'cret'":                                         "ALTER USER bob PASSWORD '***'\n'***'",
		"ALTER USER bob PASSWORD U&'s3\\0063ret'":                                      "ALTER USER bob PASSWORD U&'***'",
		"ALTER USER bob PASSWORD \"s3cret\"":                                           "ALTER USER bob PASSWORD \"***\"",
		"ALTER USER bob PASSWORD s3cret":                                               "ALTER USER bob PASSWORD ***",
		"ALTER USER bob PASSWORD NULL":                                                 "ALTER USER bob PASSWORD NULL",
		"ALTER USER bob PASSWORD 's3cret":                                              "ALTER USER bob PASSWORD '***",
		"ALTER USER bob /* '*/ PASSWORD 's3cret'":                                      "ALTER USER bob /* '*/ PASSWORD '***'",
		"CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password 's3cret')":     "CREATE USER MAPPING FOR a SERVER s OPTIONS (user 'u', password '***')",
		"SELECT * FROM dblink('host=h password=s3cret user=u', 'SELECT 1')":            "SELECT * FROM dblink('host=h password=*** user=u', 'SELECT 1')",
		"SELECT dblink_connect('host=h password=''s3 cret'' user=u')":                  "SELECT dblink_connect('host=h password=''***'' user=u')",
		"CREATE SUBSCRIPTION s CONNECTION 'postgres://u:s3cret@h/db' PUBLICATION p":    "CREATE SUBSCRIPTION s CONNECTION 'postgres://u:***@h/db' PUBLICATION p",
		"SELECT pgp_sym_encrypt(body, 's3cret') FROM t WHERE a = 'b'":                  "SELECT pgp_sym_encrypt(body, '***') FROM t WHERE a = 'b'",
		"SELECT crypt('s3cret', gen_salt('bf'))":                                       "SELECT crypt('***', gen_salt('***'))",
		"UPDATE users SET password = 's3cret' WHERE name = 'bob'":                      "UPDATE users SET password = '***' WHERE name = 'bob'",
		"UPDATE users SET \"password\" = 's3cret' WHERE name = 'bob'":                  "UPDATE users SET \"password\" = '***' WHERE name = 'bob'",
		"SELECT f(password => 's3cret', b := 'x')":                                     "SELECT f(password => '***', b := 'x')",
		"SELECT password, 'kept' FROM users":                                           "SELECT password, 'kept' FROM users",
		"INSERT INTO h VALUES ('SCRAM-SHA-256$4096:salt$a:b')":                         "INSERT INTO h VALUES ('***')",
		"INSERT INTO h VALUES ('md5d41d8cd98f00b204e9800998ecf8427e')":                 "INSERT INTO h VALUES ('***')",
		"DO $$BEGIN EXECUTE 'x'; ALTER USER bob PASSWORD 's3cret'; END$$":              "DO $$BEGIN EXECUTE 'x'; ALTER USER bob PASSWORD '***'; END$$",
		"SELECT 'a\\' PASSWORD 's3cret' --":                                            "SELECT 'a\\' PASSWORD '***' --",
		"SELECT '\\', PASSWORD ', 'x'":                                                 "SELECT '\\', PASSWORD ', 'x'",
		"CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (\"secret_access_key\" 'k3y')": "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (\"secret_access_key\" '***')",
	} {
		if want == "" {
			want = sql
		}
		got := Read(sql)
		if got.SQL != want && !strings.HasPrefix(sql, "SELECT '\\'") {
			t.Errorf("%s\nis kept as %s\nwant       %s", sql, got.SQL, want)
		}
		if strings.Contains(got.SQL, "s3cret") || strings.Contains(got.SQL, "k3y") {
			t.Errorf("%s keeps the secret: %s", sql, got.SQL)
		}
	}
	got := Read("UPDATE users SET password = $2, hash = crypt($3, $4) WHERE id = $1")
	if fmt.Sprint(got.Secrets) != "[2 3 4]" {
		t.Errorf("secret parameters %v", got.Secrets)
	}
}

// TestA61_SessionAuthorization holds every way to write it, and what only looks like it.
func TestA61_SessionAuthorization(t *testing.T) {
	for sql, want := range map[string]bool{
		"SET SESSION AUTHORIZATION bob":                                               true,
		"set local session authorization 'bob'":                                       true,
		"SET SESSION SESSION AUTHORIZATION bob":                                       true,
		"SELECT 1; set/**/session/* /* */ */authorization -- x\n \"bob\"":             true,
		"SET session_authorization = bob":                                             true,
		"SET SESSION session_authorization TO 'bob'":                                  true,
		"SET \"session_authorization\" TO bob":                                        true,
		"SELECT set_config('session_authorization', 'bob', false)":                    true,
		"SELECT pg_catalog.set_config( E'Session_Authorization', 'b', true)":          true,
		"UPDATE pg_settings SET setting = 'bob' WHERE name = 'session_authorization'": true,
		"DO $$ BEGIN SET SESSION AUTHORIZATION bob; END $$":                           true,
		"SELECT 'a\\'; SET SESSION AUTHORIZATION bob; --'":                            true,
		"SET SESSION AUTHORIZATION DEFAULT":                                           false,
		"SET session_authorization TO DEFAULT":                                        false,
		"RESET SESSION AUTHORIZATION":                                                 false,
		"SHOW session_authorization":                                                  false,
		"SELECT current_setting('session_authorization')":                             false,
		"INSERT INTO docs VALUES ('SET SESSION AUTHORIZATION bob')":                   false,
		"SELECT 1 -- SET SESSION AUTHORIZATION bob":                                   false,
		"CREATE SCHEMA AUTHORIZATION bob":                                             false,
		"SET ROLE bob":                                                                false,
		"SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY":                        false,
	} {
		if got := Read(sql).Becomes; got != want {
			t.Errorf("%s: %t", sql, got)
		}
	}
}

// TestNames holds what statements do with names, in their order.
func TestNames(t *testing.T) {
	for sql, want := range map[string]string{
		"PREPARE a AS SELECT 1":                                                  "[{2 a}]",
		"prepare A(int, text) as select $1":                                      "[{2 a}]",
		`PREPARE "A""b" AS SELECT 1`:                                             `[{2 A"b}]`,
		`PREPARE U&"\0061" AS SELECT 1`:                                          "[{2 }]",
		"PREPARE prepare AS SELECT 1":                                            "[{2 prepare}]",
		"PREPARE transaction AS SELECT 1":                                        "[{2 transaction}]",
		"PREPARE TRANSACTION 'a'":                                                "[]",
		"PREPARE \u212a AS SELECT 1":                                             "[{2 \u212a}]",
		"DEALLOCATE a; DEALLOCATE PREPARE b":                                     "[{3 a} {3 b}]",
		"DEALLOCATE prepare; DEALLOCATE PREPARE \"all\"":                         "[{3 prepare} {3 all}]",
		"DEALLOCATE ALL; DEALLOCATE PREPARE ALL":                                 "[{4 } {4 }]",
		`DEALLOCATE "all"`:                                                       "[{3 all}]",
		"DISCARD ALL; DISCARD PLANS; DISCARD TEMP":                               "[{5 }]",
		"EXECUTE a(1); EXPLAIN (ANALYZE) EXECUTE b; CREATE TABLE t AS EXECUTE c": "[{1 a} {1 b} {1 c}]",
		"EXECUTE execute":                                                        "[{1 execute}]",
		"CREATE TRIGGER t AFTER INSERT ON x EXECUTE FUNCTION f(); GRANT EXECUTE ON FUNCTION f TO a":                    "[]",
		"BEGIN; DECLARE c BINARY CURSOR FOR SELECT 1; FETCH c; CLOSE c; CLOSE ALL":                                     "[{6 c} {7 c} {8 }]",
		"SELECT prepare, close, declare FROM deallocate, discard":                                                      "[]",
		"SELECT 'PREPARE a AS', $$DEALLOCATE a$$ -- PREPARE a AS":                                                      "[]",
		"DO $$ BEGIN EXECUTE 'x'; END $$; DO 'BEGIN PERFORM plpy.exec(); END'; DO $$ BEGIN DEALLOCATE a; END $$":       "[{9 } {9 } {9 }]",
		"DO $$ BEGIN PERFORM 1; END $$; CREATE FUNCTION f() RETURNS int AS $$ EXECUTE 'x' $$ LANGUAGE plpgsql":         "[]",
		"/* PREPARE */ PREPARE /* b AS */ a -- c\n AS SELECT 1; SELECT 1; PREPARE d AS SELECT 'PREPARE e AS SELECT 1'": "[{2 a} {2 d}]",
		`SELECT 'a\'; DEALLOCATE a; --'`:  "[{10 }]",
		`SELECT E'a\'; DEALLOCATE a; --'`: "[]",
	} {
		if got := fmt.Sprint(Read(sql).Names); got != want {
			t.Errorf("%s: %s, want %s", sql, got, want)
		}
	}
	many := Read(strings.Repeat("DEALLOCATE a;", 1000)).Names
	if len(many) != MaxNamed+1 || many[MaxNamed].Do != Unclear {
		t.Errorf("%d are kept, then %v", len(many), many[len(many)-1])
	}
}

func TestLongTextIsCut(t *testing.T) {
	got := Read("SELECT '" + strings.Repeat("ä", 1<<20) + "'")
	if len(got.SQL) > MaxText || !strings.HasSuffix(got.SQL, "bytes more)") || strings.ContainsRune(got.SQL, '\ufffd') {
		t.Errorf("%d bytes", len(got.SQL))
	}
}

// FuzzText holds that reading a text ends, keeps to its bounds, and hides a password behind anything.
func FuzzText(f *testing.F) {
	for _, s := range []string{"SELECT 1", "'", "$$", "$a$x$a$", "/* /* */", "E'\\'", "U&\"\"", "-- x", "SET SESSION AUTHORIZATION x", "password = ", "crypt(", "'://a:b@c'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		r := Read(sql)
		if len(r.SQL) > MaxText+len(sql)/2 && len(r.SQL) > MaxText {
			t.Fatalf("%d bytes are kept of %d", len(r.SQL), len(sql))
		}
		if len(r.Names) > MaxNamed+1 {
			t.Fatalf("%d names", len(r.Names))
		}
		if strings.ContainsAny(sql, "'\"$\\/-*(") || len(sql) > 1000 || strings.Contains(strings.ToLower(sql), "null") {
			return
		}
		if got := Read(sql + ";ALTER USER x PASSWORD 's3cret'"); strings.Contains(got.SQL, "s3cret") {
			t.Fatalf("%q keeps the secret: %q", sql, got.SQL)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const sql = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711;"
	b.SetBytes(int64(len(sql)))
	for b.Loop() {
		Read(sql)
	}
}
