package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Ticket opens a path through the proxy to a gate, and no gate believes it: {user, expiry, 16 random bytes}, signed
// by the dial-ticket authority. A ticket is printed as base64url(JSON) "." base64url(signature).
type Ticket struct {
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
	Nonce   []byte    `json:"nonce"`
}

// ticketDomain keeps a ticket's signature from being one over anything else.
const ticketDomain = "sallyport-dial-ticket-v1\x00"

// maxTicket bounds a printed ticket, in bytes.
const maxTicket = 1024

// SignTicket makes a ticket for user until expires.
func SignTicket(key crypto.Signer, user string, expires time.Time) (string, error) {
	nonce := make([]byte, 16)
	rand.Read(nonce)
	body, err := json.Marshal(Ticket{User: user, Expires: expires.UTC(), Nonce: nonce})
	if err != nil {
		return "", err
	}
	sig, err := key.Sign(nil, append([]byte(ticketDomain), body...), crypto.Hash(0))
	if err != nil {
		return "", fmt.Errorf("sign dial ticket: %w", err)
	}
	e := base64.RawURLEncoding
	return e.EncodeToString(body) + "." + e.EncodeToString(sig), nil
}

// VerifyTicket judges a printed ticket at a time.
func VerifyTicket(key ed25519.PublicKey, printed string, now time.Time) (Ticket, error) {
	if len(printed) > maxTicket {
		return Ticket{}, errors.New("dial ticket too large")
	}
	left, right, ok := strings.Cut(printed, ".")
	if !ok {
		return Ticket{}, errors.New("dial ticket without a signature")
	}
	e := base64.RawURLEncoding.Strict()
	body, err := e.DecodeString(left)
	if err != nil {
		return Ticket{}, fmt.Errorf("dial ticket: %w", err)
	}
	sig, err := e.DecodeString(right)
	if err != nil {
		return Ticket{}, fmt.Errorf("dial ticket: %w", err)
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, append([]byte(ticketDomain), body...), sig) {
		return Ticket{}, errors.New("dial ticket signature does not verify")
	}
	var t Ticket
	if err := json.Unmarshal(body, &t); err != nil {
		return Ticket{}, fmt.Errorf("dial ticket: %w", err)
	}
	if !now.Before(t.Expires) {
		return Ticket{}, errors.New("dial ticket has expired")
	}
	return t, nil
}
