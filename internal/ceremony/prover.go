package ceremony

import (
	"github.com/sallyport/sallyport/internal/device"
)

// Prover is the device's side of one ceremony. It is not safe for concurrent use.
type Prover struct {
	binding Binding
	key     Key
	used    bool
}

// NewProver starts the device's side with the key that stands for the device and vouches for binding.SessionKey.
func NewProver(b Binding, k Key) (*Prover, error) {
	if err := b.check(); err != nil {
		return nil, err
	}
	if k == nil {
		return nil, bad("prover without key")
	}
	return &Prover{binding: b, key: k}, nil
}

// Introduction is what Hello says besides the key's evidence.
type Introduction struct {
	Token        string // enroll
	CredentialID string // login, reissue
	Claims       device.Data
}

// Hello makes the first message. A second call is refused.
func (p *Prover) Hello(in Introduction) ([]byte, *AwaitingChallenge, error) {
	if p.used {
		return nil, nil, outOfOrder("Hello")
	}
	p.used = true
	e, err := p.key.Evidence()
	if err != nil {
		return nil, nil, err
	}
	h := hello{purpose: p.binding.Purpose, claims: in.Claims, token: in.Token, credentialID: in.CredentialID, evidence: e}
	if err := h.shape(); err != nil {
		return nil, nil, err
	}
	msg, err := h.encode()
	if err != nil {
		return nil, nil, err
	}
	return msg, &AwaitingChallenge{p: p, hello: msg, kind: e.Kind}, nil
}

// AwaitingChallenge is the device's side between Hello and Proof.
type AwaitingChallenge struct {
	p     *Prover
	hello []byte
	kind  device.Kind
	used  bool
}

// Proof takes the second message and makes what answers it, to be sent in order: the third, one signature of the device
// key over the transcript, and behind it, where a quote is wanted, the event log in pieces. A second call is refused.
func (a *AwaitingChallenge) Proof(msg []byte) ([][]byte, *AwaitingWelcome, error) {
	if a.used {
		return nil, nil, outOfOrder("Challenge")
	}
	a.used = true
	c, err := decodeChallenge(msg)
	if err != nil {
		return nil, nil, err
	}
	activate := a.p.binding.Purpose == Enroll && a.kind == device.TPM2
	if activate != (len(c.blob) > 0) || activate != (len(c.encrypted) > 0) {
		return nil, nil, malformed("device_field", "a credential blob has its place in a TPM's enrollment alone")
	}
	var out proof
	if activate {
		if out.secret, err = a.p.key.Activate(c.blob, c.encrypted); err != nil {
			return nil, nil, err
		}
	}
	if out.Proof, err = a.p.key.Prove(a.p.binding.Digest(a.hello, msg), c.quote); err != nil {
		return nil, nil, err
	}
	answer, err := out.encode()
	if err != nil {
		return nil, nil, err
	}
	answers := [][]byte{answer}
	if out.Quote != nil {
		log, err := encodeLog(*out.Quote)
		if err != nil {
			return nil, nil, err
		}
		answers = append(answers, log...)
	}
	return answers, &AwaitingWelcome{}, nil
}

// AwaitingWelcome is the device's side behind Proof.
type AwaitingWelcome struct{ used bool }

// Welcome takes the last message. A second call is refused.
func (a *AwaitingWelcome) Welcome(msg []byte) (Welcome, error) {
	if a.used {
		return Welcome{}, outOfOrder("Welcome")
	}
	a.used = true
	return decodeWelcome(msg)
}
