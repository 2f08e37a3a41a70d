package records

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/store"
)

// Secret is what proves a user: a password hash in PHC form, a one-time-code secret with the last step that was
// taken, and notices to show at the next login elsewhere.
type Secret struct {
	Password string    `json:"password,omitempty"`
	OTP      []byte    `json:"otp,omitempty"`
	OTPID    string    `json:"otp_id,omitempty"` // what locks call the factor: mfa_device
	OTPStep  int64     `json:"otp_step,omitempty"`
	Notices  []Notice  `json:"notices,omitempty"`
	Changed  time.Time `json:"changed,omitzero"`
	Machine  *Machine  `json:"machine,omitempty"`
}

// Machine is what a bot was bound to at its first login: a device by its id, or a key that is kept on the machine, SPKI
// DER.
type Machine struct {
	Device string    `json:"device,omitempty"`
	Key    []byte    `json:"key,omitempty"`
	Time   time.Time `json:"time"`
}

// Notice is a line for a person's next login, but not for one from the device that it is about.
type Notice struct {
	Device string `json:"device,omitempty"`
	Text   string `json:"text"`
}

// SecretKey is where a user's secret lies.
func SecretKey(user string) string { return "secret/" + url.PathEscape(user) }

// Secret reads a user's secret with its revision; a user without one has revision 0.
func (r *Records) Secret(ctx context.Context, user string) (Secret, uint64, error) {
	var s Secret
	rev, _, err := r.value(ctx, SecretKey(user), &s)
	return s, rev, err
}

// PutSecret are the operations that replace a secret that was read at a revision.
func PutSecret(user string, s Secret, revision uint64) ([]store.Op, error) {
	put, err := PutValue(SecretKey(user), s)
	return []store.Op{store.CheckRevision(SecretKey(user), revision), put}, err
}

// Invite lets somebody set a user's factors once; of a bot, its first login.
type Invite struct {
	Bot     bool      `json:"bot,omitempty"`
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
}

// NewToken makes a single-use secret, printed once; what is stored is its hash.
func NewToken() string {
	b := make([]byte, 24)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// TokenID is under what a single-use secret is stored: 32 hex digits of its SHA-256.
func TokenID(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:16])
}

// InviteKey is where an invite lies.
func InviteKey(secret string) string { return "invite/" + TokenID(secret) }

// Invite reads an invite by its secret; one that is unknown, spent or over is the same fault.
func (r *Records) Invite(ctx context.Context, secret string) (Invite, uint64, error) {
	var i Invite
	rev, found, err := r.value(ctx, InviteKey(secret), &i)
	if err != nil {
		return i, 0, err
	}
	if !found {
		return i, 0, fault.New(fault.Denied, "invalid invite").WithReason("invalid_invite").
			WithCause("it is unknown, was used, or is over").WithFix("ask an administrator: tctl users reset USER")
	}
	return i, rev, nil
}

// InvitesOf lists the keys of a user's invites, for a reset or removal to take them back.
func (r *Records) InvitesOf(ctx context.Context, user string) ([]string, error) {
	var keys []string
	after := ""
	for {
		page, err := r.store.List(ctx, store.Range{Prefix: "invite/", After: after})
		if err != nil {
			return nil, err
		}
		for _, rec := range page.Records {
			var i Invite
			if _, found, err := r.value(ctx, rec.Key, &i); err == nil && found && i.User == user {
				keys = append(keys, rec.Key)
			}
			after = rec.Key
		}
		if !page.More {
			return keys, nil
		}
	}
}

// PutInvite is the operation that stores an invite.
func PutInvite(secret string, i Invite) (store.Op, error) {
	op, err := PutValue(InviteKey(secret), i)
	return op.Until(i.Expires), err
}
