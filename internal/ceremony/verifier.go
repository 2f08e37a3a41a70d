package ceremony

import (
	"crypto/sha256"
	"crypto/subtle"
	"io"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

const (
	nonceSize  = 32
	secretSize = 32
)

// Verifier is the server's side of one ceremony, from its first message. It is not safe for concurrent use.
type Verifier struct {
	binding Binding
	judge   Judge
	rand    io.Reader
	used    bool
}

// NewVerifier starts the server's side. The binding is what the server knows by itself: never take it from the
// device. rand gives nonce and secret (crypto/rand.Reader).
func NewVerifier(b Binding, j Judge, rand io.Reader) (*Verifier, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if j == nil || rand == nil {
		return nil, bad("verifier without judge or randomness")
	}
	return &Verifier{binding: b, judge: j, rand: rand}, nil
}

// HelloInfo is what Hello says, unproven: enough to look up token, device and credential.
type HelloInfo struct {
	Kind         device.Kind
	Token        string // enroll; may be empty where the user may enroll without one
	CredentialID string // login, reissue
	Claims       device.Data
	Evidence     device.Evidence
}

// Hello takes the first message. A second call is refused.
func (v *Verifier) Hello(msg []byte) (HelloInfo, *AwaitChallenge, error) {
	if v.used {
		return HelloInfo{}, nil, outOfOrder("Hello")
	}
	v.used = true
	h, err := decodeHello(msg, v.binding.Purpose)
	if err != nil {
		return HelloInfo{}, nil, err
	}
	info := HelloInfo{Kind: h.evidence.Kind, Token: h.token, CredentialID: h.credentialID, Claims: h.claims,
		Evidence: h.evidence}
	return info, &AwaitChallenge{v: v, hello: h, msg: append([]byte(nil), msg...)}, nil
}

// AwaitChallenge is the server's side between Hello and Challenge.
type AwaitChallenge struct {
	v     *Verifier
	hello hello
	msg   []byte
	used  bool
}

// Ask is what the server found in its store for a Hello.
type Ask struct {
	Credential *device.Credential // login, reissue: the stored credential of HelloInfo.CredentialID; enroll: nil
	Quote      bool               // a role or baseline wants the machine's start quoted; TPMs only
}

// Challenge judges an enrollment's evidence, or takes the stored credential, and returns the second message. Call it
// after token, device and owner were found in order. A second call is refused.
func (a *AwaitChallenge) Challenge(ask Ask) ([]byte, *AwaitProof, error) {
	if a.used {
		return nil, nil, outOfOrder("Challenge")
	}
	a.used = true
	next := &AwaitProof{v: a.v, session: device.Session{Key: a.v.binding.SessionKey, Area: a.hello.evidence.SessionArea},
		quote: ask.Quote}
	nonce := make([]byte, nonceSize)
	if _, err := io.ReadFull(a.v.rand, nonce); err != nil {
		return nil, nil, bad("nonce: %v", err)
	}
	c := challenge{quote: ask.Quote, nonce: nonce}
	if ask.Quote && a.hello.evidence.Kind != device.TPM2 {
		return nil, nil, refuse("device_quote_unsupported", "a %s key cannot quote the machine's start", a.hello.evidence.Kind)
	}
	if err := a.candidate(ask, next); err != nil {
		return nil, nil, err
	}
	if a.v.binding.Purpose == Enroll && a.hello.evidence.Kind == device.TPM2 {
		next.secret = make([]byte, secretSize)
		if _, err := io.ReadFull(a.v.rand, next.secret); err != nil {
			return nil, nil, bad("secret: %v", err)
		}
		var err error
		if c.blob, c.encrypted, err = a.v.judge.Protect(a.v.rand, a.hello.evidence, next.secret); err != nil {
			return nil, nil, err
		}
	}
	msg, err := c.encode()
	if err != nil {
		return nil, nil, err
	}
	next.digest = a.v.binding.Digest(a.msg, msg)
	return msg, next, nil
}

// candidate finds the credential that the proof has to be by.
func (a *AwaitChallenge) candidate(ask Ask, next *AwaitProof) error {
	if a.v.binding.Purpose == Enroll {
		if ask.Credential != nil {
			return bad("an enrollment makes its own credential")
		}
		c, err := a.v.judge.Enroll(a.hello.evidence)
		if err != nil {
			return err
		}
		if c.Kind != a.hello.evidence.Kind || !c.Attestation.Known() {
			return bad("judged as %q at level %q", c.Kind, c.Attestation)
		}
		next.credential = c
		return nil
	}
	if ask.Credential == nil || ask.Credential.ID == "" || ask.Credential.ID != a.hello.credentialID {
		return bad("not the credential that Hello names")
	}
	if ask.Credential.Kind != a.hello.evidence.Kind {
		return refuse("device_kind", "the credential is a %s key, not %s", ask.Credential.Kind, a.hello.evidence.Kind)
	}
	next.credential = *ask.Credential
	return nil
}

// AwaitProof is the server's side between Challenge and Proof.
type AwaitProof struct {
	v          *Verifier
	credential device.Credential
	session    device.Session
	digest     [sha256.Size]byte
	secret     []byte
	quote      bool
	used       bool
}

// Candidate is the credential that is about to be proven, for checks that need the EK hash before.
func (a *AwaitProof) Candidate() device.Credential { return a.credential }

// Result is an accepted proof; its zero value welcomes nobody.
type Result struct {
	// Credential is the stored one with the newest clock figures or, of an enrollment, a new one without id, owner
	// and time.
	Credential device.Credential
	// Quote is the quote that was wanted, judged, with the event log as it came, which was not. Of a device that cannot
	// quote it says in NoLog why, and nothing else.
	Quote *device.Quote
	ok    bool
}

// Proof takes the third message. Where a quote was wanted the result comes with its event log: AwaitLog is nil
// otherwise. A second call is refused.
func (a *AwaitProof) Proof(msg []byte) (Result, *AwaitLog, error) {
	if a.used {
		return Result{}, nil, outOfOrder("Proof")
	}
	a.used = true
	p, err := decodeProof(msg)
	if err != nil {
		return Result{}, nil, err
	}
	if len(p.secret) != len(a.secret) || subtle.ConstantTimeCompare(p.secret, a.secret) != 1 {
		return Result{}, nil, refuse("device_activation", "the endorsement key does not belong to the attestation key")
	}
	clock, err := a.v.judge.Prove(a.credential, a.session, a.digest, p.Proof)
	if err != nil {
		return Result{}, nil, err
	}
	c := a.credential
	c.Clock = clock
	return a.judged(c, a.digest, p.Quote)
}

// Welcome is the last message, for a proof that was accepted and stored.
func (r Result) Welcome(w Welcome) ([]byte, error) {
	if !r.ok {
		return nil, bad("Welcome without a proof")
	}
	msg, err := w.encode()
	if err != nil {
		return nil, err
	}
	if _, err := decodeWelcome(msg); err != nil {
		return nil, bad("Welcome: %v", fault.Of(err).Cause)
	}
	return msg, nil
}

// refuse is a judgement on a well-formed message.
func refuse(reason, format string, args ...any) error {
	return fault.New(fault.Denied, "device proof refused").WithReason(reason).WithCause(format, args...)
}
