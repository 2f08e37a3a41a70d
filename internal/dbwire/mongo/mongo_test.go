package mongo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/xdg-go/scram"
	"go.mongodb.org/mongo-driver/v2/bson"
)

// marshal is a document by the driver's own library.
func marshal(t testing.TB, v any) Doc {
	t.Helper()
	b, err := bson.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func d(pairs ...any) bson.D {
	var out bson.D
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, bson.E{Key: pairs[i].(string), Value: pairs[i+1]})
	}
	return out
}

func message(t testing.TB, v any, sequences ...Sequence) *Message {
	t.Helper()
	b := append(make([]byte, 20), 0)
	b = append(b, marshal(t, v)...)
	for _, s := range sequences {
		b = append(b, 1)
		b = binary.LittleEndian.AppendUint32(b, uint32(4+len(s.Name)+1+len(s.Docs)))
		b = append(append(append(b, s.Name...), 0), s.Docs...)
	}
	copy(b, Header{Length: len(b), ID: 5, Opcode: OpMsg}.Append(nil))
	m, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestText(t *testing.T) {
	oid, _ := bson.ObjectIDFromHex("0123456789abcdef01234567")
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	m := message(t, d("find", "t", "filter", d("a", int32(1), "b", int64(-2), "c", 1.5, "d", true, "e", nil, "f", "q\"x", "g", bson.A{1, "z"}, "h", oid, "i", at,
		"j", bson.Regex{Pattern: "^a", Options: "i"}, "k", bson.Binary{Subtype: 4, Data: []byte{1, 2}}, "l", math.Inf(1), "m", bson.Timestamp{T: 1, I: 2}, "n", bson.A{}), "$db", "orders", "lsid", d("id", 1)))
	got, secret := m.Text()
	want := `{"find":"t","filter":{"a":1,"b":-2,"c":1.5,"d":true,"e":null,"f":"q\"x","g":[1,"z"],"h":{"$oid":"0123456789abcdef01234567"},"i":{"$date":"2026-01-02T03:04:05.006Z"},` +
		`"j":{"$regularExpression":{"pattern":"^a","options":"i"}},"k":{"$binary":{"base64":"AQI=","subType":"04"}},"l":{"$numberDouble":"+Inf"},"m":{"$timestamp":{"t":1,"i":2}},"n":[]}}`
	if got != want || secret {
		t.Errorf("%s\n%s", got, want)
	}
	var back bson.D
	if err := bson.UnmarshalExtJSON([]byte(strings.ReplaceAll(got, "+Inf", "Infinity")), false, &back); err != nil {
		t.Errorf("the driver does not read it: %v", err)
	}
	docs := append(slices.Clone(marshal(t, d("x", 1))), marshal(t, d("x", 2))...)
	if got, _ := message(t, d("insert", "t", "$db", "o"), Sequence{"documents", docs}).Text(); got != `{"insert":"t","documents":[{"x":1},{"x":2}]}` {
		t.Error(got)
	}
	if got, _ := message(t, d("insert", "t", "x", strings.Repeat("é", MaxText), "$db", "o")).Text(); len(got) > MaxText+len("…") || !strings.HasSuffix(got, "é…") {
		t.Errorf("%d bytes", len(got))
	}
}

// TestA78Mask is what is kept of commands with secrets, and that what is none is kept.
func TestA78Mask(t *testing.T) {
	for want, v := range map[string]bson.D{
		`{"createUser":"u","pwd":"***","roles":[]}`:                      d("createUser", "u", "pwd", "hunter2", "roles", bson.A{}, "$db", "a"),
		`{"updateUser":"u","pwd":"***"}`:                                 d("updateUser", "u", "pwd", "hunter2", "$db", "a"),
		`{"UPDATEUSER":"u","PWD":"***"}`:                                 d("UPDATEUSER", "u", "PWD", "hunter2", "$db", "a"),
		`{"createUser":"u","x":{"pwd":"***"}}`:                           d("createUser", "u", "x", d("pwd", d("y", "hunter2")), "$db", "a"),
		`{"creatUser":"u","pwd":"***"}`:                                  d("creatUser", "u", "pwd", "hunter2", "$db", "a"),
		`{"saslStart":1,"payload":"***"}`:                                d("saslStart", 1, "payload", bson.Binary{Data: []byte("hunter2")}, "$db", "a"),
		`{"saslContinue":1,"payload":"***"}`:                             d("saslContinue", 1, "payload", "hunter2", "$db", "a"),
		`{"authenticate":1,"key":"***"}`:                                 d("authenticate", 1, "key", "hunter2", "$db", "a"),
		`{"hello":1,"speculativeAuthenticate":"***"}`:                    d("hello", 1, "speculativeAuthenticate", d("payload", "hunter2"), "$db", "a"),
		`{"isMaster":1,"speculativeAuthenticate":"***"}`:                 d("isMaster", 1, "speculativeAuthenticate", d("payload", "hunter2"), "$db", "a"),
		`{"copydbsaslstart":1,"fromhost":"h","payload":"***"}`:           d("copydbsaslstart", 1, "fromhost", "h", "payload", "hunter2", "$db", "a"),
		`{"copydb":1,"nonce":"***","key":"***"}`:                         d("copydb", 1, "nonce", "hunter2", "key", "hunter2", "$db", "a"),
		`{"setParameter":1,"ldapQueryPassword":"***","logLevel":1}`:      d("setParameter", 1, "ldapQueryPassword", "hunter2", "logLevel", 1, "$db", "admin"),
		`{"setparameter":1,"ldapquerypassword":"***"}`:                   d("setparameter", 1, "ldapquerypassword", bson.A{"hunter2"}, "$db", "admin"),
		`{"setParameter":1,"x":{"awsSecretAccessKey":"***","user":"u"}}`: d("setParameter", 1, "x", d("awsSecretAccessKey", "hunter2", "user", "u"), "$db", "admin"),
		`{"setClusterParameter":{"p":{"sessionToken":"***"}}}`:           d("setClusterParameter", d("p", d("sessionToken", "hunter2")), "$db", "admin"),
		`{"donorStartMigration":1,"donorCertificateForRecipient":{"certificate":"c","privateKey":"***"}}`: d("donorStartMigration", 1, "donorCertificateForRecipient",
			d("certificate", "c", "privateKey", "hunter2"), "$db", "admin"),
		`{"addShard":"mongodb://u:***@h1:27017,h2/db?x=y"}`:                                d("addShard", "mongodb://u:hunter2@h1:27017,h2/db?x=y", "$db", "admin"),
		`{"insert":"t","documents":[{"uri":"mongodb+srv://u:***@h and amqp://u:***@h/"}]}`: d("insert", "t", "documents", bson.A{d("uri", "mongodb+srv://u:hunter2@h and amqp://u:hunter2@h/")}, "$db", "a"),
		`{"insert":"t","documents":[{"uri":"mongodb://u:***"}]}`:                           d("insert", "t", "documents", bson.A{d("uri", "mongodb://u:hunter2")}, "$db", "a"),
		`{"insert":"system.users","documents":[{"user":"u","credentials":"***"}]}`:         d("insert", "system.users", "documents", bson.A{d("user", "u", "credentials", d("SCRAM-SHA-256", d("storedKey", "hunter2")))}, "$db", "admin"),
		`{"update":"system.users","updates":[{"u":{"$set":{"credentials.SCRAM-SHA-1.salt":"***"}}}]}`: d("update", "system.users", "updates",
			bson.A{d("u", d("$set", d("credentials.SCRAM-SHA-1.salt", "hunter2")))}, "$db", "admin"),
		`{"applyOps":[{"op":"i","ns":"admin.system.users","o":{"credentials":"***"}}]}`: d("applyOps", bson.A{d("op", "i", "ns", "admin.system.users", "o", d("credentials", "hunter2"))}, "$db", "admin"),
		`{"insert":"t","documents":[{"ssn":"***"}]}`:                                    d("insert", "t", "documents", bson.A{d("ssn", bson.Binary{Subtype: 8, Data: []byte("hunter2")})}, "$db", "a"),
	} {
		if got, secret := message(t, v).Text(); got != want || !secret {
			t.Errorf("%v:\n%s\n%s (%t)", v, got, want, secret)
		}
	}
	for want, v := range map[string]bson.D{
		`{"find":"users","filter":{"pwd":1,"key":"k","credentials":2,"payload":"p"}}`: d("find", "users", "filter", d("pwd", 1, "key", "k", "credentials", 2, "payload", "p"), "$db", "a"),
		`{"distinct":"t","key":"k"}`:                                 d("distinct", "t", "key", "k", "$db", "a"),
		`{"setParameter":1,"logLevel":1}`:                            d("setParameter", 1, "logLevel", 1, "$db", "admin"),
		`{"addShard":"mongodb://h1:27017,h2:27018"}`:                 d("addShard", "mongodb://h1:27017,h2:27018", "$db", "admin"),
		`{"find":"t","filter":{"u":"https://h:443/a@b and user@h"}}`: d("find", "t", "filter", d("u", "https://h:443/a@b and user@h"), "$db", "a"),
		`{"find":"t","filter":{"ssn":"***"}}`:                        d("find", "t", "filter", d("ssn", bson.Binary{Subtype: 6, Data: []byte("cipher")}), "$db", "a"), // not a secret to keep an error back for
	} {
		if got, secret := message(t, v).Text(); got != want || secret {
			t.Errorf("%v:\n%s\n%s (%t)", v, got, want, secret)
		}
	}
	long := message(t, d("createUser", "u", "customData", strings.Repeat("x", MaxText), "pwd", "hunter2", "$db", "a"))
	if got, secret := long.Text(); !secret || strings.Contains(got, "hunter2") {
		t.Errorf("a secret behind what is shown: %t", secret)
	}
}

func TestDatabases(t *testing.T) {
	for want, v := range map[string]bson.D{
		"o":         d("find", "t", "db", "x", "filter", d("db", "y"), "$db", "o"),
		"o x":       d("aggregate", "t", "pipeline", bson.A{d("$out", d("db", "x", "coll", "c"))}, "$db", "o"),
		"o x y":     d("aggregate", "t", "pipeline", bson.A{d("$lookup", d("from", d("db", "x", "coll", "c"), "pipeline", bson.A{d("$unionWith", d("db", "y", "coll", "c"))}))}, "$db", "o"),
		"admin a b": d("renameCollection", "a.t", "to", "b.t.u", "$db", "admin"),
		"admin a":   d("bulkWrite", 1, "nsInfo", bson.A{d("ns", "a.t")}, "$db", "admin"),
		"o z":       d("explain", d("find", "t", "$db", "z"), "$db", "o"),
		"o m":       d("mapReduce", "t", "out", d("replace", "c", "db", "m"), "$db", "o"),
		"admin q r": d("applyOps", bson.A{d("op", "i", "ns", "q.t"), d("op", "c", "ns", "q.$cmd", "o", d("renameCollection", "q.t", "to", "r.t"))}, "$db", "admin"),
	} {
		got, err := message(t, v).Databases()
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%v: %v %v, want %s", v, got, err, want)
		}
	}
	// Whichever of two fields a server takes, it was asked for.
	for want, v := range map[string]bson.D{
		"admin a b c": d("renameCollection", "a.t", "to", "b.t", "to", "c.t", "$db", "admin"),
		"admin a b":   d("bulkWrite", 1, "nsInfo", bson.A{d("ns", "a.t")}, "nsInfo", bson.A{d("ns", "b.t")}, "$db", "admin"),
		"o y z":       d("explain", d("find", "t", "$db", "y", "$db", "z"), "$db", "o"),
	} {
		if got, err := message(t, v).Databases(); err != nil || strings.Join(got, " ") != want {
			t.Errorf("%v: %v %v, want %s", v, got, err, want)
		}
	}
	m := message(t, d("bulkWrite", 1, "$db", "admin"), Sequence{"nsInfo", marshal(t, d("ns", "s.t"))})
	if got, err := m.Databases(); err != nil || strings.Join(got, " ") != "admin s" {
		t.Errorf("%v %v", got, err)
	}
	for _, v := range []bson.D{d("find", "t"), d("find", "t", "$db", "a", "$db", "b"), d("find", "t", "$db", 1), d("find", "t", "$db", "")} {
		if got, err := message(t, v).Databases(); err == nil {
			t.Errorf("%v: %v", v, got)
		}
	}
}

// TestA62Lengths are lengths that overflow, and messages without end.
func TestA62Lengths(t *testing.T) {
	good := AppendCommand(nil, 1, Doc(marshal(t, d("a", "b", "c", d("e", bson.A{1}), "f", bson.Binary{Data: []byte("x")}))))
	for i := HeaderLen + 5; i+4 <= len(good); i++ {
		for _, v := range []uint32{0, 1, 4, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffb} {
			b := slices.Clone(good)
			binary.LittleEndian.PutUint32(b[i:], v)
			if m, err := Parse(b); err == nil { // whatever it means, it holds together
				m.Text()
				_ = m.Body.Check()
			}
		}
	}
	for i := range good {
		if _, err := Parse(good[:i]); err == nil {
			t.Errorf("cut after %d bytes: taken", i)
		}
	}
	deep := bson.D{}
	for range maxNesting + 1 {
		deep = d("a", deep)
	}
	if _, err := Parse(AppendCommand(nil, 1, marshal(t, deep))); !errors.Is(err, ErrMalformed) {
		t.Errorf("%d documents in each other: %v", maxNesting, err)
	}
	sum := slices.Clone(good)
	sum[16] = FlagChecksum
	binary.LittleEndian.PutUint32(sum, uint32(len(sum)+4))
	right := binary.LittleEndian.AppendUint32(slices.Clone(sum), crc32.Checksum(sum, castagnoli))
	m, err := Parse(right)
	if err != nil {
		t.Fatal("a checksum:", err)
	}
	if !bytes.Equal(m.Forward(nil), good) {
		t.Error("it does not go on as it was without one")
	}
	right[len(right)-1] ^= 1
	if _, err := Parse(right); err == nil {
		t.Error("a wrong checksum is taken")
	}
}

func TestOutcome(t *testing.T) {
	for want, v := range map[string]bson.D{
		"":            d("ok", 1.0, "n", 1),
		"no (13)":     d("ok", 0.0, "errmsg", "no", "code", 13),
		"it failed":   d("ok", 0),
		"dup (11000)": d("n", 0, "writeErrors", bson.A{d("index", 0, "code", 11000, "errmsg", "dup")}, "ok", 1.0),
		"late (64)":   d("writeConcernError", d("code", 64, "errmsg", "late"), "ok", 1.0),
	} {
		if got := Outcome(marshal(t, v)); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	// bulkWrite of MongoDB 8 has its results in a cursor, and in nErrors how many failed; of a find they are data.
	results := d("firstBatch", bson.A{d("ok", 1.0, "idx", 0, "n", 1), d("ok", 0.0, "idx", 1, "code", 11000, "errmsg", "dup")}, "ns", "admin.$cmd.bulkWrite")
	for want, v := range map[string]bson.D{
		"dup (11000)":            d("cursor", results, "nErrors", 1, "ok", 1.0),
		"2 of its writes failed": d("cursor", d("firstBatch", bson.A{}), "nErrors", 2, "ok", 1.0),
		"":                       d("cursor", results, "ok", 1.0),
	} {
		if got := Outcome(marshal(t, v)); got != want {
			t.Errorf("%v: %q, want %q", v, got, want)
		}
	}
	// Of a reply too long to be looked at whole the beginning tells.
	var errs bson.A
	for i := range 1000 {
		errs = append(errs, d("index", i, "code", 121, "errmsg", "first of many"))
	}
	long := message(t, d("n", 0, "writeErrors", errs, "ok", 1.0)).Forward(nil)
	insert, bulk := message(t, d("insert", "t", "$db", "o")), message(t, d("bulkWrite", 1, "$db", "admin"))
	for n := range len(long) {
		got := insert.Begun(long[:n])
		if want := "first of many (121)"; n > 200 && got != want || got != "" && got != "it failed" && got != want {
			t.Fatalf("%d bytes: %q", n, got)
		}
	}
	cut := message(t, d("cursor", d("firstBatch", bson.A{d("ok", 1.0, "idx", 0), d("ok", 0.0, "code", 121, "errmsg", "bad"), d("x", strings.Repeat("x", 1000))}), "nErrors", 1, "ok", 1.0)).Forward(nil)[:500]
	if got := insert.Begun(cut); got != "" {
		t.Errorf("data are taken for an outcome: %q", got)
	}
	if got := bulk.Begun(cut); got != "bad (121)" {
		t.Errorf("%q of a bulkWrite", got)
	}
}

// TestScram is each side against another implementation, and against itself.
func TestScram(t *testing.T) {
	stranger, err := scram.SHA256.NewClient("al,ice=", "se cret", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, password := range []string{"se cret", "other"} {
		conv := stranger.NewConversation()
		first, _ := conv.Step("")
		salt := []byte("0123456789abcdef")
		s, user, challenge, err := NewScramServer(first, password, salt, "ours")
		if err != nil || user != "al,ice=" {
			t.Fatal(user, err)
		}
		final, err := conv.Step(challenge)
		if err != nil {
			t.Fatal(err)
		}
		last, ok := s.Finish(final, salt)
		if ok != (password == "se cret") {
			t.Fatal(password, ok)
		}
		if _, err := conv.Step(last); ok && (err != nil || !conv.Valid()) {
			t.Fatal(err)
		}
	}
	server, err := scram.SHA256.NewServer(func(string) (scram.StoredCredentials, error) {
		return stranger.GetStoredCredentials(scram.KeyFactors{Salt: "salt", Iters: 5000}), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	conv := server.NewConversation()
	s, first := NewScramClient("al,ice=", "se cret", "mine")
	challenge, err := conv.Step(first)
	if err != nil {
		t.Fatal(err)
	}
	final, err := s.Answer(challenge)
	if err != nil {
		t.Fatal(err)
	}
	last, err := conv.Step(final)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(last); err != nil {
		t.Fatal(err)
	}
	if s.Verify("v=AAAA") == nil || s.Verify("") == nil {
		t.Error("a server that does not know the password is believed")
	}
	for _, bad := range []string{"", "r=mine,s=c2FsdA==,i=5000", "r=other1,s=c2FsdA==,i=5000", "r=mine1,s=!,i=5000", "r=mine1,s=c2FsdA==,i=1", "r=mine1,s=c2FsdA==,i=99999999"} {
		if _, err := s.Answer(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzMessage holds that what a client sends never makes a parser panic, and that what goes on is what was judged.
func FuzzMessage(f *testing.F) {
	f.Add(AppendCommand(nil, 1, marshal(f, d("find", "t", "filter", d("a", bson.A{1, "x"}), "$db", "o"))))
	f.Add(AppendCommand(nil, 1, marshal(f, d("createUser", "u", "pwd", "p", "$db", "o"))))
	f.Add(message(f, d("bulkWrite", 1, "$db", "admin"), Sequence{"nsInfo", marshal(f, d("ns", "s.t"))}).Forward(nil))
	f.Add([]byte("\x3a\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\xd4\x07\x00\x00\x00\x00\x00\x00admin.$cmd\x00\x00\x00\x00\x00\xff\xff\xff\xff\x13\x00\x00\x00\x10ismaster\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		text, _ := m.Text()
		if len(text) > MaxText+len("…") {
			t.Fatalf("%d bytes of text", len(text))
		}
		dbs, err := m.Databases()
		Outcome(m.Body)
		m.Begun(b)
		m.Begun(b[:len(b)/2])
		if m.Opcode != OpMsg {
			return
		}
		again, aerr := Parse(m.Forward(nil))
		if aerr != nil {
			t.Fatal(aerr)
		}
		dbs2, err2 := again.Databases()
		if !slices.Equal(dbs, dbs2) || (err == nil) != (err2 == nil) || !bytes.Equal(again.Body, m.Body) {
			t.Fatalf("%v became %v", dbs, dbs2)
		}
		if err == nil { // the driver's library reads the same database
			var raw bson.Raw = bson.Raw(m.Body)
			if v, verr := raw.LookupErr("$db"); verr == nil && v.StringValue() != dbs[0] {
				t.Fatalf("%q, to another reader %q", dbs[0], v.StringValue())
			}
		}
	})
}

// FuzzScram holds that no message of another side makes an exchange panic.
func FuzzScram(f *testing.F) {
	f.Add("n,,n=u,r=abc", "c=biws,r=abcours,p=AAAA")
	f.Add("n,,n=u=2C,r=abc", "r=mine1,s=c2FsdA==,i=4096")
	f.Fuzz(func(t *testing.T, first, second string) {
		if s, _, _, err := NewScramServer(first, "p", []byte("salt"), "ours"); err == nil {
			s.Finish(second, []byte("salt"))
		}
		s, _ := NewScramClient("u", "p", "mine")
		if len(second) < 200 && !strings.Contains(second, ",i=1") {
			if _, err := s.Answer(second); err == nil {
				_ = s.Verify(first)
			}
		}
		_ = s.Verify(second)
	})
}
