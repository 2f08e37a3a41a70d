package login

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/sallyport/sallyport/internal/fault"
)

// The argon2id parameters (RFC 9106), and how many hashes run at once; the rest queue.
const (
	argonMemory  = 19 << 10 // KiB
	argonPasses  = 2
	argonThreads = 1
	argonKey     = 32
	argonSalt    = 16
	atOnce       = 4
)

// MinPassword and MaxPassword bound a password, in characters and bytes.
const (
	MinPassword = 8
	MaxPassword = 1024
)

// Passwords hashes and compares, a few at once.
type Passwords struct {
	slots chan struct{}
	dummy string
}

// NewPasswords makes the queue.
func NewPasswords() *Passwords {
	p := &Passwords{slots: make(chan struct{}, atOnce)}
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	p.dummy = encode(salt, argon2.IDKey([]byte(rand.Text()), salt, argonPasses, argonMemory, argonThreads, argonKey))
	return p
}

func (p *Passwords) turn(ctx context.Context) (func(), error) {
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// CheckPassword refuses one that is too short, too long or no text.
func CheckPassword(s string) error {
	if utf8.RuneCountInString(s) < MinPassword {
		return fault.New(fault.Invalid, "the password needs at least %d characters", MinPassword).WithReason("short_password")
	}
	if len(s) > MaxPassword || !utf8.ValidString(s) {
		return fault.New(fault.Invalid, "the password is too long or no text").WithReason("bad_password")
	}
	return nil
}

// Hash gives the PHC string of a password.
func (p *Passwords) Hash(ctx context.Context, password string) (string, error) {
	if err := CheckPassword(password); err != nil {
		return "", err
	}
	done, err := p.turn(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	salt := make([]byte, argonSalt)
	rand.Read(salt)
	return encode(salt, argon2.IDKey([]byte(password), salt, argonPasses, argonMemory, argonThreads, argonKey)), nil
}

func encode(salt, key []byte) string {
	e := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonPasses, argonThreads,
		e.EncodeToString(salt), e.EncodeToString(key))
}

// Matches compares a password with a PHC string. An empty string costs as much as any, and never matches, so that a
// user who does not exist takes as long as one who does.
func (p *Passwords) Matches(ctx context.Context, phc, password string) (bool, error) {
	done, err := p.turn(ctx)
	if err != nil {
		return false, err
	}
	defer done()
	real := phc != ""
	if !real {
		phc = p.dummy
	}
	if len(password) > MaxPassword {
		password = password[:MaxPassword]
	}
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, fmt.Errorf("stored password hash of another kind")
	}
	var memory, passes uint32
	var threads uint8
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil || memory > 1<<20 || passes == 0 || threads == 0 {
		return false, fmt.Errorf("stored password hash with odd parameters")
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("stored password salt: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) == 0 {
		return false, fmt.Errorf("stored password hash is damaged")
	}
	have := argon2.IDKey([]byte(password), salt, passes, memory, threads, uint32(len(want)))
	return subtle.ConstantTimeCompare(have, want) == 1 && real, nil
}
