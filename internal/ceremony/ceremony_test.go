package ceremony

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

func reason(err error) string {
	switch f := fault.Of(err); {
	case err == nil:
		return "accepted"
	case f.Reason != "":
		return f.Reason
	default:
		return f.Text
	}
}

// hex bytes in JSON.
type octets []byte

func (o *octets) UnmarshalText(b []byte) (err error) {
	*o, err = hex.DecodeString(string(b))
	return err
}

// vector is one recorded ceremony.
type vector struct {
	Name       string  `json:"name"`
	Purpose    Purpose `json:"purpose"`
	ClusterCA  octets  `json:"cluster_ca"`
	User       string  `json:"user"`
	Upgraded   octets  `json:"upgraded"`
	SessionKey octets  `json:"session_key"`
	Hello      octets  `json:"hello"`
	Challenge  octets  `json:"challenge"`
	Secret     octets  `json:"secret"`
	Digest     octets  `json:"digest"`
	Proof      octets  `json:"proof"`
	Welcome    octets  `json:"welcome"`
	Log        octets  `json:"log"`
}

func (v vector) binding() Binding {
	return Binding{v.Purpose, v.ClusterCA, v.User, v.Upgraded, v.SessionKey}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	var out []vector
	for _, name := range []string{"device-v1.json", "device-v1-enclave.json"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var some []vector
		if err := json.Unmarshal(b, &some); err != nil {
			t.Fatal(err)
		}
		out = append(out, some...)
	}
	return out
}

// TestVectors reads each recorded message, writes it again, and computes each digest.
func TestVectors(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			if got := v.binding().Digest(v.Hello, v.Challenge); !bytes.Equal(got[:], v.Digest) {
				t.Errorf("digest %x, want %x", got, []byte(v.Digest))
			}
			h, err := decodeHello(v.Hello, v.Purpose)
			if err != nil {
				t.Fatal(err)
			}
			c, err1 := decodeChallenge(v.Challenge)
			p, err2 := decodeProof(v.Proof)
			w, err3 := decodeWelcome(v.Welcome)
			if err := errors.Join(err1, err2, err3); err != nil {
				t.Fatal(err)
			}
			if len(v.Log) > 0 {
				r, more, err := new(AwaitLog).Log(v.Log)
				if err != nil || more {
					t.Fatal(err)
				}
				if again, err := encodeLog(*r.Quote); err != nil || len(again) != 1 || !bytes.Equal(again[0], v.Log) {
					t.Errorf("Log is written as %x, %v", again, err)
				}
			}
			if (len(v.Log) > 0) != (p.Quote != nil) {
				t.Error("a quote and a Log come together")
			}
			if !bytes.Equal(p.secret, v.Secret) {
				t.Errorf("secret %x", p.secret)
			}
			for name, m := range map[string]struct {
				encode func() ([]byte, error)
				want   []byte
			}{"Hello": {h.encode, v.Hello}, "Challenge": {c.encode, v.Challenge}, "Proof": {p.encode, v.Proof}, "Welcome": {w.encode, v.Welcome}} {
				if got, err := m.encode(); err != nil || !bytes.Equal(got, m.want) {
					t.Errorf("%s is written as %x, %v", name, got, err)
				}
			}
		})
	}
}

// stub is a judge and a key that take everything but what a test forbids: the messages are on trial here, not the
// evidence.
type stub struct {
	evidence device.Evidence
	log      []byte
}

func (s stub) Evidence() (device.Evidence, error)      { return s.evidence, nil }
func (s stub) Activate(blob, _ []byte) ([]byte, error) { return blob, nil }
func (s stub) Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error) {
	p := device.Proof{Signature: digest[:]}
	if quote {
		p.Quote = &device.Quote{Statement: digest[:], Log: s.log}
	}
	return p, nil
}

type stubJudge struct{ err error }

func (j stubJudge) Enroll(e device.Evidence) (device.Credential, error) {
	return device.Credential{Kind: e.Kind, Attestation: device.LevelTPMPub}, j.err
}

func (stubJudge) Protect(_ io.Reader, _ device.Evidence, secret []byte) ([]byte, []byte, error) {
	return secret, []byte("enc"), nil
}

func (stubJudge) Prove(_ device.Credential, _ device.Session, digest [sha256.Size]byte, p device.Proof) (*device.Clock, error) {
	if !bytes.Equal(p.Signature, digest[:]) {
		return nil, refuse("digest", "another transcript")
	}
	return &device.Clock{ResetCount: 7}, nil
}

func (stubJudge) Quote(_ device.Credential, digest [sha256.Size]byte, q device.Quote) error {
	if !bytes.Equal(q.Statement, digest[:]) {
		return refuse("quote", "another transcript")
	}
	return nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func bindingFor(p Purpose) Binding {
	return Binding{Purpose: p, ClusterCA: bytes.Repeat([]byte{1}, 32), User: "alice", SessionKey: []byte("spki")}
}

var (
	enrollEvidence = device.Evidence{Kind: device.TPM2, EKName: device.EKRSA2048, EKPublic: []byte("ek"), KeyArea: []byte("ak"),
		SessionArea: []byte("area"), TPM: &device.TPMInfo{Manufacturer: "IBM"}}
	loginEvidence = device.Evidence{Kind: device.TPM2, SessionArea: []byte("area")}
	stored        = device.Credential{ID: "cred", Kind: device.TPM2}
)

// stages are both sides of a ceremony before each message.
type stages struct {
	prover    *Prover
	verifier  *Verifier
	await     *AwaitChallenge
	awaiting  *AwaitingChallenge
	proofs    *AwaitProof
	welcoming *AwaitingWelcome
	logs      *AwaitLog
	result    Result

	hello, challenge, proof, welcome, log []byte
}

// upTo runs a ceremony until n messages are made and all but the last are taken. The fifth is Log, which comes before
// Welcome where there is a quote.
func upTo(t testing.TB, p Purpose, n int) *stages {
	t.Helper()
	e, intro, ask := loginEvidence, Introduction{CredentialID: "cred"}, Ask{Credential: &stored, Quote: true}
	if p == Enroll {
		e, intro, ask = enrollEvidence, Introduction{Token: "tok", Claims: device.Data{OSType: device.Linux}}, Ask{}
	}
	s := &stages{}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err, fault.Of(err).Cause)
		}
	}
	var err error
	s.prover, err = NewProver(bindingFor(p), stub{e, []byte("an event log")})
	check(err)
	s.verifier, err = NewVerifier(bindingFor(p), stubJudge{}, zeros{})
	check(err)
	s.hello, s.awaiting, err = s.prover.Hello(intro)
	check(err)
	if n == 1 {
		return s
	}
	_, s.await, err = s.verifier.Hello(s.hello)
	check(err)
	s.challenge, s.proofs, err = s.await.Challenge(ask)
	check(err)
	if n == 2 {
		return s
	}
	answers, welcoming, err := s.awaiting.Proof(s.challenge)
	check(err)
	s.proof, s.welcoming = answers[0], welcoming
	if n == 3 {
		return s
	}
	s.result, s.logs, err = s.proofs.Proof(s.proof)
	check(err)
	if s.logs != nil {
		s.log = answers[1]
		if n == typeLog {
			return s
		}
		s.result, _, err = s.logs.Log(s.log)
		check(err)
	}
	s.welcome, err = s.result.Welcome(Welcome{"dev", "TAG", "cred", device.LevelTPMPub})
	check(err)
	return s
}

// take gives the n-th message to who awaits it.
func (s *stages) take(n int, msg []byte) (err error) {
	switch n {
	case 1:
		_, _, err = s.verifier.Hello(msg)
	case 2:
		_, _, err = s.awaiting.Proof(msg)
	case 3:
		_, _, err = s.proofs.Proof(msg)
	case 5:
		_, _, err = s.logs.Log(msg)
	case 4:
		_, err = s.welcoming.Welcome(msg)
	}
	return err
}

func (s *stages) message(n int) []byte {
	return [][]byte{nil, s.hello, s.challenge, s.proof, s.welcome, s.log}[n]
}

// TestA41_Messages gives each side each message cut at every byte, with bytes behind it, oversized, in the place of
// another, and twice.
func TestA41_Messages(t *testing.T) {
	for _, p := range []Purpose{Enroll, Login, Reissue} {
		last := 5
		if p == Enroll {
			last = 4 // no quote, no log
		}
		for n := 1; n <= last; n++ {
			whole := upTo(t, p, n).message(n)
			for cut := range whole {
				if got := reason(upTo(t, p, n).take(n, whole[:cut])); got != "device_message_truncated" {
					t.Fatalf("%s %s cut to %d bytes: %s", p, typeNames[n], cut, got)
				}
			}
			for name, m := range map[string]struct {
				msg  []byte
				want string
			}{
				"one byte more": {append(bytes.Clone(whole), 0), "device_message_trailing"},
				"oversized":     {append(bytes.Clone(whole), make([]byte, MaxMessage)...), "device_message_too_large"},
				"empty":         {nil, "device_message_truncated"},
			} {
				if got := reason(upTo(t, p, n).take(n, m.msg)); got != m.want {
					t.Errorf("%s %s %s: %s, want %s", p, typeNames[n], name, got, m.want)
				}
			}
			for other := 1; other <= last; other++ {
				if got := reason(upTo(t, p, n).take(n, upTo(t, p, other).message(other))); other != n && got != "device_message_order" {
					t.Errorf("%s: %s in the place of %s: %s", p, typeNames[other], typeNames[n], got)
				}
			}
			s := upTo(t, p, n)
			if err := s.take(n, whole); err != nil {
				t.Fatal(p, n, err)
			}
			if got := reason(s.take(n, whole)); got != "device_message_order" {
				t.Errorf("%s %s twice: %s", p, typeNames[n], got)
			}
			bad := upTo(t, p, n)
			_ = bad.take(n, nil)
			if got := reason(bad.take(n, whole)); got != "device_message_order" {
				t.Errorf("%s %s behind a bad one: %s", p, typeNames[n], got)
			}
		}
	}
	s := upTo(t, Enroll, 4)
	if _, _, err := s.prover.Hello(Introduction{}); reason(err) != "device_message_order" {
		t.Error("Hello was made twice")
	}
	if _, _, err := s.await.Challenge(Ask{}); reason(err) != "device_message_order" {
		t.Error("Challenge was made twice")
	}
}

// TestA7_Binding changes each thing that a signature covers, on one side only.
func TestA7_Binding(t *testing.T) {
	base := bindingFor(Login)
	rows := map[string]func(*Binding){
		"purpose":     func(b *Binding) { b.Purpose = Reissue },
		"cluster":     func(b *Binding) { b.ClusterCA = bytes.Repeat([]byte{2}, 32) },
		"user":        func(b *Binding) { b.User = "bob" },
		"certificate": func(b *Binding) { b.Upgraded = bytes.Repeat([]byte{3}, 32) },
		"session key": func(b *Binding) { b.SessionKey = []byte("other") },
	}
	h, c := []byte("hello"), []byte("challenge")
	want := base.Digest(h, c)
	for name, change := range rows {
		b := base
		change(&b)
		if b.Digest(h, c) == want {
			t.Errorf("another %s gives the same digest", name)
		}
		s := upTo(t, Login, 1)
		s.verifier, _ = NewVerifier(b, stubJudge{}, zeros{})
		_, await, err := s.verifier.Hello(s.hello)
		if name == "purpose" {
			if reason(err) != "device_purpose" {
				t.Errorf("Hello for another purpose: %v", err)
			}
			continue
		}
		challenge, proofs, err := await.Challenge(Ask{Credential: &stored})
		if err != nil {
			t.Fatal(err)
		}
		proof, _, err := s.awaiting.Proof(challenge)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := proofs.Proof(proof[0]); reason(err) != "digest" {
			t.Errorf("another %s: %s", name, reason(err))
		}
	}
	if base.Digest([]byte("a"), []byte("bc")) == base.Digest([]byte("ab"), []byte("c")) {
		t.Error("bytes move between messages")
	}
	if base.Digest(h, c) == base.Digest(h, []byte("Challenge")) || base.Digest(h) == want {
		t.Error("a message is not covered")
	}
	b1, b2 := base, base
	b1.User, b2.User, b2.Upgraded = "a", "", []byte("a")
	if b1.Digest() == b2.Digest() {
		t.Error("bytes move between fields")
	}
}

// TestA7_Proof sends proofs that belong elsewhere.
func TestA7_Proof(t *testing.T) {
	old := upTo(t, Enroll, 3)
	s := upTo(t, Enroll, 3)
	p, err := decodeProof(s.proof)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		change func(*proof)
		want   string
	}{
		"no secret":      {func(p *proof) { p.secret = nil }, "device_activation"},
		"another secret": {func(p *proof) { p.secret = bytes.Repeat([]byte{9}, 32) }, "device_activation"},
		"short secret":   {func(p *proof) { p.secret = p.secret[:31] }, "device_activation"},
		"no signature":   {func(p *proof) { p.Signature = nil }, "digest"},
		"stray quote":    {func(p *proof) { p.Quote = &device.Quote{PCRs: []byte{1}} }, "device_field"},
	}
	for name, r := range rows {
		q := p
		r.change(&q)
		msg, err := q.encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := reason(upTo(t, Enroll, 3).take(3, msg)); got != r.want {
			t.Errorf("%s: %s, want %s", name, got, r.want)
		}
	}
	if got := reason(old.take(3, s.proof)); got != "accepted" { // same zeros for randomness: the same transcript
		t.Errorf("the stub's own: %s", got)
	}
	// Without the quote: the Log has to say why there is none, and nothing else.
	for name, x := range map[string]struct {
		log  device.Quote
		want string
	}{
		"with a log":             {device.Quote{Log: []byte("log")}, "device_quote_missing"},
		"with nothing":           {device.Quote{}, "device_quote_missing"},
		"with the reason for it": {device.Quote{NoLog: "no SHA-256 PCRs"}, "accepted"},
	} {
		l := upTo(t, Login, 3)
		q, _ := decodeProof(l.proof)
		q.Quote = nil
		msg, _ := q.encode()
		r, log, err := l.proofs.Proof(msg)
		if err != nil || log == nil || r.ok {
			t.Fatalf("without the quote: %v", err)
		}
		pieces, err := encodeLog(x.log)
		if err != nil {
			t.Fatal(err)
		}
		r, _, err = log.Log(pieces[0])
		if got := reason(err); got != x.want || r.ok != (err == nil) || err == nil && (r.Quote.NoLog != x.log.NoLog || len(r.Quote.PCRs) != 0) {
			t.Errorf("without the quote, %s: %s", name, got)
		}
	}
}

// TestHello refuses fields that a Hello must not have, lacks, or cannot show.
func TestHello(t *testing.T) {
	esc := "\x1b[31m"
	rows := map[string]struct {
		purpose Purpose
		change  func(*hello)
		want    string
	}{
		"token at login":            {Login, func(h *hello) { h.token = "x" }, "device_field"},
		"EK at login":               {Login, func(h *hello) { h.evidence.EKPublic = []byte{1} }, "device_field"},
		"AK at login":               {Login, func(h *hello) { h.evidence.KeyArea = []byte{1} }, "device_field"},
		"no credential at login":    {Login, func(h *hello) { h.credentialID = "" }, "device_field"},
		"no session area":           {Login, func(h *hello) { h.evidence.SessionArea = nil }, "device_field"},
		"credential at enrollment":  {Enroll, func(h *hello) { h.credentialID = "x" }, "device_field"},
		"no EK":                     {Enroll, func(h *hello) { h.evidence.EKPublic = nil }, "device_field"},
		"no AK":                     {Enroll, func(h *hello) { h.evidence.KeyArea = nil }, "device_field"},
		"no name of the EK":         {Enroll, func(h *hello) { h.evidence.EKName = "" }, "device_field"},
		"device key beside an AK":   {Enroll, func(h *hello) { h.evidence.Key = []byte{1} }, "device_field"},
		"software with TPM's parts": {Enroll, func(h *hello) { h.evidence.Kind = device.Software }, "device_field"},
		"unknown kind":              {Enroll, func(h *hello) { h.evidence.Kind = "tpm3" }, "device_kind"},
		"no kind":                   {Login, func(h *hello) { h.evidence.Kind = "" }, "device_kind"},
		"escape in a claim":         {Enroll, func(h *hello) { h.claims.OSID = esc }, "device_text"},
		"long claim":                {Enroll, func(h *hello) { h.claims.OSID = string(bytes.Repeat([]byte("x"), 257)) }, "device_text"},
		"escape in the token":       {Enroll, func(h *hello) { h.token = esc }, "device_text"},
		"escape in the TPM's maker": {Enroll, func(h *hello) { h.evidence.TPM = &device.TPMInfo{Manufacturer: esc} }, "device_text"},
	}
	for name, r := range rows {
		t.Run(name, func(t *testing.T) {
			h, err := decodeHello(upTo(t, r.purpose, 1).hello, r.purpose)
			if err != nil {
				t.Fatal(err)
			}
			r.change(&h)
			msg, err := h.encode()
			if err != nil {
				t.Fatal(err)
			}
			if got := reason(upTo(t, r.purpose, 1).take(1, msg)); got != r.want {
				t.Errorf("got %s, want %s", got, r.want)
			}
		})
	}
	s := upTo(t, Login, 1)
	newer := bytes.Clone(s.hello)
	newer[1] = Version + 1
	if got := reason(s.take(1, newer)); got != "device_protocol_version" {
		t.Errorf("newer version: %s", got)
	}
}

// TestRefusals are the server's own mistakes and judgements.
func TestRefusals(t *testing.T) {
	if _, err := (Result{}).Welcome(Welcome{"d", "T", "c", "l"}); err == nil {
		t.Error("the zero Result welcomes")
	}
	for name, b := range map[string]Binding{
		"zero": {}, "purpose": {Purpose: "x", ClusterCA: make([]byte, 32), User: "u", SessionKey: []byte{1}},
		"cluster": {Purpose: Login, ClusterCA: make([]byte, 31), User: "u", SessionKey: []byte{1}},
		"user":    {Purpose: Login, ClusterCA: make([]byte, 32), SessionKey: []byte{1}},
		"key":     {Purpose: Login, ClusterCA: make([]byte, 32), User: "u"},
		"cert":    {Purpose: Login, ClusterCA: make([]byte, 32), User: "u", SessionKey: []byte{1}, Upgraded: []byte{1}},
	} {
		if _, err := NewVerifier(b, stubJudge{}, zeros{}); err == nil {
			t.Errorf("verifier takes a binding without %s", name)
		}
		if _, err := NewProver(b, stub{}); err == nil {
			t.Errorf("prover takes a binding without %s", name)
		}
	}
	_, await, err := upTo(t, Login, 1).verifier.Hello(upTo(t, Login, 1).hello)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := await.Challenge(Ask{Credential: &device.Credential{ID: "other", Kind: device.TPM2}}); err == nil {
		t.Error("a credential that Hello does not name")
	}
	_, await, _ = upTo(t, Login, 1).verifier.Hello(upTo(t, Login, 1).hello)
	_, _, err = await.Challenge(Ask{Credential: &device.Credential{ID: "cred", Kind: device.Software}})
	if reason(err) != "device_kind" {
		t.Errorf("a credential of another kind: %v", err)
	}
	_, await, _ = upTo(t, Login, 1).verifier.Hello(upTo(t, Login, 1).hello)
	if _, _, err := await.Challenge(Ask{}); err == nil {
		t.Error("no credential")
	}
	v, _ := NewVerifier(bindingFor(Enroll), stubJudge{errors.New("no")}, zeros{})
	_, await, _ = v.Hello(upTo(t, Enroll, 1).hello)
	if _, _, err := await.Challenge(Ask{}); err == nil {
		t.Error("a judge's refusal is lost")
	}
}

// TestA42_LogPieces: an event log comes in pieces, in order, bounded, and nobody is welcomed before the last.
func TestA42_LogPieces(t *testing.T) {
	gather := func(log []byte, problem string, change func(i int, msg []byte) []byte) (Result, error) {
		s := upTo(t, Login, typeLog)
		msgs, err := encodeLog(device.Quote{Log: log, NoLog: problem})
		if err != nil {
			return Result{}, err
		}
		var r Result
		more := true
		for i, m := range msgs {
			if r, more, err = s.logs.Log(change(i, m)); err != nil {
				return r, err
			}
			if more != (i < len(msgs)-1) {
				t.Errorf("piece %d of %d: more is %t", i, len(msgs), more)
			}
		}
		return r, nil
	}
	same := func(_ int, m []byte) []byte { return m }
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 3 * pieceSize, device.MaxEventLog} {
		log := bytes.Repeat([]byte{7}, size)
		r, err := gather(log, "", same)
		if err != nil || !r.ok || !bytes.Equal(r.Quote.Log, log) || !bytes.Equal(r.Quote.Statement, upTo(t, Login, typeLog).logs.quote.Statement) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if r, err := gather(nil, "for root alone", same); err != nil || r.Quote.NoLog != "for root alone" {
		t.Error(err)
	}
	if r, err := gather(nil, "\x1b[31m", same); err != nil || r.Quote.NoLog != "unreadable" {
		t.Error(err)
	}
	if _, err := gather(make([]byte, device.MaxEventLog+1), "", same); err == nil {
		t.Error("a log over the bound was sent")
	}
	piece := func(more byte, n int, problem string) []byte {
		m, err := encode([]byte{typeLog, more}, make([]byte, n), []byte(problem))
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	for name, x := range map[string]struct{ msg []byte }{
		"small, and more": {piece(1, 10, "")}, "empty, and more": {piece(1, 0, "")}, "more of 2": {piece(2, pieceSize, "")},
		"over a piece": {piece(0, pieceSize+1, "")}, "a log and a problem": {piece(0, 10, "p")}, "a problem, and more": {piece(1, pieceSize, "p")},
		"an escape": {piece(0, 0, "\x1b")},
	} {
		s := upTo(t, Login, typeLog)
		if r, _, err := s.logs.Log(x.msg); err == nil || r.ok {
			t.Errorf("%s was taken", name)
		}
		if _, _, err := s.logs.Log(piece(0, 0, "")); reason(err) != "device_message_order" {
			t.Errorf("%s: the next one was taken: %v", name, err)
		}
	}
	s := upTo(t, Login, typeLog) // without end
	var err error
	n := 0
	for ; err == nil && n < 100; n++ {
		_, _, err = s.logs.Log(piece(1, pieceSize, ""))
	}
	if reason(err) != "device_message_too_large" || n != device.MaxEventLog/pieceSize+1 {
		t.Errorf("%v after %d pieces", err, n)
	}
	s = upTo(t, Login, typeLog)
	if _, err := s.result.Welcome(Welcome{"d", "T", "c", "tpm_ekpub"}); err == nil {
		t.Error("welcomed before the log")
	}
}

// FuzzLogMessage: a piece that is taken is in its bounds.
func FuzzLogMessage(f *testing.F) {
	f.Add([]byte{5, 0, 0, 1, 9, 0, 0})
	f.Add([]byte{5, 1, 0, 0, 0, 0})
	for _, v := range vectors(f) {
		f.Add([]byte(v.Log))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a AwaitLog
		if r, more, err := a.Log(b); err == nil && (more == r.ok || len(a.quote.Log) > pieceSize) {
			t.Error("took nonsense")
		}
	})
}

func fuzzMessage(f *testing.F, n int) {
	for _, v := range vectors(f) {
		f.Add([]byte([][]byte{nil, v.Hello, v.Challenge, v.Proof, v.Welcome}[n]))
	}
	f.Add([]byte{byte(n), 1, 1, 0, 0})
}

// FuzzHello: what is taken has one form.
func FuzzHello(f *testing.F) {
	fuzzMessage(f, 1)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []Purpose{Enroll, Login} {
			if h, err := decodeHello(b, p); err == nil {
				if h.evidence.Kind == "" || len(b) > MaxMessage {
					t.Error("took nonsense")
				}
				again, err := h.encode()
				if err != nil && len(b) < MaxMessage/2 {
					t.Error(err)
				}
				if h2, err := decodeHello(again, p); len(again) > 0 && (err != nil || h2.token != h.token) {
					t.Error(err)
				}
			}
		}
	})
}

func FuzzChallenge(f *testing.F) {
	fuzzMessage(f, 2)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := decodeChallenge(b); err == nil {
			if again, err := c.encode(); err != nil || !bytes.Equal(again, b) {
				t.Error("two forms", err)
			}
		}
	})
}

func FuzzProof(f *testing.F) {
	fuzzMessage(f, 3)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodeProof(b); err == nil {
			if again, err := p.encode(); err != nil || !bytes.Equal(again, b) {
				t.Error("two forms", err)
			}
		}
	})
}

func FuzzWelcome(f *testing.F) {
	fuzzMessage(f, 4)
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := decodeWelcome(b); err == nil {
			if again, err := w.encode(); err != nil || !bytes.Equal(again, b) {
				t.Error("two forms", err)
			}
		}
	})
}
